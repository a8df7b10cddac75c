"""Tuned baselines that score the items of one service and have no frozen vector of a user.

All learn from the training events of every user and are tuned by NDCG@10 on the valid items, in the
full ranking that the test items are asked in. An item met twice counts once, but in popularity.
Each docstring states the grid, which is the whole budget of its tuning; `chosen` what came out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy.sparse import csr_matrix

from benchmarks.protocols import Ranker
from benchmarks.snapshot import Snapshot
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.evaluation.ranking import CELLS, rank_scores

Matrix = Any  # a csr_matrix, whose shape SciPy's types do not know

DAY = 86_400.0


@runtime_checkable
class Tuned(Ranker, Protocol):
    """A ranker that says what its tuning chose."""

    chosen: dict[str, Any]


def catalogue(corpus: Corpus, service: str) -> np.ndarray:
    """Return the items (m,) of a service, ascending. ValueError where the corpus lacks it."""
    if service not in corpus.services:
        raise ValueError(f"{corpus.path} has no service {service!r}; it has {corpus.services}")
    return np.flatnonzero(corpus.item_service == corpus.services.index(service))


def columns(past: Snapshot, service: str, items: np.ndarray) -> Ragged:
    """Return what each user met in the service as places in its catalogue `items` (m,)."""
    history, _ = past.parts[past.corpus.services.index(service)]
    return Ragged(np.searchsorted(items, history.values), history.offsets)


def matrix(met: Ragged, width: int) -> Matrix:
    """Return the rows as a matrix (n, width) float32: 1 where an item was met, however often."""
    ones = np.ones(len(met.values), np.float32)
    interactions: Matrix = csr_matrix((ones, met.values, met.offsets), shape=(len(met), width))
    interactions.sum_duplicates()
    interactions.data[:] = 1
    return interactions


@dataclass(frozen=True)
class Fold:
    """What a ranker of m items learns from, and the questions that tune it.

    `met` (users, m) and `past` (n, m) are 0 and 1, `targets` (n,) and `seen` columns of them;
    `counts` (m,) are events.
    """

    items: np.ndarray
    counts: np.ndarray
    met: Matrix
    past: Matrix
    targets: np.ndarray
    seen: Ragged | None

    @classmethod
    def of(
        cls,
        train: Snapshot,
        valid: Snapshot,
        targets: np.ndarray,
        service: str,
        *,
        filter_seen: bool,
    ) -> "Fold":
        """Return the fold of the pasts; `targets` (n,) are items of the corpus."""
        items = catalogue(train.corpus, service)
        known, past = columns(train, service, items), columns(valid, service, items)
        return cls(
            items=items,
            counts=np.bincount(known.values, minlength=len(items)).astype(np.float64),
            met=matrix(known, len(items)),
            past=matrix(past, len(items)),
            targets=np.searchsorted(items, targets),
            seen=past if filter_seen else None,
        )

    def ndcg(self, blocks: Iterator[np.ndarray]) -> float:
        """Return NDCG@10 of scores (b, m) of the questions, block after block."""
        return float(rank_scores(blocks, self.targets, self.seen).ndcg(10).mean())


def rows_of(past: Snapshot, service: str, known: np.ndarray, items: np.ndarray) -> Matrix:
    """Return the matrix (n, m) of a past; ValueError where `items` is not what was learnt."""
    if not np.array_equal(known, items):
        raise ValueError(
            f"{len(items)} items are asked of a ranker that learnt {len(known)} of {service}; ask "
            "for the whole catalogue of that service"
        )
    return matrix(columns(past, service, known), len(known))


def some(rows: int, width: int) -> Iterator[slice]:
    """Yield which of so many rows of scores to make next, CELLS numbers at a time."""
    step = max(1, CELLS // width)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _alike(scores: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    for block in some(rows, len(scores)):
        yield np.tile(scores, (block.stop - block.start, 1))


class Popularity:
    """The number of training events of an item, the same for everybody. Nothing is tuned."""

    name, seed, fingerprint = "popularity", 0, "popularity"

    def __init__(self) -> None:
        """Know nothing yet."""
        self.chosen: dict[str, Any] = {}

    def fit(self, train: Snapshot, valid: Snapshot, targets: np.ndarray, service: str) -> None:
        """Count."""
        self._items = catalogue(train.corpus, service)
        event_columns = columns(train, service, self._items).values
        self._counts = np.bincount(event_columns, minlength=len(self._items)).astype(np.float64)

    def scores(self, past: Snapshot, items: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the counts (b, m)."""
        yield from _alike(self._counts[np.searchsorted(self._items, items)], len(past))


class RecentPopularity:
    """The number of training events in the last N days of training, for logs with clock times.

    Tuned: N of 1, 3, 7, 14, 30, 60, 90, 180, 365; 9 counts.
    """

    name, seed = "recent popularity", 0
    DAYS = (1, 3, 7, 14, 30, 60, 90, 180, 365)

    def __init__(self, *, filter_seen: bool) -> None:
        """`filter_seen`: the questions leave out what was met."""
        self.filter_seen, self.chosen = filter_seen, dict[str, Any]()
        self.fingerprint = f"recent-popularity-{self.DAYS}-{filter_seen}"

    def fit(self, train: Snapshot, valid: Snapshot, targets: np.ndarray, service: str) -> None:
        """Choose N and count. ValueError where there is no event to count."""
        fold = Fold.of(train, valid, targets, service, filter_seen=self.filter_seen)
        items, times = train.parts[train.corpus.services.index(service)]
        if not len(times.values):
            raise ValueError(f"no training event of {service} to count")
        age = (times.values.max() - times.values) / DAY
        places, best = np.searchsorted(fold.items, items.values), -1.0
        for days in self.DAYS:
            counts = np.bincount(places[age < days], minlength=len(fold.items)).astype(np.float64)
            ndcg = fold.ndcg(_alike(counts, len(valid)))
            if ndcg > best:
                best, self._counts = ndcg, counts
                self.chosen = {"days": days, "valid NDCG@10": ndcg}
        self._items = fold.items

    def scores(self, past: Snapshot, items: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the counts (b, m)."""
        yield from _alike(self._counts[np.searchsorted(self._items, items)], len(past))
