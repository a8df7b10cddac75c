"""What the results say together: a row for each model over its seeds, its gains and its ranks.

Everything is computed from results, nothing is stored. A row is a model's first probe on a task; a
row whose name begins with "oracle" reads the truth: it is shown, and is never a baseline. Nor is a
row with "supervised" in its name, a model trained for the task alone.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import rankdata

from benchmarks.metrics.bootstrap import Interval, Statistic, bootstrap, summary
from benchmarks.suite.results import Key, TaskResult

OURS, CONTROL, CHANCE, ORACLE = "CLUE", "untrained", "random", "oracle"
SUPERVISED = "supervised"
COMMON = 0.8  # share of our tasks that a model must have to be ranked beside ours over all of them
Over: TypeAlias = Literal["seeds and users", "users", "widest seed"]


@dataclass(frozen=True)
class Row:
    """A model on a task, by its first probe: the mean over its seeds a result each.

    `found` is drawn `over` seeds and users, over the users of its only seed, or, without queries,
    is as wide as the widest of its seeds. `draws` (R,) are the resamples, None without queries.
    """

    results: tuple[TaskResult, ...]
    found: Interval
    over: Over
    draws: np.ndarray | None

    @property
    def model(self) -> str:
        """The name in the tables."""
        return self.results[0].model

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return self.found.value

    @property
    def seeds(self) -> list[float]:
        """The value of each seed."""
        return [result.values[result.main].value for result in self.results]

    @property
    def deviation(self) -> float:
        """The standard deviation of the seeds, NaN of a single one."""
        return float(np.std(self.seeds, ddof=1)) if len(self.results) > 1 else float("nan")

    @property
    def is_baseline(self) -> bool:
        """Whether it is a baseline: nothing with ours inside, supervised, control or oracle."""
        inside = OURS in self.model or SUPERVISED in self.model
        return not inside and not self.model.startswith((CONTROL, CHANCE, ORACLE))


@dataclass(frozen=True)
class TaskTable:
    """The rows of a task by model, by its main measure, and all its results, other probes too."""

    name: str
    family: str
    measure: str
    lower_is_better: bool
    rows: dict[str, Row]
    results: tuple[TaskResult, ...]

    @property
    def sign(self) -> int:
        """What turns a difference into a gain: -1 where lower is better."""
        return -1 if self.lower_is_better else 1

    @property
    def ranked(self) -> list[Row]:
        """The rows from best to worst, oracles left out."""
        rows = [row for row in self.rows.values() if not row.model.startswith(ORACLE)]
        return sorted(rows, key=lambda row: -self.sign * row.value)

    @property
    def best_baseline(self) -> Row | None:
        """The best baseline, chosen by the test users themselves, which flatters it."""
        return self.best("*")

    @property
    def oracle(self) -> Row | None:
        """The row that reads the truth, if there is one."""
        rows = [row for name, row in self.rows.items() if name.startswith(ORACLE)]
        return max(rows, key=lambda row: self.sign * row.value, default=None)

    def best(self, pattern: str) -> Row | None:
        """Return the best of the baselines whose name matches."""
        rows = (row for row in self.ranked if row.is_baseline and fnmatch(row.model, pattern))
        return next(rows, None)

    def gain(self, row: Row) -> float:
        """Return (x - untrained) / (best baseline - untrained), NaN where that has no headroom."""
        return self._share(row, self.best_baseline)

    def attained(self, row: Row) -> float:
        """Return (x - untrained) / (oracle - untrained), NaN without an oracle."""
        return self._share(row, self.oracle)

    def _share(self, row: Row, top: Row | None) -> float:
        bottom = self.rows.get(CONTROL)
        if top is None or bottom is None or self.sign * (top.value - bottom.value) <= 0:
            return float("nan")
        return (row.value - bottom.value) / (top.value - bottom.value)


def tables(results: Sequence[TaskResult], *, resamples: int, seed: int = 0) -> list[TaskTable]:
    """Return the tasks by family and name. ValueError for a task's results of two recipes."""
    by_task: dict[str, list[TaskResult]] = {}
    for result in results:
        by_task.setdefault(result.task, []).append(result)
    made = [_table(each, resamples, seed) for each in by_task.values()]
    return sorted(made, key=lambda table: (table.family, table.name))


