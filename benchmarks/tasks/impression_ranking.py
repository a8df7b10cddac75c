"""Which of the items shown together were clicked? Each impression is ranked by itself.

A past is what the user clicked before the impression. What is counted of an item, its click rate,
its clicks and its age, is counted of the impressions before that moment alone, of all users.
Training users' impressions fit the probe, on all clicked items and `negatives` others for each, as
is usual for MIND; valid ones choose it, and all items of test users' impressions are ranked. What
is the same for all items of an impression, u itself, cannot rank them and is left out.

    linear        [i, u * i] and how near the two are in each block (interactions.py), and what the
                  rivals count of an item before the moment, whoever the user is: its rate, how
                  often it was shown and clicked in the last hours, its age
    vector alone  the same without what is counted
    zero-shot     the items by their dot product with the user's vector
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.baselines.feature_rows import FeatureRows, answers, beside, supports
from benchmarks.baselines.interactions import pair_features
from benchmarks.baselines.news_features import GROUPS, NewsFeatures
from benchmarks.datasets.label_tables import check_times, read_table, rows_of, service_of
from benchmarks.metrics.within import within
from benchmarks.protocols import (
    Measure,
    Model,
    Probe,
    Scored,
    TaskBaseline,
    has_items,
    items_of,
    model_of,
)
from benchmarks.query_columns import history_slice
from benchmarks.snapshot import Snapshot, snapshot_at
from clue.atomic import sha256
from clue.data.corpus import Corpus

MEASURES = {
    "AUC": Measure("mean", ("auc",)),
    "MRR": Measure("mean", ("mrr",)),
    "NDCG@5": Measure("mean", ("ndcg_5",)),
    "NDCG@10": Measure("mean", ("ndcg_10",)),
}
ITEM = ("item rate", "popularity", "age")  # what is known of an item whoever the user is


@dataclass(frozen=True, kw_only=True)
class ImpressionRankingConfig:
    """`impressions` of a `service`: impression, user_id, item_id, timestamp, clicked (0 or 1).

    `items` has the `category` of each item_id. `seed` draws the `negatives` of the probe.
    """

    name: str
    impressions: Path
    items: Path
    service: str = "news"
    negatives: int = 4
    seed: int = 0

    def build(self, corpus: Corpus) -> "ImpressionRankingTask":
        """Return the task. ValueError where a split has no impression with a click and without."""
        return ImpressionRankingTask(self, corpus)


@dataclass(frozen=True)
class Impressions:
    """Items shown (n,), corpus rows, and whether clicked, of I impressions; row i is offsets[i] on.

    `users` and `times` (I,) are the impressions'.
    """

    users: np.ndarray
    times: np.ndarray
    items: np.ndarray
    clicked: np.ndarray
    offsets: np.ndarray

    @property
    def row(self) -> np.ndarray:
        """The impression of each item shown, (n,)."""
        return np.repeat(np.arange(len(self.users)), np.diff(self.offsets))

    def some(self, kept: np.ndarray) -> "Impressions":
        """Return the impressions where `kept`, boolean (I,)."""
        rows, count = kept[self.row], np.diff(self.offsets)[kept]
        shown = self.items[rows], self.clicked[rows], np.r_[0, np.cumsum(count)]
        return Impressions(self.users[kept], self.times[kept], *shown)


def read_impressions(corpus: Corpus, config: ImpressionRankingConfig) -> Impressions:
    """Return the impressions by time, of users unknown to the corpus too (row -1).

    Raises as `read_table` and `check_times` do, and ValueError for items that the corpus lacks or
    an impression of two users or moments.
    """
    file = config.impressions
    table = read_table(
        file,
        {
            "impression": "id",
            "user_id": "id",
            "item_id": "id",
            "timestamp": "time",
            "clicked": "number",
        },
    )
    of_service = np.flatnonzero(corpus.item_service == service_of(corpus, config.service))
    names = corpus.item_ids.take(pa.array(of_service)).to_pylist()
    items = rows_of(table["item_id"], names, f"{file}: item_id", corpus)
    if (items < 0).any():
        raise ValueError(f"{file}: an item shown is not in {corpus.path}; an impression is whole")
    users = rows_of(table["user_id"], corpus.user_ids.to_pylist(), f"{file}: user_id", corpus)
    times = table["timestamp"].to_numpy()
    check_times(corpus, config.service, times, f"{file}: timestamp")
    number = table["impression"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.lexsort((number, times))
    number, users, times = number[order], users[order], times[order]
    starts = np.flatnonzero(np.r_[True, number[1:] != number[:-1]])
    if len(starts) > len(np.unique(number)) or (np.diff(users)[np.diff(number) == 0] != 0).any():
        raise ValueError(f"{file}: an impression has two moments or two users; it is of one each")
    clicked = table["clicked"].to_numpy().astype(np.int64)[order]
    shown = of_service[items][order], clicked, np.r_[starts, len(number)]
    return Impressions(users[starts], times[starts], *shown)


class ImpressionRankingTask:
    """Impressions of held-out users; see `ImpressionRankingConfig`."""

    version, family = 3, "impression ranking"  # 3: what is counted of an item, similarities, no u
    probes: tuple[Probe, ...] = ("linear", "vector alone", "zero-shot")

    def __init__(self, config: ImpressionRankingConfig, corpus: Corpus) -> None:
        """Read the impressions; what is asked of are those with a click and without."""
        self.name, self.config, self.corpus = config.name, config, corpus
        self.shown = read_impressions(corpus, config)
        ones = np.add.reduceat(self.shown.clicked, self.shown.offsets[:-1])
        fit = (ones > 0) & (ones < np.diff(self.shown.offsets)) & (self.shown.users >= 0)
        split = np.where(fit, corpus.split[self.shown.users], 3)
        self.parts = [self.shown.some(split == number) for number in range(3)]
        for part, called in zip(self.parts, ("training", "valid", "test"), strict=True):
            if not len(part.users):
                raise ValueError(
                    f"{config.name}: the {called} users have no impression with a clicked item and "
                    "another; the table needs more"
                )
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "impressions": sha256(config.impressions),
            "items": sha256(config.items),
            "negatives": config.negatives,
            "seed": config.seed,
            "counts": [len(part.users) for part in self.parts],
        }
        self._vectors = lru_cache(maxsize=1)(self._read)

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return each group of features alone, all together, and all beside a trained encoder."""
        return [
            *(FeatureRows(name, (name,), "linear") for name in GROUPS),
            FeatureRows("aggregates", GROUPS, "linear"),
            *beside(models, GROUPS),
        ]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return whether a vector is asked, zero-shot one with items, or a rival by its probe."""
        return supports(model, probe) and (probe != "zero-shot" or has_items(model))

    @cached_property
    def pasts(self) -> list[Snapshot]:
        """What each user clicked before the impression, of each part."""
        services = [self.config.service]
        return [snapshot_at(self.corpus, p.users, p.times, services) for p in self.parts]

    @cached_property
    def fitted_on(self) -> list[np.ndarray]:
        """The places in each part's items that the probe reads: all of test, and of others some."""
        rng = np.random.default_rng(self.config.seed)
        kept: list[np.ndarray] = []
        for part in self.parts[:2]:
            draw = np.where(part.clicked > 0, -1, rng.random(len(part.items)))
            order = np.lexsort((draw, part.row))  # within an impression the clicked ones first
            ones = np.add.reduceat(part.clicked, part.offsets[:-1])
            position = np.arange(len(order)) - part.offsets[part.row]
            kept.append(np.sort(order[position < ((1 + self.config.negatives) * ones)[part.row]]))
        return [*kept, np.arange(len(self.parts[2].items))]

    @cached_property
    def features(self) -> NewsFeatures:
        """What is counted and compared before an impression, tuned on the valid ones."""
        valid = self.parts[1]

        def loss(scores: np.ndarray) -> float:
            return -float(within(scores, valid.clicked, valid.offsets)["auc"].mean())

        shown = self.shown
        rows = shown.items, shown.times[shown.row], shown.clicked
        made = NewsFeatures(self.corpus, self.config.service, self.config.items, rows)
        made.tune(self.pasts[1], valid.row, valid.items, loss)
        return made

    @cached_property
    def columns(self) -> list[dict[str, np.ndarray]]:
        """The columns of each group of features for each part's items, (n, k)."""
        each = zip(self.parts, self.pasts, strict=True)
        return [self.features.columns(past, part.row, part.items) for part, past in each]

    def _read(self, model: Model) -> tuple[list[np.ndarray], Mapping[str, slice]]:
        """Return [i, u * i] of what the probe reads of each part (n, F) or [u], and blocks."""
        read = [
            pair_features(
                model, model.users(past)[part.row[kept]], part.items[kept], with_users=False
            )
            for part, past, kept in zip(self.parts, self.pasts, self.fitted_on, strict=True)
        ]
        return [x for x, _ in read], read[0][1]

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each impression of a user of the test split.

        ValueError for a zero-shot answer of a model without vectors of items.
        """
        if probe == "zero-shot":
            return self._zero_shot(model_of(model))
        read = [
            {name: values[kept] for name, values in made.items()}
            for made, kept in zip(self.columns, self.fitted_on, strict=True)
        ]
        y = [part.clicked[kept] for part, kept in zip(self.parts, self.fitted_on, strict=True)]
        predicted = answers(model, probe, ITEM, read, self._vectors, (y[0], y[1]))
        rows = FeatureRows.of(model, ITEM if probe == "linear" else ())
        tuned = {
            name: self.features.chosen[name] for name in rows.groups if name in self.features.chosen
        }
        return self._scored(predicted.values[:, 1], {**predicted.chosen, **tuned})

    def _zero_shot(self, model: Model) -> Scored:
        items, test = items_of(model), self.parts[2]
        users = model.users(self.pasts[2])
        return self._scored((users[test.row] * items[test.items]).sum(1), {})

    def _scored(self, scores: np.ndarray, chosen: Mapping[str, Any]) -> Scored:
        test = self.parts[2]
        columns = {
            "user_id": self.corpus.user_ids.take(pa.array(test.users)),
            **within(scores, test.clicked, test.offsets),
            "slice history": history_slice(self.pasts[2].lengths),
        }
        return Scored(pa.table(columns), MEASURES, chosen)
