"""Benchmark `batch`: the largest batch at a fixed limit of memory, in chunks and without.

    python -m benchmarks.speed batch [limit_mib=1536 threads=2]
    python -m benchmarks.speed batch corpus=corpora/NAME model.item.max_tokens=32

The same trainer's step twice: with the budget that it finds itself, and keeping all activations.
Each try is a process whose private memory may grow by `limit_mib`; the batch doubles until it does
not fit, then the gap is halved to a tenth. For CPUs: on CUDA the largest batch is that of `step`.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.speed.interleave import Arm, ArmFailed, Comparison, run
from benchmarks.speed.report import Report, claim, plain
from benchmarks.speed.step import reading
from benchmarks.speed.zipf_corpus import WorldConfig, open_world
from clue.data.corpus import read_manifest
from clue.nn.dual_encoder import DualEncoderConfig
from clue.nn.item_encoder import ItemEncoderConfig
from clue.nn.user_encoder import UserEncoderConfig

SMALL = 16  # pairs of the gate
SPARE = 0.9  # of the largest batch is timed: at the limit itself a step fits by chance
OURS, WHOLE = "ours, in chunks", "without chunks"
# How a process ends that got no memory: by torch's words, oneDNN's, a thread's, or a signal.
SPENT = (
    *("memory", "could not create a primitive", "bad_alloc"),
    *("status -6", "status -9", "status -11"),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`corpus` replaces the synthetic world; the search starts at `first` pairs.

    The model is small, so that its largest batches take seconds: the search tries a dozen.
    """

    limit_mib: int = 256
    first: int = 32
    most: int = 16_384
    corpus: Path | None = None
    world: WorldConfig = field(default_factory=lambda: WorldConfig(users=16_384, items=8))
    worlds: Path = Path("data/speed")
    model: DualEncoderConfig = field(
        default_factory=lambda: DualEncoderConfig(
            item=ItemEncoderConfig(width=64), user=UserEncoderConfig(width=64)
        )
    )
    rounds: int = 3
    repeats: int = 1
    threads: int = 2
    out: Path = Path("results/speed/batch.json")

    def __post_init__(self) -> None:
        """Refuse a world smaller than the search."""
        if self.corpus is None and self.most > self.world.users:
            raise ValueError(f"most {self.most} is above world.users {self.world.users}")


def measure(config: Config) -> Report:
    """Return the rows at both largest batches, beside the aims: the batch, the throughput there."""
    if config.corpus is None:
        open_world(config.world, config.worlds)
        config = replace(config, model=reading(config.model, config.world))
    else:
        vocabulary = read_manifest(config.corpus).vocab_size
        config = replace(config, world=replace(config.world, vocabulary=vocabulary))
    most = {name: largest(lambda b, n=name: fits(config, n, b), config) for name in (WHOLE, OURS)}
    timed = {name: round(SPARE * batch) for name, batch in most.items()}
    comparison = Comparison(config.rounds)
    whole = f"at {timed[WHOLE]:,} of at most {most[WHOLE]:,} without chunks"
    both = [arm(config, name, timed[WHOLE]) for name in (WHOLE, OURS)]
    comparison.run(whole, both, [{"batch": SMALL}])
    chunked = f"at {timed[OURS]:,} of at most {most[OURS]:,} in chunks"
    comparison.run(chunked, [arm(config, OURS, timed[OURS])], equal=False)
    before = comparison.median(whole, WHOLE, "pairs/s")
    after = comparison.median(chunked, OURS, "pairs/s")
    lost = None if before is None or after is None else 1 - after / before
    claims = [
        claim("Largest batch, in chunks / without", most[OURS] / most[WHOLE], "at least", 8),
        claim("Share of the throughput lost at the largest batch", lost, "at most", 0.35),
    ]
    note = f"The limit is {config.limit_mib:,} MiB above the process before its first step."
    changed = {"world": plain(config.world), "model": plain(config.model)}
    return replace(comparison.report(claims, [note]), config=changed)


def largest(fits: Callable[[int], bool], config: Config) -> int:
    """Return the largest batch that fits, to a tenth: doubled from `first`, then halved between.

    Raise ValueError where `first` does not fit. `most` is the answer where all fits.
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


def fits(config: Config, name: str, batch: int) -> bool:
    """Return whether two steps at `batch` stay below the limit; raise what else fails."""
    try:
        run(arm(config, name, batch), {})
        enough = True
    except ArmFailed as error:
        if not any(word in str(error).lower() for word in SPENT):
            raise
        enough = False
    sys.stderr.write(f"{name}, {batch:,} pairs: {'fits' if enough else 'does not fit'}\n")
    return enough


def arm(config: Config, name: str, batch: int) -> Arm:
    """Return the trainer's step at `batch`, with or without chunks."""
    more = {"impl": "trainer", "batch": batch, "chunked": name == OURS, "device": "cpu"}
    return Arm(name, "benchmarks.speed.step_arm", plain(config) | more)
