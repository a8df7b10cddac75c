"""The preparation on Spark: tasks read and judge the rows, Spark joins, counts and sorts them.

Staged rows have a NULL `seq` where they are a task's note. What comes back are the users, the
catalogue and, one after the other, the sorted events, packed in batches: no machine of the cluster
needs a disk that another one sees, but for the logs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from clue.data.fields import Field
from clue.data.ingest import validation
from clue.data.ingest.fields import Stored
from clue.data.ingest.parts import parts_of
from clue.data.ingest.prepare_config import PrepareConfig, fields_of
from clue.data.ingest.progress import Progress
from clue.data.ingest.spark import tasks
from clue.data.ingest.spark.collect import (
    COUNTED,
    batches_of,
    collect_catalogue,
    collect_events,
    spooled,
)
from clue.data.ingest.spark.frames import Frames, Logs, frames_of
from clue.data.ingest.spark.shards import write_sharded
from clue.data.ingest.staging import Layout
from clue.data.ingest.times import Settled, is_settled, settle
from clue.data.ingest.validation import EXAMPLES, BadRows, Log
from clue.data.ingest.writer import History, Rows

INSIDE = (1 << 33) - 1  # of monotonically_increasing_id: the row's number inside its partition
GOOD = "reason IS NULL"


def read(
    db: duckdb.DuckDBPyConnection,
    logs: Logs,
    layout: Layout,
    config: PrepareConfig,
    show: Progress,
) -> Rows:
    """Do on Spark all that stands before the numbering; raise as DuckDB's way does.

    Fills the tables `catalogue` and `counted` of `db`; the sorted events lie in files beside it, or
    are written as shards where the executors write.
    """
    event_log, item_log = logs
    ((folder,),) = db.sql("SELECT path FROM duckdb_databases() WHERE NOT internal").fetchall()
    work = Path(folder).parent.absolute()
    with frames_of(config, logs, work) as frames:
        with show.stage("reading the logs"):
            items = _staged(frames, item_log, layout, config, with_text=False) if item_log else None
            events = _staged(frames, event_log, layout, config, with_text=item_log is None)
        settled = settle(_merged(events[1]), event_log, config.time_unit)
        show.line(settled.line)
        with show.stage("checking rows"):
            good = _converted(frames, events[0], settled)
            good = _without_split_conflicts(good) if layout.split else good
            claims = good if items is None else items[0]
            catalogue, judged = _catalogue(frames, claims, good, of_items=item_log is not None)
            counts = judged.groupBy("reason", "service").count().collect()
            bad = validation.rejected(event_log) + _flagged(judged, event_log)
            if item_log and items:
                bad += validation.rejected(item_log) + _flagged(items[0], item_log)
            conflicts = _conflicting_texts(claims, catalogue, item_log or event_log)
        dropped = validation.refuse_or_drop(
            bad,
            conflicts,
            of_items=item_log is not None,
            on_bad_row=config.on_bad_row,
            show=show,
        )
        totals = {row["service"]: row["count"] for row in counts if row["reason"] is None}
        services = validation.services_of(sorted(totals), layout.templates)
        clocks = {name: settled.clocks[name] for name in services}
        with show.stage("collecting the catalogue"):
            collect_catalogue(db, catalogue)
            own = {name: fields_of(config, name) for name in services}
            values = _values(judged, own)
            plan = _plan(catalogue, services, own, values)
        good = judged.where(GOOD)
        if config.spark.writers == "executors":
            sharded = write_sharded(db, frames, good, plan, own, show)
            return Rows(dropped, clocks, COUNTED, sharded)
        spools = [work / f"{number}.arrows" for number in range(len(services))]
        _collect(db, frames, good, plan, spools, show)

    def histories(service: str, fields: Mapping[Field, str]) -> History:
        stored = {
            name: Stored(field, name, "", values.get((service, name)))
            for field, name in fields.items()
        }
        return History(stored, spooled(spools[services.index(service)]))

    return Rows(dropped, clocks, COUNTED, histories)


def _collect(
    db: duckdb.DuckDBPyConnection,
    frames: Frames,
    good: DataFrame,
    plan: tasks.Histories,
    spools: Sequence[Path],
    show: Progress,
) -> None:
    """Sort the good events and bring them here: a file for each service, and table `counted`."""
    with show.stage("sorting events"):
        ready = frames.sort(good, "user_id", "seconds", "seq")
        task = partial(tasks.pack_histories, plan=plan)
        packed = frames.keep(ready.mapInArrow(task, tasks.PACKED))
        packed.count()
    with show.stage("collecting events") as seen:
        collect_events(db, packed, spools, seen)


def _staged(
    frames: Frames, log: Log, layout: Layout, config: PrepareConfig, *, with_text: bool
) -> tuple[DataFrame, list[dict[str, Any]]]:
    """Return the rows of a log, every one judged, and the notes of the tasks that read them."""
    held = [replace(file, held=None) for file in log.files]  # a lock does not travel
    parts = list(parts_of(replace(log, files=held), size=frames.part))
    reading = tasks.Reading(
        *(log.table, layout, with_text, config.time_unit, config.memory_limit, config.cache),
        frames.work,
    )
    schema = ", ".join(f"{name} {kind}" for name, kind in tasks.columns(log.table, layout).items())
    task = partial(tasks.read_parts, parts=parts, reading=reading)
    numbers = frames.spark.range(0, len(parts), 1, len(parts))
    rows = frames.keep(numbers.mapInArrow(task, schema))
    notes = [json.loads(row["value"]) for row in rows.where("seq IS NULL").collect()]
    notes.sort(key=lambda note: note["file"])
    for note in notes:
        if note["error"]:
            raise ValueError(note["error"])
        rejected = log.rejected.setdefault(note["file"], [])
        rejected += [(row, reason, text) for row, reason, text in note["rejected"]]
    return rows.where("seq IS NOT NULL"), notes


def _merged(notes: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Return the counts of times (`groups_sql`) of all parts; behind a sum stands the largest."""
    merged: dict[tuple[int, str, bool], list[Any]] = {}
    for note in notes:
        for _, service, is_number, *counts in note["times"]:
            before = merged.setdefault((note["file"], service, is_number), counts)
            if before is not counts:
                sums = [one + other for one, other in zip(before, counts, strict=True)]
                before[:] = [*sums[:-1], max(before[-1], counts[-1])]
    return [[*key, *merged[key]] for key in sorted(merged)]


