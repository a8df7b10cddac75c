"""What is claimed of our encoder, and whether it holds: paired differences, corrected by Holm.

A claim is "ours beats this baseline" over all tasks that have it; m tasks are m chances to be
lucky.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.metrics.bootstrap import Interval, summary
from benchmarks.suite.summary import CONTROL, OURS, Row, TaskTable

# Of several rows that match, each task takes its best.
FAMILIES = {"aggregates": "*aggregates*", "TF-IDF": "TF-IDF*"}


@dataclass(frozen=True)
class PairedDifference:
    """Ours minus a baseline on the same users, both means over their seeds.

    `delta` is of the measure as it is; `gain` is positive where ours is better, `relative` to the
    baseline's value, `in_deviations` to the standard deviation of our seeds. `p` is two-sided by
    the bootstrap, `holm` corrected over the tasks of a claim; NaN where queries are missing.
    """

    task: str
    baseline: str
    delta: Interval
    gain: float
    relative: float
    in_deviations: float
    p: float
    holm: float


def paired_difference(table: TaskTable, ours: Row, baseline: Row) -> PairedDifference:
    """Return ours minus the baseline; `holm` is not corrected yet."""
    value = ours.value - baseline.value
    delta, p = Interval(value, float("nan"), float("nan")), float("nan")
    if ours.draws is not None and baseline.draws is not None:
        deltas = ours.draws - baseline.draws
        delta, p = summary(np.array([value]), deltas[None])[0], two_sided(deltas)
    gain, base, spread = table.sign * value, abs(baseline.value), ours.deviation
    return PairedDifference(
        *(table.name, baseline.model, delta, gain),
        relative=gain / base if base else float("nan"),
        in_deviations=gain / spread if spread else float("nan"),
        p=p,
        holm=p,
    )


def two_sided(deltas: np.ndarray) -> float:
    """Return twice the smaller share of resamples (R,) on one side of 0, from 1 / R to 1."""
    known = deltas[np.isfinite(deltas)]
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


def compare_to(
    tables: Sequence[TaskTable], choose: Callable[[TaskTable], Row | None]
) -> list[PairedDifference]:
    """Return ours minus the baseline that is chosen on each task, corrected over these tasks."""
    each = [
        paired_difference(table, table.rows[OURS], baseline)
        for table in tables
        if OURS in table.rows and (baseline := choose(table)) is not None
    ]
    corrected = holm([one.p for one in each])
    return [replace(one, holm=p) for one, p in zip(each, corrected, strict=True)]


def significance(tables: Sequence[TaskTable]) -> dict[str, list[PairedDifference]]:
    """Return the claims "beats …" that some task can decide."""
    made = {
        "untrained": compare_to(tables, lambda table: table.rows.get(CONTROL)),
        "the best baseline": compare_to(tables, lambda table: table.best_baseline),
    }
    for name, pattern in FAMILIES.items():
        made[name] = compare_to(tables, lambda table, pattern=pattern: table.best(pattern))
    return {f"beats {name}": each for name, each in made.items() if each}
