"""Which runs fit into the time: widths, lengths and seeds, the largest width held out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from benchmarks.law.recipe import LEAST, WANTED

COUNTS = (5, 4, 3)  # fitted widths, the most that fit
SHARES = (0.125, 0.25, 0.5, 1.0)  # lengths over the longest
SHORT_SHARES = SHARES[1:]  # of the least ladder
DECAY = 0.2  # of a run's steps: what a shorter run pays for, the rest is of its trunk
WARMUP = 0.1  # of the shortest run's steps, and as many of all others
RATES = 3  # learning rates that two widths try
RATE_SHARE = 0.5  # of the longest run's steps, for those
REPEATED = 2  # the least widths, which always have a second seed: their noise is the largest
MOST_SEEDS = 4


@dataclass(frozen=True)
class Timing:
    """Seconds of a step, and those of a run beside its steps: start, measurement, checkpoint."""

    step: float
    start: float


@dataclass(frozen=True)
class Ladder:
    """Widths that are fitted, the one held out, lengths in steps ascending, seeds of each width."""

    fitted: list[int]
    held_out: int
    steps: list[int]
    seeds: list[int]
    seconds: float

    @property
    def warmup(self) -> int:
        """Steps of warm-up of all runs."""
        return max(5, round(WARMUP * self.steps[0]))

    @property
    def rate_steps(self) -> int:
        """Steps of the runs that look for the learning rate."""
        return max(self.steps[0], round(RATE_SHARE * self.steps[-1]))

    @property
    def rated(self) -> tuple[int, int]:
        """The two widths that try several rates."""
        return self.fitted[0], self.fitted[-1]

    @property
    def predicted(self) -> list[int]:
        """The lengths of the held-out runs."""
        return self.steps[-2:]

    @property
    def runs(self) -> tuple[int, int, int]:
        """How many runs look for the rate, are fitted, and are held out."""
        return 2 * RATES, sum(self.seeds) * len(self.steps), len(self.predicted)


def timing_at(times: Mapping[int, Timing], width: int) -> Timing:
    """Return the timing of a width, on a line between the logarithms of those that were timed."""
    known = sorted(times)
    step, start = (
        np.interp(np.log(width), np.log(known), np.log([getattr(times[w], name) for w in known]))
        for name in ("step", "start")
    )
    return Timing(float(np.exp(step)), float(np.exp(start)))


def seconds_of(ladder: Ladder, times: Mapping[int, Timing], jobs: int) -> tuple[float, ...]:
    """Return the wall seconds of the rates, of the fitted and of the held-out runs."""

    def family(width: int, lengths: Sequence[int]) -> float:
        one = timing_at(times, width)
        return one.step * (lengths[-1] + DECAY * sum(lengths[:-1])) + one.start * len(lengths)

    rates = sum(RATES * family(width, [ladder.rate_steps]) for width in ladder.rated)
    each = [family(width, ladder.steps) for width in ladder.fitted]
    total = sum(seeds * one for seeds, one in zip(ladder.seeds, each, strict=True))
    held = family(ladder.held_out, ladder.predicted)
    return rates / jobs, max(total / jobs, *each), held


def choose(
    times: Mapping[int, Timing],
    widths: Sequence[int],
    *,
    seconds: float,
    jobs: int,
    most_steps: int,
) -> Ladder:
    """Return the ladder of the most widths that fits into `seconds`, its runs as long as that lets.

    Runs are of at most `most_steps`; the time that this leaves goes into seeds. ValueError, with
    the time that is needed, where not even the least ladder fits.
    """
    counts = [count for count in COUNTS if count + 2 <= len(widths)]
    tried = [(count, SHARES, WANTED) for count in counts] + [(counts[-1], SHORT_SHARES, LEAST)]
    for count, shares, least in tried:
        if most_steps < least:
            continue

        of = partial(_ladder, times, widths, jobs, count, shares)
        if of(least).seconds > seconds:
            continue
        low, high = least, most_steps + 1
        while high - low > 1:  # the longest that fits
            middle = (low + high) // 2
            low, high = (middle, high) if of(middle).seconds <= seconds else (low, middle)
        fitting = [of(low, more) for more in range(1, MOST_SEEDS + 1)]
        return [ladder for ladder in fitting if ladder.seconds <= seconds][-1]
    least_ladder = _ladder(times, widths, jobs, counts[-1], SHORT_SHARES, LEAST)
    raise ValueError(
        f"{seconds / 60:.1f} minutes are left for training and the least ladder takes about "
        f"{least_ladder.seconds / 60:.1f}: {sum(least_ladder.runs)} runs of up to {LEAST} steps; "
        f"raise minutes by {np.ceil((least_ladder.seconds - seconds) / 54):.0f} or more, or give "
        "smaller widths"
    )


def _ladder(
    times: Mapping[int, Timing],
    widths: Sequence[int],
    jobs: int,
    count: int,
    shares: Sequence[float],
    longest: int,
    seeds: int = 1,
) -> Ladder:
    """Return a ladder of the first `count` widths; the one held out is the next but one."""
    each = [max(seeds, 2 if number < REPEATED else 1) for number in range(count)]
    steps = [round(share * longest) for share in shares]
    plain = Ladder(list(widths[:count]), widths[count + 1], steps, each, 0.0)
    return replace(plain, seconds=sum(seconds_of(plain, times, jobs)))
