"""The linear probe of a feed of news, learnt anew at every full hour as its rivals are.

Of the last clicks of a day 93 % are on items that a model pretrained days before has never seen, so
that no map from users to its items knows them. A ridge regression of the clicks of the last HOURS,
a column of 0 and 1 for each item, on the frozen vectors of those users before their clicks does.
With z the columns standardised by those clicks, an item's score is

    share of the item's clicks in the last hours + weight * z W,   W = (Z'Z + strength I)^-1 Z'Y

where z W is what the vector adds to the probability that the item has for everybody. On the clicks
of training and valid users on the valid day (8 hours, 2,982 questions, at the best of the grid)
NDCG@10 is .297 of recent popularity, .349 with the universal vector, .297 with TF-IDF + SVD, whose
texts are bare ids here, and .349 of last-item transitions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from benchmarks.baselines.click_rankers import ClickLog, Hour
from benchmarks.protocols import Model
from benchmarks.snapshot import snapshot_at
from clue.data.corpus import Corpus

HOURS = 2.0  # what transitions and item-kNN are best with on the valid day
MOST = 4_000  # clicks that an hour is learnt from, the newest: a peak has 5,000 in two hours
STRENGTHS = (30.0, 300.0, 3e3, 1e4, 3e4)
PIECE = 16_384  # pasts alive at once


@dataclass(frozen=True)
class ClickVectors:
    """The frozen vectors (k, E) of users just before their clicks `rows` (k,) of a log, by time."""

    log: ClickLog
    rows: np.ndarray
    vectors: np.ndarray

    @classmethod
    def of(
        cls, model: Model, corpus: Corpus, service: str, log: ClickLog, period: tuple[float, float]
    ) -> "ClickVectors":
        """Return those of all clicks in start <= time < end that have one before them."""
        rows = np.arange(*np.searchsorted(log.times, period))
        rows = rows[log.before[rows] >= 0]
        read = [
            model.users(snapshot_at(corpus, log.users[some], log.times[some], [service]))
            for some in np.split(rows, range(PIECE, len(rows), PIECE))
        ]
        return cls(log, rows, np.concatenate(read).astype(np.float32))

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Return the vectors (b, E) float64 of clicks of the period."""
        return self.vectors[np.searchsorted(self.rows, rows)].astype(np.float64)

    def gains(
        self, hour: Hour, asked: np.ndarray, strengths: Sequence[float]
    ) -> Iterator[np.ndarray]:
        """Yield z W (b, m) of the clicks `asked` (b,) for an hour's m items, by each strength."""
        known = hour.log.hours(hour.start, HOURS)
        fitted = self.rows[slice(*np.searchsorted(self.rows, [known.start, known.stop]))][-MOST:]
        if not len(fitted):
            yield from (np.zeros((len(asked), len(hour.items))) for _ in strengths)
            return
        columns = hour.place(self.log.items[fitted])
        shape = (len(fitted), len(hour.items))
        clicked = csr_matrix((np.ones(len(fitted)), (np.arange(len(fitted)), columns)), shape)
        x, z = self.at(fitted), self.at(asked)
        mean, spread = x.mean(0), np.maximum(x.std(0), 1e-6)
        x, z = (x - mean) / spread, (z - mean) / spread
        with threadpool_limits(limits=1):
            gram = x.T @ x
            for strength in strengths:
                left = gram + strength * np.eye(len(gram))
                solved = cho_solve(cho_factor(left, overwrite_a=True), z.T)
                yield np.asarray((x @ solved).T @ clicked)
