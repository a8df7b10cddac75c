"""What one task of Spark does, without Spark: reads a part of a log, converts times, packs events.

Rows are read and judged by the very SQL of the other engine, in a DuckDB of the task's own.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clue.data.cache import CacheConfig
from clue.data.ingest.fields import column_name
from clue.data.ingest.files import LogFile, find_files
from clue.data.ingest.parts import Part
from clue.data.ingest.staging import Layout, create_tables, stage_events, stage_items
from clue.data.ingest.times import Settled, Unit, convert, groups_sql
from clue.data.ingest.validation import Log
from clue.data.ingest.writer import BATCH, connect

NAN = 0x7FC00000  # the bits of the float32 that stands for a missing number
USERS = -1  # the kind of a packed batch of users; of events it is the number of their service
KINDS = pa.schema([("kind", pa.int32()), ("payload", pa.binary())])
PACKED = "kind int, payload binary"


@dataclass(frozen=True)
class Reading:
    """How the parts of a log are read; `with_text` renders the items' texts from an event log."""

    table: str
    layout: Layout
    with_text: bool
    unit: Unit | None
    memory_limit: str  # of the DuckDB of each task
    cache: CacheConfig
    work: Path | None = None  # where it spills; none: the TMPDIR of the machine


def columns(table: str, layout: Layout) -> dict[str, str]:
    """Return the columns of staged rows with Spark's types; numbers of fields are float32's bits.

    As bits, for what a NaN's are is not Spark's to change.
    """
    names = {"seq": "long", "service": "string", "item_id": "string", "text": "string"}
    names |= {"reason": "string", "value": "string"}
    if table == "items":
        return names
    names |= {"user_id": "string", "seconds": "double", "is_number": "boolean", "part": "string"}
    kinds = enumerate(each.kind for each in layout.fields)
    return names | {column_name(n): "int" if k == "numeric" else "string" for n, k in kinds}


def read_parts(
    batches: Iterable[pa.RecordBatch], *, parts: Sequence[Part], reading: Reading
) -> Iterator[pa.RecordBatch]:
    """Yield the staged rows of the parts whose numbers arrive, and a note on each (`note_of`)."""
    for batch in batches:
        for number in batch["id"].to_pylist():
            yield from _read_part(parts[number], reading)


def note_of(part: Part, **said: Any) -> dict[str, Any]:
    """Return what a part tells beside its rows: `rejected` rows, `times` counted, or an `error`."""
    return {"file": part.number, "error": "", "rejected": [], "times": []} | said


def _read_part(part: Part, reading: Reading) -> Iterator[pa.RecordBatch]:
    names = columns(reading.table, reading.layout)
    with (
        TemporaryDirectory(dir=reading.work) as folder,
        closing(connect(Path(folder) / "work", reading.memory_limit)) as db,
    ):
        db.execute("SET threads = 1")  # Spark gives a task one core
        create_tables(db, reading.layout)
        local = replace(part, file=_local(part.file, reading.cache))
        log = Log(reading.table, [local.file], [[]])
        note = note_of(part)
        try:
            if reading.table == "items":
                stage_items(db, log, local, reading.layout)
            else:
                stage_events(db, log, local, reading.layout, with_text=reading.with_text)
                note["times"] = db.execute(groups_sql(reading.unit)).fetchall()
            note["rejected"] = log.rejected[part.number]
        except ValueError as error:  # Spark would try again, and bury it under its own
            note["error"] = str(error)
        for batch in db.sql(f"SELECT {', '.join(names)} FROM {reading.table}").to_arrow_reader(
            BATCH
        ):
            yield _as_bits(batch)
    line = dict.fromkeys(names) | {"value": json.dumps(note)}
    arrays = [pa.array([line[name]], _arrow(kind)) for name, kind in names.items()]
    yield pa.RecordBatch.from_arrays(arrays, names=list(names))


def _local(file: LogFile, cache: CacheConfig) -> LogFile:
    """Return a file as this machine has it: what lies in a store is copied into its own cache."""
    if file.url is None or file.path.is_file():
        return file
    (copied,) = find_files([file.url], "the log", file.delimiter, cache)
    return replace(copied, row_groups=file.row_groups)


def _arrow(kind: str) -> pa.DataType:
    kinds = {"long": pa.int64(), "double": pa.float64(), "boolean": pa.bool_(), "int": pa.int32()}
    return kinds.get(kind, pa.string())