def _converted(frames: Frames, events: DataFrame, settled: Settled) -> DataFrame:
    if is_settled(settled):
        return events
    task = partial(tasks.convert_times, settled=settled)
    return frames.keep(events.mapInArrow(task, events.schema))


def _without_split_conflicts(events: DataFrame) -> DataFrame:
    """Return the events, all those of users with two values in the split column marked as bad."""
    users = events.where(GOOD).groupBy(F.col("user_id").alias("who"))
    two = users.agg(F.min("part").alias("low"), F.max("part").alias("high")).where("low <> high")
    marked = events.join(two, (events["user_id"] == two["who"]) & events["reason"].isNull(), "left")
    is_bad = F.col("low").isNotNull()
    words = F.concat("user_id", F.lit(": "), "low", F.lit(" and "), "high")
    return marked.withColumns(_marked(is_bad, "user_in_two_splits", words)).drop(
        "who", "low", "high"
    )


def _marked(is_bad: Column, reason: str, words: Column) -> dict[str, Column]:
    return {
        "reason": F.when(is_bad, F.lit(reason)).otherwise(F.col("reason")),
        "value": F.when(is_bad, words).otherwise(F.col("value")),
    }


def _catalogue(
    frames: Frames, claims: DataFrame, events: DataFrame, *, of_items: bool
) -> tuple[DataFrame, DataFrame]:
    """Return the items with their first text and number, and the events with their item's number.

    Items are numbered by service, then id. Where `of_items` says their texts, an event of none of
    them is bad.
    """
    text = F.min_by("text", "seq").alias("text")
    differs = (F.min("text") != F.max("text")).alias("differs")
    items = claims.where(GOOD).groupBy("service", "item_id").agg(text, differs)
    items = frames.sort(items, "service", "item_id").withColumn(
        "id", F.monotonically_increasing_id()
    )
    items = frames.keep(items)
    partition = F.shiftright("id", 33)
    sizes = {row[0]: row[1] for row in items.groupBy(partition).count().collect()}
    before = np.cumsum([0, *(sizes.get(n, 0) for n in range(max(sizes, default=0)))]).tolist()
    inside = F.col("id").bitwiseAND(F.lit(INSIDE))
    number = F.element_at(F.lit(before), (partition + 1).cast("int")) + inside
    items = items.select("service", "item_id", "text", "differs", number.alias("item"))
    slim = events.drop("text", "is_number")
    joined = slim.where(GOOD).join(
        items.select("service", "item_id", "item"), ["service", "item_id"], "left"
    )
    if of_items:
        words = F.concat("service", F.lit(" "), "item_id")
        joined = joined.withColumns(_marked(F.col("item").isNull(), "item_not_in_items", words))
    bad = slim.where("reason IS NOT NULL").withColumn("item", F.lit(None).cast("long"))
    return items, frames.keep(joined.unionByName(bad).drop("item_id"))


