"""Rankers of a news feed, learnt anew at every full hour: popularity, item-kNN, transitions.

Half of a day's clicks on Globo.com are on items that are less than a day old, so that what was
learnt days before knows none of them. An hour's questions are answered from the clicks before it,
those of all users; each grid is the whole budget of the tuning, by NDCG@10 on the day before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import numpy as np
from scipy.sparse import csr_matrix

from benchmarks.baselines.collaborative import place_in_row, shrunk_cosines
from benchmarks.snapshot import Snapshot
from clue.data.corpus import Corpus

HOUR = 3600.0
Setting = Mapping[str, float]
Matrix = Any  # a csr_matrix, whose shape SciPy's types do not know


class ClickLog:
    """All clicks of a service by time: users, items, and the item that the user clicked before."""

    def __init__(self, corpus: Corpus, number: int) -> None:
        """Read the clicks of the service `number`. `before` is -1 at a user's first click."""
        items, times = corpus.items_of(number), corpus.timestamps_of(number)
        before = np.r_[-1, items.values[:-1]].astype(np.int64)
        before[items.offsets[:-1][items.lengths > 0]] = -1
        order = np.argsort(times.values, kind="stable")
        self.times = times.values[order]
        self.users = np.repeat(np.arange(len(items)), items.lengths)[order]
        self.items, self.before = items.values[order].astype(np.int64), before[order]

    def hours(self, start: float, hours: float) -> slice:
        """Return the clicks in the `hours` before `start`, none at it."""
        first, last = np.searchsorted(self.times, [start - hours * HOUR, start])
        return slice(int(first), int(last))


@dataclass(frozen=True)
class Hour:
    """Questions of one hour: `rows` (b,) of all questions, whose pasts are `past` (b users).

    `items` (m,) ascending, rows of the corpus, are ranked: what was clicked lately before `start`.
    """

    start: float
    rows: np.ndarray
    items: np.ndarray
    past: Snapshot
    number: int
    log: ClickLog

    def place(self, items: np.ndarray) -> np.ndarray:
        """Return the column of each item among those ranked, -1 where it is not one."""
        at = np.minimum(np.searchsorted(self.items, items), len(self.items) - 1)
        return np.where(self.items[at] == items, at, -1)

    def counts(self, hours: float) -> np.ndarray:
        """Return the clicks of each ranked item in the hours before the start, (m,) float64."""
        at = self.place(self.log.items[self.log.hours(self.start, hours)])
        return np.bincount(at[at >= 0], minlength=len(self.items)).astype(np.float64)

    def clicked(self) -> Matrix:
        """Return the matrix (b, m) of what the pasts hold of the ranked items: 1, else 0."""
        items, _ = self.past.parts[self.number]
        at = self.place(items.values)
        past_row = np.repeat(np.arange(len(items)), items.lengths)[at >= 0]
        return _ones(past_row, at[at >= 0], (len(items), len(self.items)))

    def last(self) -> np.ndarray:
        """Return the column of the newest item of each past (b,), -1 where it is not ranked."""
        items, _ = self.past.parts[self.number]
        return self.place(items.values[items.offsets[1:] - 1])


def _ones(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Matrix:
    ones: Matrix = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape)
    ones.sum_duplicates()
    ones.data[:] = 1
    return ones


class HourRanker(Protocol):
    """A ranker that answers an hour from the clicks before it, by a setting of its grid."""

    name: str
    seed: int
    fingerprint: str
    grid: Sequence[Setting]

    def scores(self, hour: Hour, setting: Setting) -> np.ndarray:
        """Return the scores (b, m) of the ranked items for each question."""
        ...


class RecentPopularity:
    """The clicks of an item in the last N hours; without `recent`, all before the hour.

    Tuned: N of 1/4, 1/2, 1, 2, 4, 8, 24, 48.
    """

    seed = 0

    def __init__(self, *, recent: bool) -> None:
        """Name the grid."""
        self.name = "recent popularity" if recent else "popularity"
        hours = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 24.0, 48.0) if recent else (np.inf,)
        self.grid: Sequence[Setting] = [{"hours": each} for each in hours]
        self.fingerprint = f"{self.name}-{hours}"

    def scores(self, hour: Hour, setting: Setting) -> np.ndarray:
        """Return the counts, the same for everybody."""
        return np.tile(hour.counts(setting["hours"]), (len(hour.rows), 1))


class HourlyItemKNN:
    """The summed shrunk cosine to the items of the past, by who clicked both in the last N hours.

    Tuned: N of 2, 4, 12 by a shrinkage of 100, 300, 1000 by 20, 100, 300 neighbours.
    """

    name, seed = "item-kNN", 0

    def __init__(self) -> None:
        """Name the grid."""
        names = ("hours", "shrinkage", "neighbours")
        grid = product((2.0, 4.0, 12.0), (100.0, 300.0, 1000.0), (20.0, 100.0, 300.0))
        self.grid: Sequence[Setting] = [dict(zip(names, each, strict=True)) for each in grid]
        self.fingerprint = f"hourly-item-knn-{self.grid}"

    def scores(self, hour: Hour, setting: Setting) -> np.ndarray:
        """Return the sums."""
        rows = hour.log.hours(hour.start, setting["hours"])
        at, users = hour.place(hour.log.items[rows]), hour.log.users[rows]
        _, who = np.unique(users, return_inverse=True)
        known = at >= 0
        clicked = _ones(who[known], at[known], (int(who.max(initial=0)) + 1, len(hour.items)))
        cosines = shrunk_cosines(clicked, setting["shrinkage"])
        cosines.data[place_in_row(cosines) >= setting["neighbours"]] = 0
        cosines.eliminate_zeros()
        return (hour.clicked() @ cosines).toarray()


class Transitions:
    """The share of clicks on an item after the newest one of the past: a Markov chain.

    (transitions in the last N hours + s * share of all clicks in the last) / (all from it + s).
    Tuned: N of 1, 2, 4, 12, 48 by s of 10, 30, 100, 300, 1000.
    """

    name, seed = "last-item transitions", 0

    def __init__(self) -> None:
        """Name the grid."""
        grid = product((1.0, 2.0, 4.0, 12.0, 48.0), (10.0, 30.0, 100.0, 300.0, 1000.0))
        self.grid: Sequence[Setting] = [{"hours": n, "smoothing": s} for n, s in grid]
        self.fingerprint = f"transitions-{self.grid}"

    def scores(self, hour: Hour, setting: Setting) -> np.ndarray:
        """Return the smoothed shares, each times its positive denominator's inverse."""
        rows = hour.log.hours(hour.start, setting["hours"])
        source, target = hour.place(hour.log.before[rows]), hour.place(hour.log.items[rows])
        known = (source >= 0) & (target >= 0)
        shape = (len(hour.items), len(hour.items))
        moved: Matrix = csr_matrix(
            (np.ones(int(known.sum())), (source[known], target[known])), shape
        )
        recent = hour.counts(1.0)
        share = recent / max(recent.sum(), 1)
        last = hour.last()
        counts = moved[np.maximum(last, 0)].toarray() * (last >= 0)[:, None]
        smoothing = setting["smoothing"]
        total = counts.sum(1, keepdims=True)
        return (counts + smoothing * share) / (total + smoothing)
