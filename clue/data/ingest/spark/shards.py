"""Histories that the executors write, in shards: no event passes through the driver.

The driver holds the users and the catalogue. It draws the bounds of the shards, Spark brings the
events of a shard to one task, in order, and that task writes its files. What is learnt of the
fields is counted by a task first. At the end the driver reads the shards, one after the other, for
the hash of the whole: a fingerprint is that of the histories in one file, whoever wrote them.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

import duckdb
import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from clue.atomic import sha256
from clue.data.cache import MANIFEST
from clue.data.fields import Field, learn_edges
from clue.data.history_shards import HistoryShards, Sharded, bounds_of, shard_name
from clue.data.ingest.fields import ranked, step_of
from clue.data.ingest.prepare_config import split_sql
from clue.data.ingest.progress import Progress
from clue.data.ingest.spark import shard_tasks, tasks
from clue.data.ingest.spark.collect import COUNTED, collect_users, unpacked
from clue.data.ingest.spark.frames import Frames
from clue.data.store import Store, url_of

Own = Mapping[str, Mapping[Field, str]]  # by service, the fields and their columns
Codes = list[dict[str, np.ndarray]]  # by service and column, the code of each value
NOT_SHARED = (
    "{} is not what a task wrote, or not there; do all executors mount that folder? If not, let "
    "out= be a URL of a store, or set spark.writers=driver"
)


def write_sharded(
    db: duckdb.DuckDBPyConnection,
    frames: Frames,
    good: DataFrame,
    histories: tasks.Histories,
    own: Own,
    show: Progress,
) -> Sharded:
    """Have the executors write the good events; fill table `counted` with the users.

    Raises ValueError where they wrote into another folder than the driver's.
    """
    config = frames.config
    with show.stage("counting users"):
        collect_users(db, good)
        bounds, firsts = _bounds(db, config.shards)
    with show.stage("sorting events"):
        filled = np.flatnonzero(np.diff(bounds)).tolist()
        task = partial(shard_tasks.assign, shards=filled, firsts=firsts)
        names = ", ".join(f"`{name}` {kind}" for name, kind in good.dtypes)
        marked = good.mapInArrow(task, f"{names}, shard int")
        ranges = marked.repartitionByRange(len(filled), "shard")
        ordered = frames.keep(ranges.sortWithinPartitions("shard", "user_id", "seconds", "seq"))
        counts = np.zeros((config.shards, len(histories.services)), np.int64)
        for row in ordered.groupBy("shard", "service").agg(F.count("*").alias("events")).collect():
            counts[row["shard"], histories.services.index(row["service"])] = row["events"]
    with show.stage("learning fields"):
        fields, codes = _learn(ordered, histories, own, counts, split_sql(config))
    with show.stage("writing histories"):
        url = url_of(config.out) if config.out else None
        plan = shard_tasks.Writing(
            histories=histories,
            sizes=np.diff(bounds).tolist(),
            names=[{name: field.name for field, name in own[s].items()} for s in own],
            codes=codes,
            folder=_made(frames.folder / f"shards-{token_hex(4)}"),
            url=url,
            patience=config.cache.patience,
            work=frames.work,
        )
        files = _written(ordered, plan)
    with show.stage("hashing histories"):
        if url is None:
            _check(plan.folder, files)
        shards = HistoryShards(plan.folder, url, histories.services, bounds, files, config.cache)
        whole = {service: shards.whole_sha256(service) for service in histories.services}
    events = dict(zip(histories.services, counts.sum(axis=0).tolist(), strict=True))
    learnt = dict(zip(histories.services, fields, strict=True))
    return Sharded(shards, whole, events, learnt)


def _made(folder: Path) -> Path:
    """Return a new folder, which no task of an earlier run knows, that may live on for a while."""
    folder.mkdir()
    return folder


def _bounds(db: duckdb.DuckDBPyConnection, count: int) -> tuple[np.ndarray, list[str]]:
    """Return the first users of the shards and their number, and the ids of those first ones.

    A shard without users has no id.
    """
    users = db.sql(f"SELECT user_id, events FROM {COUNTED} ORDER BY user_id").to_arrow_table()
    before = np.concatenate([[0], np.cumsum(users["events"].to_numpy())])
    bounds = bounds_of(before, count)
    firsts = bounds[:-1][np.diff(bounds) > 0]
    return bounds, users["user_id"].take(firsts).to_pylist()


def _learn(
    ordered: DataFrame, histories: tasks.Histories, own: Own, counts: np.ndarray, split: str
) -> tuple[list[list[Field]], Codes]:
    """Return the fields of each service as its training users have them, as `settle` does."""
    before = np.cumsum(counts, axis=0) - counts
    plan = shard_tasks.Learning(
        histories=histories,
        split=split,
        steps=[step_of(total) for total in counts.sum(axis=0).tolist()],
        starts={(n, s): int(before[n, s]) for n, s in np.argwhere(counts).tolist()},
    )
    seen: dict[tuple[int, str], list[np.ndarray]] = {}
    if any(histories.fields):
        packed = ordered.mapInArrow(partial(shard_tasks.learn, plan=plan), tasks.PACKED)
        for number, batch in unpacked(packed):
            name = batch.schema.names[0]
            seen.setdefault((number, name), []).append(batch[name].to_numpy())
    fields: list[list[Field]] = []
    codes: Codes = []
    for number, service in enumerate(histories.services):
        fields.append([])
        codes.append({})
        for field, name in own[service].items():
            values = histories.fields[number][name]
            arrays = seen.get((number, name), [])
            if values is None:
                edges = learn_edges(np.concatenate([np.empty(0, np.float32), *arrays]))
                fields[-1].append(Field(field.name, field.kind, edges))
                continue
            total = sum(arrays, np.zeros(1 + len(values), np.int64))
            learnt, codes[-1][name] = ranked(field, values, total)
            fields[-1].append(learnt)
    return fields, codes


def _written(ordered: DataFrame, plan: shard_tasks.Writing) -> dict[str, dict[str, Any]]:
    """Write the shards; return what their files are known by, in the order of a manifest."""
    if plan.url is not None:
        Store(plan.url, plan.patience).remove(MANIFEST)  # what it is of is written over
    task = partial(shard_tasks.write_shards, plan=plan)
    notes = [json.loads(row["note"]) for row in ordered.mapInArrow(task, "note string").collect()]
    for note in notes:
        if "missing" in note:
            raise ValueError(NOT_SHARED.format(note["missing"]))
    for number in np.flatnonzero(np.array(plan.sizes) == 0).tolist():
        notes += shard_tasks.write_empty(number, plan)
    known = {note["name"]: {key: note[key] for key in ("bytes", "sha256")} for note in notes}
    names = [
        shard_name(service, number)
        for service in plan.histories.services
        for number in range(len(plan.sizes))
    ]
    if len(notes) != len(names) or known.keys() != set(names):
        raise RuntimeError(f"{len(names)} files of shards were to be written, not {sorted(known)}")
    return {name: known[name] for name in names}


def _check(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError unless the files lie in a folder as they were written."""
    for name, of in files.items():
        file = folder / name
        if not file.is_file() or sha256(file) != of["sha256"]:
            raise ValueError(NOT_SHARED.format(file))
