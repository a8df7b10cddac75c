"""What is claimed of our encoder, and whether it holds: paired differences, corrected by Holm.

A claim is "ours beats this rival" over all tasks that have it; with m tasks, m chances to be lucky.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.metrics.bootstrap import Interval, summary
from benchmarks.suite.summary import CONTROL, OURS, Row, TaskTable

# Of several rows that match, each task takes its best.
FAMILIES = {"aggregates": "*aggregates*", "TF-IDF": "TF-IDF*"}


@dataclass(frozen=True)
class Difference:
    """Ours minus a rival on the same users, both means over their seeds.

    `gap` is of the measure as it is; `gain` is positive where ours is better, `relative` to the
    rival's value, `in_deviations` to the standard deviation of our seeds. `p` is two-sided by the
    bootstrap, `holm` corrected over the tasks of a claim; NaN where the queries are not at hand.
    """

    task: str
    rival: str
    gap: Interval
    gain: float
    relative: float
    in_deviations: float
    p: float
    holm: float


def difference(table: TaskTable, ours: Row, rival: Row) -> Difference:
    """Return ours minus the rival; `holm` is not corrected yet."""
    value = ours.value - rival.value
    gap, p = Interval(value, float("nan"), float("nan")), float("nan")
    if ours.draws is not None and rival.draws is not None:
        gaps = ours.draws - rival.draws
        gap, p = summary(np.array([value]), gaps[None])[0], two_sided(gaps)
    gain, base, spread = table.sign * value, abs(rival.value), ours.deviation
    return Difference(
        *(table.name, rival.model, gap, gain),
        relative=gain / base if base else float("nan"),
        in_deviations=gain / spread if spread else float("nan"),
        p=p,
        holm=p,
    )


def two_sided(gaps: np.ndarray) -> float:
    """Return twice the smaller share of resamples (R,) on one side of 0, from 1 / R to 1."""
    known = gaps[np.isfinite(gaps)]
    if not len(known):
        return float("nan")
    across = 2 * min((known <= 0).mean(), (known >= 0).mean())
    return float(min(max(across, 1 / len(known)), 1))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979); NaN are left out and stay."""
    values = np.array(p, float)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    values[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    return values.tolist()


def claim(
    found: Sequence[TaskTable], choose: Callable[[TaskTable], Row | None]
) -> list[Difference]:
    """Return ours minus the rival that is chosen on each task, corrected over these tasks."""
    each = [
        difference(table, table.rows[OURS], rival)
        for table in found
        if OURS in table.rows and (rival := choose(table)) is not None
    ]
    corrected = holm([one.p for one in each])
    return [replace(one, holm=p) for one, p in zip(each, corrected, strict=True)]


def claims(found: Sequence[TaskTable]) -> dict[str, list[Difference]]:
    """Return the claims "beats …" that some task can decide."""
    made = {
        "untrained": claim(found, lambda table: table.rows.get(CONTROL)),
        "the best baseline": claim(found, lambda table: table.best_baseline),
    }
    for name, pattern in FAMILIES.items():
        made[name] = claim(found, lambda table, pattern=pattern: table.best(pattern))
    return {f"beats {name}": each for name, each in made.items() if each}