def _table(results: Sequence[TaskResult], resamples: int, seed: int) -> TaskTable:
    first = results[0]
    for result in results:
        if (result.version, result.about["recipe"]) != (first.version, first.about["recipe"]):
            raise ValueError(
                f"{result.out}: {result.key} is of another version or recipe than {first.key}; "
                "run the suite again, and delete the lines that it no longer makes"
            )
    main = [result for result in results if result.main_probe]
    drawn = _drawn(main, resamples, seed)
    by_model: dict[str, list[TaskResult]] = {}
    for result in main:
        by_model.setdefault(result.model, []).append(result)
    rows = {name: _row(name, each, drawn, seed) for name, each in by_model.items()}
    lower = first.measures[first.main].lower_is_better
    return TaskTable(first.task, first.family, first.main, lower, rows, tuple(results))


def _drawn(results: Sequence[TaskResult], resamples: int, seed: int) -> dict[Key, np.ndarray]:
    """Return the resamples (R,) of each result with queries; all see the same draws of users."""
    statistics: dict[Key, Statistic] = {}
    users: pa.ChunkedArray | None = None
    for result in results:
        if result.queries is None:
            continue
        measure = result.measures[result.main]
        queries = pq.read_table(
            result.queries, columns=["user_id", *dict.fromkeys(measure.columns)]
        )
        if users is not None and not users.equals(queries["user_id"]):
            raise ValueError(
                f"{result.queries} holds other queries than the task's other results; "
                "run the suite again"
            )
        users = queries["user_id"]
        statistics[result.key] = measure.statistic(queries)
    if users is None:
        return {}
    user_index = users.combine_chunks().dictionary_encode().indices.to_numpy()
    drawn = bootstrap(list(statistics.values()), user_index, resamples=resamples, seed=seed)[1]
    return dict(zip(statistics, drawn, strict=True))


def _row(model: str, results: Sequence[TaskResult], drawn: dict[Key, np.ndarray], seed: int) -> Row:
    results = tuple(sorted(results, key=lambda result: result.seed))
    each = [result.values[result.main] for result in results]
    value = float(np.mean([one.value for one in each]))
    if any(result.key not in drawn for result in results):
        return Row(results, widest(each), "widest seed", None)
    stacked = np.stack([drawn[result.key] for result in results])
    draws = two_level(stacked, seed=zlib.crc32(f"{seed} {model}".encode()))
    interval = summary(np.array([value]), draws[None])[0]
    return Row(results, interval, "seeds and users" if len(results) > 1 else "users", draws)


def widest(each: Sequence[Interval]) -> Interval:
    """Return the mean of the values with the widest of the intervals, moved to it."""
    value = float(np.mean([one.value for one in each]))
    wide = max(each, key=lambda one: one.high - one.low)
    return Interval(value, wide.low + value - wide.value, wide.high + value - wide.value)


def two_level(drawn: np.ndarray, *, seed: int) -> np.ndarray:
    """Return resamples (R,) of the mean over seeds from each seed's resamples of users (S, R).

    In every resample S seeds are drawn too. S of S draws understate a variance by (S - 1) / S, a
    third at three seeds, so their deviations are stretched by its root (Rao & Wu 1988).
    """
    count, resamples = drawn.shape
    mean = drawn.mean(0)
    if count == 1:
        return mean
    chosen = np.random.default_rng(seed).integers(0, count, (count, resamples))
    again = np.take_along_axis(drawn, chosen, axis=0).mean(0)
    return mean + np.sqrt(count / (count - 1)) * (again - mean)


def compared(tables: Sequence[TaskTable]) -> tuple[list[str], list[TaskTable]]:
    """Return the models to rank over all tasks, and the tasks that all of them have.

    They are those with COMMON of our tasks or more: representations that are given to every task.
    """
    ours = [table for table in tables if OURS in table.rows]
    names = list(dict.fromkeys(row.model for table in ours for row in table.ranked))
    kept = [n for n in names if sum(n in t.rows for t in ours) >= COMMON * len(ours)]
    return kept, [table for table in ours if all(name in table.rows for name in kept)]


def ranks(tables: Sequence[TaskTable], models: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the mean rank over the tasks and the Borda points of each model, ties at their mean.

    A model has on each task as many points as models stand below it. All tasks have all models.
    """
    if not tables:
        return {}
    values = np.array([[-t.sign * t.rows[name].value for name in models] for t in tables])
    each = rankdata(values, axis=1)
    points = (len(models) - each).sum(0)
    return dict(zip(models, zip(each.mean(0).tolist(), points.tolist(), strict=True), strict=True))


def mean_gain(tables: Sequence[TaskTable], model: str) -> tuple[float, int]:
    """Return a model's mean normalised gain over the tasks that have one, and their number."""
    gains = [table.gain(table.rows[model]) for table in tables if model in table.rows]
    known = [gain for gain in gains if np.isfinite(gain)]
    return (float(np.mean(known)) if known else float("nan")), len(known)
