"""Benchmark `batch`: the largest batch at a fixed limit of memory, in chunks and without.

    python -m benchmarks.speed batch [limit_mib=1536 threads=2]
    python -m benchmarks.speed batch corpus=corpora/NAME model.item.max_tokens=32

The same trainer's step twice: with the budget that it finds itself, and keeping all activations.
Each try is a process whose private memory may grow by `limit_mib`; the batch doubles until it does
not fit, then the gap is halved to a tenth. For CPUs: on CUDA the largest batch is that of `step`.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.external import machine
from benchmarks.speed.command import finish, read
from benchmarks.speed.interleave import Arm, ArmFailed, Comparison, run
from benchmarks.speed.report import Claim, Report
from benchmarks.speed.step import refuse_short
from benchmarks.speed.zipf_corpus import WorldConfig, open_world
from clue.data.corpus import read_manifest
from clue.nn.dual_encoder import DualEncoderConfig
from clue.nn.item_encoder import ItemEncoderConfig
from clue.nn.user_encoder import UserEncoderConfig

SMALL = 16  # pairs of the gate
SPARE = 0.9  # of the largest batch is timed: at the limit itself a step fits by chance
OURS, WHOLE = "ours, in chunks", "without chunks"
KILLED = ("status -6", "status -9", "status -11", "memory", "bad_alloc")


def small_model() -> DualEncoderConfig:
    """Return a model whose largest batches still take seconds: the search tries a dozen."""
    return DualEncoderConfig(
        item=ItemEncoderConfig(width=64, max_tokens=64), user=UserEncoderConfig(width=64)
    )


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """`corpus` replaces the synthetic world; the search starts at `first` pairs."""

    limit_mib: int = 256
    first: int = 32
    most: int = 16_384
    corpus: Path | None = None
    world: WorldConfig = field(default_factory=lambda: WorldConfig(users=16_384, items=8))
    worlds: Path = Path("data/speed")
    model: DualEncoderConfig = field(default_factory=small_model)
    rounds: int = 3
    repeats: int = 1
    threads: int = 2
    out: Path = Path("results/speed/batch.json")

    def __post_init__(self) -> None:
        """Refuse a world smaller than the search."""
        if self.corpus is not None:
            return
        if self.most > self.world.users:
            raise ValueError(f"most {self.most} is above world.users {self.world.users}")
        refuse_short(self.model, self.world)


def main(argv: list[str]) -> None:
    """Runs the command line."""
    finish(measure(read(BatchConfig, argv, __doc__)), argv)


def measure(config: BatchConfig) -> tuple[Report, Path]:
    """Return the report and where it belongs."""
    facts = machine.describe("cpu", config.threads)
    if config.corpus is None:
        open_world(config.world, config.worlds)
    else:
        vocabulary = read_manifest(config.corpus).vocab_size
        config = replace(config, world=replace(config.world, vocabulary=vocabulary))
    most = {name: largest(lambda b, n=name: fits(config, n, b), config) for name in (WHOLE, OURS)}
    comparison = Comparison(config.rounds, figures)
    timed = {name: round(SPARE * batch) for name, batch in most.items()}
    at = f"at {timed[WHOLE]:,} of at most {most[WHOLE]:,} without chunks"
    both = [arm(config, name, timed[WHOLE]) for name in (WHOLE, OURS)]
    comparison.run(at, both, [{"batch": SMALL}])
    full = f"at {timed[OURS]:,} of at most {most[OURS]:,} in chunks"
    comparison.run(full, [arm(config, OURS, timed[OURS])], equal=False)
    report = Report(
        name="batch",
        command="python -m benchmarks.speed batch",
        machine=machine.finished(facts, comparison.results),
        config=asdict(config)
        | {key: str(getattr(config, key)) for key in ("out", "worlds", "corpus")},
        rows=tuple(comparison.rows),
        claims=tuple(claims(comparison, most, at, full)),
        notes=(f"The limit is {config.limit_mib:,} MiB above the process before its first step.",),
    )
    return report, config.out


def largest(fits: Callable[[int], bool], config: BatchConfig) -> int:
    """Return the largest batch that fits, to a tenth: doubled from `first`, then halved between.

    Raises ValueError where `first` does not fit. `most` is the answer where all fits.
    """
    low, high = 0, config.first
    while high <= config.most and fits(high):
        low, high = high, 2 * high
    if low == 0:
        raise ValueError(f"first={config.first} pairs do not fit; raise limit_mib or lower first")
    if high > config.most:
        return low
    while high - low > max(1, low // 10):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def fits(config: BatchConfig, name: str, batch: int) -> bool:
    """Return whether two steps at `batch` stay below the limit; what else fails is raised."""
    try:
        found = bool(run(arm(config, name, batch), {})["fits"])
    except ArmFailed as error:  # an allocation that fails inside a thread ends the process
        if not any(word in str(error) for word in KILLED):
            raise
        found = False
    sys.stderr.write(f"{name}, {batch:,} pairs: {'fits' if found else 'does not fit'}\n")
    return found


def arm(config: BatchConfig, name: str, batch: int) -> Arm:
    """Return the trainer's step at `batch`, with or without chunks."""
    spec: dict[str, Any] = {
        "batch": batch,
        "corpus": None if config.corpus is None else str(config.corpus),
        "world": asdict(config.world),
        "worlds": str(config.worlds),
        "model": asdict(config.model),
        "chunked": name == OURS,
        "limit_mib": config.limit_mib,
        "repeats": config.repeats,
        "threads": config.threads,
        "device": "cpu",
    }
    return Arm(name=name, module="benchmarks.speed.batch_arm", spec=spec)


def figures(result: Mapping[str, Any]) -> dict[str, float]:
    """Return what a row shows of one round."""
    return {
        "pairs/s": result["pairs"] / result["seconds"],
        "peak MiB": result["peak_mib"],
        "warm-up s": result["warmup_seconds"],
    }


def claims(comparison: Comparison, most: Mapping[str, int], at: str, full: str) -> list[Claim]:
    """Return the two aims: the batch, and the throughput at it."""
    before = comparison.median(at, WHOLE, "pairs/s")
    after = comparison.median(full, OURS, "pairs/s")
    lost = 1 - after / before if after is not None and before is not None else None
    larger = most[OURS] / most[WHOLE]
    return [
        Claim(
            what="Largest batch, in chunks / without",
            aim="at least 8",
            found=larger,
            holds=larger >= 8,
        ),
        Claim(
            what="Share of the throughput lost at the largest batch",
            aim="at most 0.35",
            found=lost,
            holds=None if lost is None else lost <= 0.35,
        ),
    ]
