"""Impressions of items to users, and the rival that knows how often an item is clicked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.metrics.calibration import log_losses
from benchmarks.protocols import one_block
from benchmarks.query_columns import take
from benchmarks.snapshot import Snapshot
from clue.data.corpus import Corpus

SMOOTHING = (1.0, 3.0, 10.0, 30.0, 100.0)  # impressions at the mean rate that an item starts with
FOLDS = 5


@dataclass(frozen=True)
class Impressions:
    """Impressions (n,): rows of the corpus' users and items, the moment, whether clicked (0/1).

    `probability` (n,) is that of the click, NaN where only what happened is known.
    """

    users: np.ndarray
    items: np.ndarray
    cutoff: np.ndarray
    clicked: np.ndarray
    probability: np.ndarray


class ClickRates:
    """The baseline that knows no vectors: the smoothed click rate of an item among training users.

    With `activity` the log of the user's number of events stands beside it.
    """

    seed = 0

    def __init__(
        self, corpus: Corpus, train: Impressions, valid: Impressions, *, activity: bool
    ) -> None:
        """Choose the smoothing by the log loss on `valid`."""
        self.name = "item rate + activity" if activity else "item rate"
        self.blocks, self.similarity = one_block(1), slice(None)
        self.corpus, self.train, self.activity = corpus, train, activity
        self.fingerprint = f"rates-{activity}-{SMOOTHING}-{FOLDS}"
        losses = [
            log_losses(self._rates(train, s)[valid.items], valid.clicked).mean() for s in SMOOTHING
        ]
        self.smoothing = SMOOTHING[int(np.argmin(losses))]

    def _rates(self, seen: Impressions, smoothing: float) -> np.ndarray:
        count = np.bincount(seen.items, minlength=self.corpus.num_items)
        clicks = np.bincount(seen.items, seen.clicked, minlength=self.corpus.num_items)
        return (clicks + smoothing * seen.clicked.mean()) / (count + smoothing)

    def users(self, past: Snapshot) -> np.ndarray:
        """Return log(1 + events) (n, 1), or zeros without `activity`."""
        return np.log1p(past.lengths * self.activity)[:, None].astype(np.float32)

    def items(self) -> np.ndarray:
        """Return the log odds (num_items, 1) of the rates."""
        return _log_odds(self._rates(self.train, self.smoothing))[:, None]

    def shown(self, parts: Sequence[Impressions]) -> list[np.ndarray]:
        """Return how often the item of each impression is shown in training, (n,) of each part.

        The first part are the training impressions, of which those of the other folds are counted.
        """
        fold = self.train.users % FOLDS
        counts = np.zeros((FOLDS, self.corpus.num_items))
        np.add.at(counts, (fold, self.train.items), 1)
        total = counts.sum(0)
        own = counts[fold, self.train.items]
        return [total[self.train.items] - own, *(total[part.items] for part in parts[1:])]

    def training_items(self) -> np.ndarray:
        """Return those of the training impressions (n, 1), from the users of the other folds.

        With the user's own click in it a rate would promise more than it holds for others.
        """
        fold, held_out_rates = self.train.users % FOLDS, np.empty(len(self.train.users))
        for number in range(FOLDS):
            in_fold = fold == number
            rates = self._rates(take(self.train, ~in_fold), self.smoothing)
            held_out_rates[in_fold] = rates[self.train.items[in_fold]]
        return _log_odds(held_out_rates)[:, None]


def _log_odds(rates: np.ndarray) -> np.ndarray:
    return np.log(rates / (1 - rates))
