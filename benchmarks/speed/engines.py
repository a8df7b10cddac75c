"""One corpus by two engines, DuckDB and Spark: how long each takes, and whether a byte differs.

    python -m benchmarks.speed engines

The log is a synthetic world's and, in a file of its own, the events of one user who has `most` of
them, as a shared account or a robot has. Spark runs here, in its local mode: its figure is what the
machinery of a cluster costs on one machine, not what a cluster would take. Once its driver writes
the corpus, and once its executors do, in shards.
"""

import dataclasses
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import PositiveInt

from benchmarks.speed.report import Report, Row, Spread, claim
from clue.atomic import sha256
from clue.data.cache import MANIFEST
from clue.data.corpus import Corpus
from clue.data.history_shards import cut
from clue.data.ingest.prepare_config import SparkConfig
from clue.prepare import prepare
from clue.pretrain import demo_recipe
from clue.synthetic.stream import write_stream
from clue.synthetic.world import SyntheticConfig

FILES = 4  # of the world's events
USER = "everyone"
SHARDS = 8
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Config:
    """A world of `users`, a user of `most` events, and what Spark runs on."""

    users: PositiveInt = 20_000
    most: PositiveInt = 1_000_000
    threads: PositiveInt = 2
    partitions: PositiveInt = 16
    seed: int = 0
    out: Path = Path("results/speed/engines.json")


def measure(config: Config) -> Report:
    """Return the times, and how many files of the corpora differ; ValueError without Spark."""
    rows: list[Row] = []
    spark = SparkConfig(master=f"local[{config.threads}]", partitions=config.partitions)
    executors = dataclasses.replace(spark, writers="executors")
    arms: dict[str, dict[str, Any]] = {
        "duckdb": {},
        "spark": {"engine": "spark", "spark": spark},
        "spark, executors write": {"engine": "spark", "spark": executors, "shards": SHARDS},
    }
    with tempfile.TemporaryDirectory(prefix="clue-engines-") as folder:
        root = Path(folder)
        world = SyntheticConfig(users=config.users, seed=config.seed, out=root / "logs")
        events = write_stream(world, world.out, FILES) + write_one_user(world.out, config)
        made: list[Path] = []
        for number, (arm, settings) in enumerate(arms.items()):
            recipe = dataclasses.replace(
                demo_recipe(world, root / f"corpus-{number}"),
                name="engines",
                events=[f"{world.out}/events-*.parquet"],
                **settings,
            )
            began = time.perf_counter()
            with memory_of_all() as peak:
                made.append(prepare(recipe))
            seconds = time.perf_counter() - began
            figures = {"seconds": seconds, "M events/s": events / seconds / 1e6}
            figures["peak GiB"] = peak() / GIB
            rows.append(
                Row(
                    case=f"{events:,} events, {config.most:,} of one user",
                    arm=arm,
                    figures={name: Spread.of([value]) for name, value in figures.items()},
                )
            )
        one, two, sharded = made
        differ, count = differing(one, two)
        corpus = Corpus.open(two)
        user = corpus.user_ids.index(USER).as_py()
        longest = sum(
            int(corpus.items_of(service).lengths[user]) for service in range(len(corpus.services))
        )
        same = Corpus.open(sharded).fingerprint == corpus.fingerprint
        del corpus
        cut(one, SHARDS)
        differ_too, count_too = differing(one, sharded, but=MANIFEST)  # it names the settings
    return Report(
        rows=rows,
        claims=[
            claim("files that differ", differ, "at most", 0, f" of {count}"),
            claim("files of shards that differ", differ_too, "at most", 0, f" of {count_too}"),
            claim("fingerprints that are equal, driver's and executors'", same, "at least", 1),
            claim("events of the user with most", longest, "at least", config.most),
        ],
        notes=[
            "Spark in local mode: with the start of its JVM, and no machine but this. Memory is "
            "the most that the process, the JVM and its workers had together; what they share "
            f"counts for each. {SHARDS} shards: of executors, and into which DuckDB's is cut."
        ],
    )


def differing(one: Path, two: Path, but: str = "") -> tuple[int, int]:
    """Return how many files of two folders are not equal, and of how many."""
    names = {file.name for folder in (one, two) for file in folder.iterdir()} - {but}
    whole = [name for name in names if (one / name).is_file() and (two / name).is_file()]
    same = sum(sha256(one / name) == sha256(two / name) for name in whole)
    return len(names) - same, len(names)


def write_one_user(logs: Path, config: Config) -> int:
    """Write a file of `most` events of one user, drawn from those of the others; return `most`."""
    table = pq.read_table(logs / "events-000.parquet")
    rows = np.random.default_rng(config.seed).integers(0, len(table), config.most)
    drawn = table.take(pa.array(rows))
    at = table.schema.get_field_index("user_id")
    user = pa.array([USER]).take(pa.array(np.zeros(config.most, np.int64)))
    own = drawn.set_column(at, "user_id", user.cast(pa.string()))
    pq.write_table(own.cast(table.schema), logs / "events-one.parquet", row_group_size=1 << 17)
    return config.most


@contextmanager
def memory_of_all() -> Generator[Callable[[], int]]:
    """Look five times a second at this process and its children; yield what returns their peak."""
    most, ended = [0], threading.Event()

    def look() -> None:
        this = psutil.Process()
        while not ended.wait(0.2):
            total = 0
            for process in [this, *this.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            most[0] = max(most[0], total)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: most[0]
    finally:
        ended.set()
        thread.join()
