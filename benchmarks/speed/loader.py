"""Benchmark `loader`: views drawn and packed a second, against pytorch-lifestream 0.6.0.

    python -m benchmarks.speed loader [batches=[256,2048] rounds=3]

Both draw two views of at most `max_events` events of each history, on one thread, from 20,000
histories of about 31 events in memory. Ours also finds the distinct items of the batch and packs
their text tokens; theirs pads item ids and times. A row with two workers of theirs stands beside.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.external import machine
from benchmarks.external.environments import LIFESTREAM
from benchmarks.speed.command import finish, read
from benchmarks.speed.interleave import Arm, Comparison
from benchmarks.speed.report import Claim, Report
from benchmarks.speed.zipf_corpus import SERVICES, WorldConfig, open_world
from clue.data.ragged import Ragged

OURS, THEIRS = "ours", "pytorch-lifestream"


def _world() -> WorldConfig:
    return WorldConfig(users=10_000, items=60, least_items=2)


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """Batches of histories; `steps` batches are timed in each round, `workers` of theirs tried."""

    batches: tuple[int, ...] = (256, 2048)
    world: WorldConfig = field(default_factory=_world)
    worlds: Path = Path("data/speed")
    max_events: int = 16
    steps: int = 20
    rivals: tuple[str, ...] = (THEIRS,)
    workers: tuple[int, ...] = (0, 2)
    rounds: int = 3
    out: Path = Path("results/speed/loader.json")

    def __post_init__(self) -> None:
        """Refuse a batch that is no part of an epoch, and rivals that there are not."""
        if max(self.batches) > self.world.users:
            raise ValueError(f"batches {self.batches} need as many users; set world.users")
        if set(self.rivals) - {THEIRS}:
            raise ValueError(f"rivals is {self.rivals}; there is {THEIRS}")


def main(argv: list[str]) -> None:
    """Runs the command line."""
    finish(measure(read(LoaderConfig, argv, __doc__)), argv)


def measure(config: LoaderConfig) -> tuple[Report, Path]:
    """Return the report and where it belongs."""
    facts = machine.describe("cpu", 1)
    log = config.worlds / "loader.npz"
    export(config, log)
    comparison = Comparison(config.rounds, figures)
    for batch in config.batches:
        comparison.run(f"batch {batch:,}", arms(config, batch, log), equal=False)
    report = Report(
        name="loader",
        command="python -m benchmarks.speed loader",
        machine=machine.finished(facts, comparison.results),
        config=asdict(config) | {"out": str(config.out), "worlds": str(config.worlds)},
        rows=tuple(comparison.rows),
        claims=tuple(claims(comparison, config)),
        notes=(
            "Ours also finds the distinct items and packs their text tokens; theirs pads item ids "
            "and times. Two workers of theirs use two more processes.",
        ),
    )
    return report, config.out


def export(config: LoaderConfig, file: Path) -> None:
    """Writes all histories of both services of the world as flat arrays for the rival."""
    corpus = open_world(config.world, config.worlds)
    services = range(len(SERVICES))
    items = Ragged.concat([corpus.items_of(service) for service in services])
    times = Ragged.concat([corpus.timestamps_of(service) for service in services])
    np.savez(
        file, item=items.values.astype(np.int64), event_time=times.values, offsets=items.offsets
    )


def arms(config: LoaderConfig, batch: int, log: Path) -> list[Arm]:
    """Return ours and theirs, without workers and with."""
    spec: dict[str, Any] = {
        "batch": batch,
        "world": asdict(config.world),
        "worlds": str(config.worlds),
        "log": str(log),
        "max_events": config.max_events,
        "steps": config.steps,
        "threads": 1,
        "device": "cpu",
    }
    module = "benchmarks.speed.loader_arm"
    found = [Arm(name=OURS, module=module, spec=spec | {"impl": OURS})]
    for workers in config.workers if THEIRS in config.rivals else ():
        name = f"{THEIRS}, {workers} workers" if workers else THEIRS
        full = spec | {"impl": THEIRS, "workers": workers}
        found.append(Arm(name=name, module=module, spec=full, rival=LIFESTREAM))
    return found


def figures(result: Mapping[str, Any]) -> dict[str, float]:
    """Return what a row shows of one round."""
    return {
        "views/s": result["views"] / result["seconds"],
        "events a view": result["events"] / result["views"],
        "warm-up s": result["warmup_seconds"],
    }


def claims(comparison: Comparison, config: LoaderConfig) -> list[Claim]:
    """Return the aim at each batch size, against one process of theirs."""
    found: list[Claim] = []
    for batch in config.batches:
        case = f"batch {batch:,}"
        ours, theirs = (comparison.median(case, arm, "views/s") for arm in (OURS, THEIRS))
        faster = ours / theirs if ours is not None and theirs is not None else None
        found.append(
            Claim(
                what=f"Views/s a core at {case}, ours / {THEIRS}",
                aim="at least 30",
                found=faster,
                holds=None if faster is None else faster >= 30,
            )
        )
    return found
