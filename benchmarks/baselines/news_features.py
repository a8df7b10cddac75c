"""What a news site would count and compare before any model: rate, clicks, age, titles, categories.

All of it is known before the moment of the impression: the history that the past holds, and the
impressions of all users with an earlier time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.baselines.rates import SMOOTHING, Rates, Timeline, least
from benchmarks.baselines.tfidf import PATTERN
from benchmarks.datasets.label_tables import service_of
from benchmarks.snapshot import Snapshot
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged

GROUPS = ("item rate", "popularity", "titles", "categories", "age")
HOURS = (1.0, 3.0, 6.0, 12.0, 24.0, 48.0, 1000.0)  # in which clicks are counted
NEWEST = (3.0, 10.0, 30.0, 100.0, 1000.0)  # clicked titles that make a profile
HOUR = 3600.0
Matrix = Any  # a csr_matrix, whose shape SciPy's types do not know


class NewsFeatures:
    """The columns of GROUPS; `chosen` says what the tuning chose."""

    def __init__(
        self,
        corpus: Corpus,
        service: str,
        items: Path,
        shown: tuple[np.ndarray, np.ndarray, np.ndarray],
    ) -> None:
        """`shown` are items (n,), moments and clicks of all impressions; `items` the categories."""
        keys, times, clicked = shown
        self._service, self._number = service, service_of(corpus, service)
        self._rates = Rates(keys, times, clicked)
        self._clicks = Timeline(keys, times, clicked)
        self._first = np.full(corpus.num_items, np.inf)
        np.minimum.at(self._first, keys, times)
        own = np.flatnonzero(corpus.item_service == self._number)
        self._place = np.zeros(corpus.num_items, np.int64)
        self._place[own] = np.arange(len(own))
        texts = corpus.item_texts.take(pa.array(own)).to_pylist()
        titles = TfidfVectorizer(token_pattern=PATTERN, sublinear_tf=True)
        self._titles: Matrix = csr_matrix(titles.fit_transform(texts))
        table = pq.read_table(items, columns=["item_id", "category"])
        names = table["category"].combine_chunks().dictionary_encode().indices.to_numpy()
        code = dict(zip(table["item_id"].to_pylist(), names, strict=True))
        self._category = np.zeros(corpus.num_items, np.int64)
        ids = corpus.item_ids.take(pa.array(own)).to_pylist()
        self._category[own] = [code.get(name, int(names.max()) + 1) for name in ids]
        self._categories = int(names.max()) + 2
        self.chosen: dict[str, float] = {}

    def tune(
        self,
        past: Snapshot,
        row: np.ndarray,
        items: np.ndarray,
        loss: Callable[[np.ndarray], float],
    ) -> None:
        """Choose the smoothing and the number of titles by the least `loss` of valid scores (n,).

        `past` is of the impressions, `row` and `items` (n,) are what they show.
        """
        moments = past.cutoff[row]
        self.chosen = {
            "item rate": least(SMOOTHING, lambda s: loss(self._rates.log_odds(items, moments, s))),
            "titles": least(NEWEST, lambda k: loss(self._cosine(past, row, items, int(k)))),
        }

    def columns(self, past: Snapshot, row: np.ndarray, items: np.ndarray) -> dict[str, np.ndarray]:
        """Return the columns (n, k) of each group for the items shown, see `tune`."""
        moments = past.cutoff[row]
        rate = self._rates.log_odds(items, moments, self.chosen["item rate"])
        age = (moments - self._first[items]) / HOUR
        return {
            "item rate": rate[:, None],
            "popularity": np.stack(
                [each for hours in HOURS for each in self._counted(items, moments, hours)], axis=1
            ),
            "titles": self._cosine(past, row, items, int(self.chosen["titles"]))[:, None],
            "categories": self._shares(past, row, items),
            # an item that was never shown before is new, and what comes later is not looked at
            "age": np.stack([np.log1p(np.maximum(age, 0)), age > 0], axis=1),
        }

    def _counted(self, items: np.ndarray, moments: np.ndarray, hours: float) -> list[np.ndarray]:
        """Return the logarithms of how often each item was shown and clicked in those hours."""
        counts = self._clicks.between(items, moments - hours * HOUR, moments)
        return [np.log1p(each) for each in counts]

    def _history(self, past: Snapshot, newest: int) -> Ragged:
        return past.parts[self._number][0].last(newest)

    def _cosine(
        self, past: Snapshot, row: np.ndarray, items: np.ndarray, newest: int
    ) -> np.ndarray:
        """Return the mean cosine (n,) of an item's text to those of the newest clicked ones."""
        history = self._history(past, newest)
        weights = np.repeat(1 / np.maximum(history.lengths, 1), history.lengths)
        places = self._place[history.values]
        shape = (len(history), self._titles.shape[0])
        profiles: Matrix = csr_matrix((weights, places, history.offsets), shape) @ self._titles
        norms = np.sqrt(np.asarray(profiles.multiply(profiles).sum(1)).ravel())
        products = np.asarray(
            profiles[row].multiply(self._titles[self._place[items]]).sum(1)
        ).ravel()
        return products / np.maximum(norms[row], 1e-12)

    def _shares(self, past: Snapshot, row: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return (n, 3): the item's category in the past, its share, and that over all users'."""
        history = self._history(past, 10**9)
        past_row = np.repeat(np.arange(len(history)), history.lengths)
        counts = np.zeros((len(history), self._categories))
        np.add.at(counts, (past_row, self._category[history.values]), 1)
        mean = (counts.sum(0) + 1) / (counts.sum() + self._categories)
        share = (counts + 5 * mean) / (counts.sum(1, keepdims=True) + 5)
        of = self._category[items]
        return np.log(
            np.stack([1 + counts[row, of], share[row, of], share[row, of] / mean[of]], axis=1)
        )
