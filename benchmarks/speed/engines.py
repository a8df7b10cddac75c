"""One corpus by two engines, DuckDB and Spark: how long each takes, and whether a byte differs.

    python -m benchmarks.speed engines

The log is a synthetic world's and, in a file of its own, the events of one user who has `most` of
them, as a shared account or a robot has. Spark runs here, in its local mode: its figure is what the
machinery of a cluster costs on one machine, not what a cluster would take.
"""

import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import PositiveInt

from benchmarks.speed.report import Report, Row, Spread, claim
from clue.atomic import sha256
from clue.data.corpus import Corpus
from clue.data.ingest.prepare_config import SparkConfig
from clue.prepare import prepare
from clue.pretrain import demo_recipe
from clue.synthetic.stream import write_stream
from clue.synthetic.world import SyntheticConfig

FILES = 4  # of the world's events
USER = "everyone"


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
    """Return both times, and how many files of the two corpora differ; ValueError without Spark."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="clue-engines-") as folder:
        root = Path(folder)
        world = SyntheticConfig(users=config.users, seed=config.seed, out=root / "logs")
        events = write_stream(world, world.out, FILES) + write_one_user(world.out, config)
        made: list[Path] = []
        engines: tuple[Literal["duckdb", "spark"], ...] = ("duckdb", "spark")
        for engine in engines:
            recipe = dataclasses.replace(
                demo_recipe(world, root / engine),
                name="engines",
                events=[f"{world.out}/events-*.parquet"],
                engine=engine,
                spark=SparkConfig(master=f"local[{config.threads}]", partitions=config.partitions),
            )
            began = time.perf_counter()
            made.append(prepare(recipe))
            seconds = time.perf_counter() - began
            figures = {"seconds": seconds, "M events/s": events / seconds / 1e6}
            rows.append(
                Row(
                    case=f"{events:,} events, {config.most:,} of one user",
                    arm=engine,
                    figures={name: Spread.of([value]) for name, value in figures.items()},
                )
            )
        names = sorted({file.name for folder in made for file in folder.iterdir()})
        differ = [name for name in names if sha256(made[0] / name) != sha256(made[1] / name)]
        corpus = Corpus.open(made[1])
        user = corpus.user_ids.index(USER).as_py()
        longest = sum(
            int(corpus.items_of(service).lengths[user]) for service in range(len(corpus.services))
        )
    return Report(
        rows=rows,
        claims=[
            claim("files that differ", len(differ), "at most", 0, f" of {len(names)}"),
            claim("events of the user with most", longest, "at least", config.most),
        ],
        notes=["Spark in local mode: with the start of its JVM, and no machine but this."],
    )


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