def _as_bits(batch: pa.RecordBatch) -> pa.RecordBatch:
    arrays = [
        array.view(pa.int32()) if pa.types.is_float32(array.type) else array
        for array in batch.columns
    ]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def convert_times(
    batches: Iterable[pa.RecordBatch], *, settled: Settled
) -> Iterator[pa.RecordBatch]:
    """Yield staged events with their times in seconds, those of another unit marked as bad."""
    with closing(duckdb.connect()) as db:
        db.execute(
            "SET threads = 1; SET TimeZone = 'UTC'; SET autoinstall_known_extensions = false"
        )
        for batch in batches:
            db.register("batch", pa.Table.from_batches([batch]))
            db.execute("CREATE OR REPLACE TABLE events AS FROM batch")
            convert(db, settled)
            yield from db.sql("FROM events").to_arrow_reader(BATCH)


@dataclass(frozen=True)
class Histories:
    """How sorted events become packed batches.

    `shifts` (S,) is added to the item numbers of each of the S `services`; `fields` are the columns
    that are fields of each service, with the sorted values of the categorical and boolean ones.
    """

    services: Sequence[str]
    shifts: Sequence[int]
    fields: Sequence[Mapping[str, pa.Array | None]]


def pack_histories(
    batches: Iterable[pa.RecordBatch], *, plan: Histories
) -> Iterator[pa.RecordBatch]:
    """Yield, of each batch of sorted events, its users and then its events by service, packed.

    Users (user_id, part, events) stand in the batch's order; an event's `user` is its user's number
    among them. A user may go on in the next batch, and in the next partition.
    """
    for batch in batches:
        if not len(batch):
            continue
        users = batch["user_id"]
        is_new = is_first(users)
        firsts = np.flatnonzero(is_new)
        own = {"user_id": users.take(pa.array(firsts))}
        own["part"] = batch["part"].take(pa.array(firsts))
        own["events"] = pa.array(np.diff(firsts, append=len(batch)))
        yield packed(USERS, pa.RecordBatch.from_pydict(own))
        user = (np.cumsum(is_new) - 1).astype(np.int32)
        for number, events in events_by_service(batch, user, plan):
            yield packed(number, events)


def is_first(users: pa.Array) -> np.ndarray:
    """Return whether each of the sorted users (n,) is another than the one before."""
    changed = pc.call_function("not_equal", [users.slice(1), users.slice(0, len(users) - 1)])
    return np.concatenate([[True], changed.to_numpy(zero_copy_only=False)])


def events_by_service(
    batch: pa.RecordBatch, user: np.ndarray, plan: Histories
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield of each service that occurs its number and its events, with their `user` (n,)."""
    service = _index_in(batch["service"], pa.array(plan.services)).to_numpy()
    for number in np.unique(service).tolist():
        rows = np.flatnonzero(service == number)
        yield number, _events(batch.take(pa.array(rows)), user[rows], number, plan)


def _events(batch: pa.RecordBatch, user: np.ndarray, number: int, plan: Histories) -> Any:
    item = batch["item"].to_numpy() + plan.shifts[number]
    arrays: dict[str, Any] = {"user": user, "item": item.astype(np.int32)}
    arrays["seconds"] = batch["seconds"]
    for name, values in plan.fields[number].items():
        if values is None:
            arrays[name] = batch[name].fill_null(NAN).view(pa.float32())
        else:
            row = _index_in(batch[name], values).fill_null(-1)
            arrays[name] = row.to_numpy() + np.int32(1)
    return pa.RecordBatch.from_pydict(arrays)


def _index_in(array: pa.Array, values: pa.Array) -> pa.Array:
    return pc.call_function("index_in", [array], pc.SetLookupOptions(value_set=values))


def pack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches packed as they are."""
    for batch in batches:
        if len(batch):
            yield packed(0, batch)


def packed(kind: int, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch as one row of Spark, of a kind."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    row = [pa.array([kind], pa.int32()), pa.array([sink.getvalue().to_pybytes()], pa.binary())]
    return pa.RecordBatch.from_arrays(row, schema=KINDS)


def unpack(payload: bytes) -> pa.RecordBatch:
    """Return the batch that was packed."""
    with pa.ipc.open_stream(payload) as stream:
        return stream.read_next_batch()