def _flagged(rows: DataFrame, log: Log) -> list[BadRows]:
    """Return the bad rows by reason, as `validation.bad_rows` does."""
    bad = rows.where("reason IS NOT NULL")
    counts = sorted(
        (row["reason"], row["count"]) for row in bad.groupBy("reason").count().collect()
    )
    flagged: list[BadRows] = []
    for reason, count in counts:
        some = bad.where(F.col("reason") == reason).orderBy("seq").limit(EXAMPLES)
        first = some.select("seq", "value").collect()
        examples = [f"{log.place(row['seq'])}: {row['value']!r}" for row in first]
        flagged.append(BadRows(reason, count, examples))
    return flagged


def _conflicting_texts(claims: DataFrame, catalogue: DataFrame, log: Log) -> list[BadRows]:
    """Return the rows whose text is not the first of their item, as its namesake in SQL does."""
    several = catalogue.where("differs").select("service", "item_id", F.col("text").alias("first"))
    other = claims.where(GOOD).join(several, ["service", "item_id"]).where("text <> first")
    count = other.count()
    rows = other.orderBy("seq").limit(EXAMPLES).collect() if count else []
    examples = [
        validation.conflict(log, row["seq"], row["item_id"], row["text"], row["first"])
        for row in rows
    ]
    return [BadRows("item_with_another_text", count, examples)] if count else []


Values = Mapping[tuple[str, str], pa.ChunkedArray]  # sorted, by service and column


def _values(events: DataFrame, own: Mapping[str, Mapping[Field, str]]) -> Values:
    """Return the values of the categorical and boolean fields of each service, by column."""
    services: dict[str, list[str]] = {}
    for service, fields in own.items():
        for field, name in fields.items():
            if field.kind != "numeric":
                services.setdefault(name, []).append(service)
    values: dict[tuple[str, str], list[str]] = {
        (service, name): [] for name, theirs in services.items() for service in theirs
    }
    for name, theirs in services.items():
        rows = events.where(GOOD).where(F.col("service").isin(theirs) & F.col(name).isNotNull())
        for batch in batches_of(rows.select("service", name).distinct()):
            for service, value in zip(*(each.to_pylist() for each in batch.columns), strict=True):
                values[service, name].append(value)
    # Python sorts by code points, which is the order of the bytes.
    return {key: pa.chunked_array([sorted(each)], pa.string()) for key, each in values.items()}


def _plan(
    catalogue: DataFrame,
    services: Sequence[str],
    own: Mapping[str, Mapping[Field, str]],
    values: Values,
) -> tasks.Histories:
    """Return how events are packed; items were numbered over all services, in order of names."""
    counts = {
        row["service"]: row["count"] for row in catalogue.groupBy("service").count().collect()
    }
    names = sorted(counts)
    numbered = dict(zip(names, np.cumsum([0, *(counts[n] for n in names)]).tolist(), strict=False))
    starts = np.cumsum([0, *(counts[name] for name in services)]).tolist()
    fields = [
        {
            name: values[service, name].combine_chunks() if (service, name) in values else None
            for name in own[service].values()
        }
        for service in services
    ]
    shifts = [start - numbered[n] for n, start in zip(services, starts, strict=False)]
    return tasks.Histories(services, shifts, fields)
