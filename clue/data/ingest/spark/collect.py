"""From the executors to the driver: packed batches, one partition after the other."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from clue.data.ingest.spark import tasks

# users (user_id, part, events), of whom one may stand in several batches
COUNTED = (
    "(SELECT user_id, any_value(part) AS part, sum(events)::BIGINT AS events "
    "FROM counted GROUP BY user_id)"
)
TABLE = "CREATE OR REPLACE TEMP TABLE counted (user_id VARCHAR, part VARCHAR, events BIGINT)"


def collect_catalogue(db: duckdb.DuckDBPyConnection, catalogue: DataFrame) -> None:
    """Fill table `catalogue`."""
    db.execute(
        "CREATE OR REPLACE TEMP TABLE catalogue (service VARCHAR, item_id VARCHAR, text VARCHAR)"
    )
    for batch in batches_of(catalogue.select("service", "item_id", "text")):
        db.register("batch", pa.Table.from_batches([batch]))
        db.execute("INSERT INTO catalogue FROM batch")


def collect_users(db: duckdb.DuckDBPyConnection, events: DataFrame) -> None:
    """Fill table `counted` with the users of the events."""
    db.execute(TABLE)
    users = events.groupBy("user_id").agg(F.min("part").alias("part"), F.count("*").alias("events"))
    for batch in batches_of(users):
        db.register("batch", pa.Table.from_batches([batch]))
        db.execute("INSERT INTO counted FROM batch")


def collect_events(
    db: duckdb.DuckDBPyConnection,
    packed: DataFrame,
    spools: Sequence[Path],
    seen: Callable[[int], object],
) -> None:
    """Fill table `counted` with the users, and a file for each service with its numbered events.

    Raises RuntimeError where Spark's order of users is none of their bytes.
    """
    db.execute(TABLE)
    streams: dict[int, pa.RecordBatchStreamWriter] = {}
    last, number, base = "", -1, 0
    for kind, batch in unpacked(packed):
        if kind == tasks.USERS:
            first = batch["user_id"][0].as_py()
            if number >= 0 and first < last:
                raise RuntimeError(f"user {last!r} came before {first!r}; is a collation set?")
            base = number if number >= 0 and first == last else number + 1
            last, number = batch["user_id"][-1].as_py(), base + len(batch) - 1
            db.register("batch", pa.Table.from_batches([batch]))
            db.execute("INSERT INTO counted FROM batch")
            continue
        if kind not in streams:
            streams[kind] = pa.ipc.new_stream(str(spools[kind]), batch.schema)
        user = pa.array(batch["user"].to_numpy() + np.int32(base))
        streams[kind].write_batch(batch.set_column(0, "user", user))
        seen(len(batch))
    for stream in streams.values():
        stream.close()


def spooled(file: Path) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a file that `collect_events` wrote."""
    with pa.ipc.open_stream(str(file)) as stream:
        yield from stream


def batches_of(frame: DataFrame) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a frame, a partition at a time."""
    for _, batch in unpacked(frame.mapInArrow(tasks.pack, tasks.PACKED)):
        yield batch


def unpacked(rows: DataFrame) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the packed batches and their kind, a partition at a time."""
    for row in rows.toLocalIterator(prefetchPartitions=True):
        yield row["kind"], tasks.unpack(row["payload"])
