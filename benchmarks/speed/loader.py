"""Benchmark `loader`: views drawn and packed a second, against pytorch-lifestream 0.6.0.

    python -m benchmarks.speed loader [batches=[256,2048] rounds=3]

Both draw two views of at most `max_events` events of each history, on one thread, from 20,000
histories of about 31 events in memory. Ours also finds the distinct items of the batch and packs
their text tokens; theirs pads item ids and times. A row with two workers of theirs stands beside.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.external.environments import LIFESTREAM
from benchmarks.speed.interleave import Arm, Comparison
from benchmarks.speed.measure import run_arm
from benchmarks.speed.report import Claim, Report, claim, plain
from benchmarks.speed.zipf_corpus import SERVICES, WorldConfig, open_world
from clue.data.ragged import Ragged

OURS, THEIRS = "ours", "pytorch-lifestream"
Views = Iterator[tuple[int, int]]  # of each batch: its views, their events
NOTE = (
    "Ours also finds the distinct items and packs their text tokens; theirs pads item ids "
    "and times. Two workers of theirs use two more processes."
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Batches of histories; `steps` batches are timed in each round, `workers` of theirs tried."""

    batches: tuple[int, ...] = (256, 2048)
    world: WorldConfig = field(
        default_factory=lambda: WorldConfig(users=10_000, items=60, least_items=2)
    )
    worlds: Path = Path("data/speed")
    max_events: int = 16
    steps: int = 20
    rivals: tuple[Literal["pytorch-lifestream"], ...] = (THEIRS,)
    workers: tuple[int, ...] = (0, 2)
    rounds: int = 3
    out: Path = Path("results/speed/loader.json")

    def __post_init__(self) -> None:
        """Refuse a batch that is no part of an epoch."""
        if max(self.batches) > self.world.users:
            raise ValueError(f"batches {self.batches} need as many users; set world.users")


def measure(config: Config) -> Report:
    """Return the rows of every batch size, beside the aim against one process of theirs."""
    log = export(config)
    comparison = Comparison(config.rounds)
    claims: list[Claim] = []
    for batch in config.batches:
        case = f"batch {batch:,}"
        comparison.run(case, arms(config, batch, log), equal=False)
        faster = comparison.ratio(case, "views/s", OURS, THEIRS)
        claims.append(claim(f"Views/s a core at {case}, ours / {THEIRS}", faster, "at least", 30))
    return comparison.report(claims, [NOTE])


def export(config: Config) -> Path:
    """Write all histories of both services of the world as flat arrays for the rival."""
    corpus, file = open_world(config.world, config.worlds), config.worlds / "loader.npz"
    items, times = (
        Ragged.concat([column(service) for service in range(len(SERVICES))])
        for column in (corpus.items_of, corpus.timestamps_of)
    )
    item = items.values.astype(np.int64)
    np.savez(file, item=item, event_time=times.values, offsets=items.offsets)
    return file


def arms(config: Config, batch: int, log: Path) -> list[Arm]:
    """Return ours and theirs, without workers and with."""
    module, spec = "benchmarks.speed.loader", plain(config)
    spec |= {"batch": batch, "log": str(log), "threads": 1, "device": "cpu"}
    made = [Arm(OURS, module, spec | {"impl": OURS})]
    for workers in config.workers if THEIRS in config.rivals else ():
        name = f"{THEIRS}, {workers} workers" if workers else THEIRS
        made.append(Arm(name, module, spec | {"impl": THEIRS, "workers": workers}, LIFESTREAM))
    return made


def measure_arm(spec: dict[str, Any]) -> dict[str, Any]:
    """Return views a second over `spec["steps"]` batches; the first batch counts as warm-up.

    The clock also covers the start of an epoch, which a loader that shuffles has to pay.
    """
    began = time.perf_counter()
    batches = (ours if spec["impl"] == OURS else lifestream)(spec)
    next(batches)
    warm = time.perf_counter()
    counted = list(itertools.islice(batches, spec["steps"]))
    seconds = time.perf_counter() - warm
    views, events = (sum(column) for column in zip(*counted, strict=True))
    figures = {"views/s": views / seconds, "events a view": events / views}
    return {
        "figures": {**figures, "warm-up s": warm - began},
        "views": views,
        "events": events,
    }


def ours(spec: dict[str, Any]) -> Views:
    """Yield the batches of the trainer's sampler, with distinct items and tokens packed."""
    from clue.data.batches import PairSampler
    from clue.data.views import ViewsConfig
    from clue.train.packing import Budget, pack

    corpus = open_world(WorldConfig(**spec["world"]), Path(spec["worlds"]))
    limit = spec["max_events"]
    views = ViewsConfig(cross_service=0.0, past_future=0.5, slices=0.5, max_events=limit)
    sampler = PairSampler(corpus, views, batch=spec["batch"], seed=0)
    for step in itertools.count():
        packed, _ = pack(sampler.at(step), Budget(4096))
        yield len(packed.rows), sum(len(chunk.values) for chunk in packed.histories)


def lifestream(spec: dict[str, Any]) -> Views:
    """Yield those of pytorch-lifestream, as it documents CoLES: two random slices of each history.

    Items and times of the same histories, in memory, its own collation into padded tensors.
    """
    from ptls.data_load.datasets import MemoryMapDataset  # pyright: ignore
    from ptls.frames import PtlsDataModule  # pyright: ignore
    from ptls.frames.coles import ColesDataset  # pyright: ignore
    from ptls.frames.coles.split_strategy import SampleSlices  # pyright: ignore

    log = np.load(spec["log"])
    columns = {name: torch.from_numpy(log[name]) for name in ("event_time", "item")}
    cuts = log["offsets"].tolist()
    histories = [
        {name: column[start:stop] for name, column in columns.items()}
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True)
    ]
    splitter = SampleSlices(split_count=2, cnt_min=1, cnt_max=spec["max_events"])
    module = PtlsDataModule(
        train_data=ColesDataset(MemoryMapDataset(histories), splitter),
        train_batch_size=spec["batch"],
        train_num_workers=spec["workers"],
        train_drop_last=True,
    )
    while True:
        for padded, _ in module.train_dataloader():
            yield len(padded.seq_lens), int(padded.seq_lens.sum())


if __name__ == "__main__":
    run_arm(measure_arm)
