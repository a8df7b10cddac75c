"""Will this user click, or watch for long, what their feed shows? Rates, vectors and both.

The impressions of one tab of the feed from a moment on are asked about: between tabs the click rate
differs by more than anything that a model knows (.09 to .59 in KuaiRand). Users of the training
split fit the probe, valid ones choose it, those of test are scored.

Everything is read as of that moment: the vectors, and the rates and counts of items and users from
the impressions before it, those of test users among them. No impression that is asked about is in
a rate or in a past.

    linear        [u, i, u * i] and how near the two are in each block (interactions.py), and what
                  the rivals count of an item before the moment, whoever the user is: rates, how
                  often and how lately it was shown and clicked
    vector alone  the same without what is counted
    lightgbm      the rival of counts and attributes, tuned on the valid users
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.baselines.feature_rows import FeatureRows, answers, beside, supports
from benchmarks.baselines.interactions import pair_features
from benchmarks.baselines.rates import Rates, Timeline
from benchmarks.baselines.representations import FixedScores
from benchmarks.baselines.tfidf import popularity
from benchmarks.datasets.label_tables import check_times, read_table, rows_of, service_of
from benchmarks.metrics.calibration import class_losses
from benchmarks.protocols import Model, Probe, Scored, TaskBaseline, has_vectors
from benchmarks.query_columns import history_slice, popularity_slice, take
from benchmarks.snapshot import Snapshot, snapshot_at
from benchmarks.tasks.clicks import MEASURES
from clue.atomic import sha256
from clue.data.corpus import Corpus

DAY = 86_400.0
LABELS = ("clicked", "long_view")
ITEM = ("item rate", "item counts")  # what is known of an item whoever the user is
WINDOWS = (1.0, 3.0, 7.0)  # days before the moment in which an item is counted


@dataclass(frozen=True, kw_only=True)
class FeedClicksConfig:
    """`impressions` of a `service`: user_id, item_id, timestamp, tab, clicked, long_view (0 or 1).

    Those of `tab` from `opens` (epoch seconds) on are asked for `label`. `users` and `items` are
    tables of static attributes by user_id and item_id, which a rival reads: numbers and categories.
    """

    name: str
    impressions: Path
    users: Path
    items: Path
    opens: float
    label: Literal["clicked", "long_view"] = "clicked"
    service: str = "video"
    tab: str = "tab1"

    def build(self, corpus: Corpus) -> "FeedClicksTask":
        """Return the task. ValueError where a split has no impression of either kind."""
        return FeedClicksTask(self, corpus)


@dataclass(frozen=True)
class Shown:
    """Impressions (n,): rows of the corpus' users and items, their moments, tabs and labels."""

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    in_tab: np.ndarray
    labels: Mapping[str, np.ndarray]


def read_shown(corpus: Corpus, config: FeedClicksConfig) -> Shown:
    """Return the impressions of known users and items; raises as `read_table`, `check_times`."""
    file = config.impressions
    kinds = {"user_id": "id", "item_id": "id", "timestamp": "time", "tab": "text"}
    table = read_table(file, {**kinds, **dict.fromkeys(LABELS, "number")})  # type: ignore[arg-type]
    users = rows_of(table["user_id"], corpus.user_ids.to_pylist(), f"{file}: user_id", corpus)
    of_service = np.flatnonzero(corpus.item_service == service_of(corpus, config.service))
    names = corpus.item_ids.take(pa.array(of_service)).to_pylist()
    items = rows_of(table["item_id"], names, f"{file}: item_id", corpus)
    times = table["timestamp"].to_numpy()
    check_times(corpus, config.service, times, f"{file}: timestamp")
    labels = {name: table[name].to_numpy().astype(np.int64) for name in LABELS}
    in_tab = pc.equal(table["tab"], config.tab).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    known = np.flatnonzero((users >= 0) & (items >= 0))
    return take(Shown(users, of_service[items], times, in_tab, labels), known)


class FeedClicksTask:
    """Impressions of held-out users from a moment on; see `FeedClicksConfig`."""

    version, family = 2, "click"  # 2: counts of the item, and similarities in each block
    probes: tuple[Probe, ...] = ("linear", "vector alone", "lightgbm")

    def __init__(self, config: FeedClicksConfig, corpus: Corpus) -> None:
        """Read the impressions, and part them into those before the moment and those asked for."""
        self.name, self.config, self.corpus = config.name, config, corpus
        shown = read_shown(corpus, config)
        self.before = take(shown, shown.times < config.opens)
        queried = take(shown, (shown.times >= config.opens) & shown.in_tab)
        split = corpus.split[queried.users]
        self.parts = [take(queried, split == number) for number in range(3)]
        self.labels = [part.labels[config.label] for part in self.parts]
        for labels, called in zip(self.labels, ("training", "valid", "test"), strict=True):
            if not 0 < labels.sum() < len(labels):
                raise ValueError(
                    f"{config.name}: the {called} users have {len(labels)} impressions in "
                    f"{config.tab} from {config.opens:.0f} on, {labels.sum()} of them "
                    f"{config.label}; both kinds are needed"
                )
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            **{name: sha256(getattr(config, name)) for name in ("impressions", "users", "items")},
            "label": config.label,
            "tab": config.tab,
            "opens": config.opens,
            "counts": [len(labels) for labels in self.labels],
            "base_rate_of_test": float(self.labels[2].mean()),
        }
        self._vectors = lru_cache(maxsize=1)(self._read)

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return the prior, rates of items and users, counts, trees, and counts beside CLUE."""
        share = self.labels[0].mean()
        prior = np.tile([1 - share, share], (len(self.labels[2]), 1))
        rates, counts = ("item rate", "user rate"), (*ITEM, "user rate", "user counts")
        return [
            FixedScores("prior", prior, self.recipe["impressions"][:8]),
            FeatureRows("item rate", rates[:1], "linear"),
            FeatureRows("item rate + counts", ITEM, "linear"),
            FeatureRows("user rate", rates[1:], "linear"),
            FeatureRows("item + user rate", rates, "linear"),
            FeatureRows("aggregates", counts, "linear"),
            FeatureRows("aggregates + attributes (trees)", (*counts, "attributes"), "lightgbm"),
            *beside(models, counts),
        ]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return whether a vector is asked, or a rival by its own probe."""
        return supports(model, probe)

    @cached_property
    def rates(self) -> dict[str, Rates]:
        """The rates of the label before the moment: inside the tab, by item and by user."""
        tab = take(self.before, self.before.in_tab)
        ones = tab.labels[self.config.label]
        keys = {"item rate": tab.items, "user rate": tab.users}
        return {name: Rates(each, tab.times, ones) for name, each in keys.items()}

    @cached_property
    def smoothing(self) -> dict[str, float]:
        """The smoothing of each rate, chosen on the valid users."""
        keys = {"item rate": self.parts[1].items, "user rate": self.parts[1].users}
        return {
            name: rates.tuned(keys[name], self.config.opens, self.labels[1])
            for name, rates in self.rates.items()
        }

    @cached_property
    def columns(self) -> list[dict[str, np.ndarray]]:
        """The columns of each group of features, for the impressions of each part, (n, k)."""
        return [self._columns(part) for part in self.parts]

    def _columns(self, part: Shown) -> dict[str, np.ndarray]:
        keys = {"item rate": part.items, "user rate": part.users}
        made = {
            name: rates.log_odds(keys[name], self.config.opens, self.smoothing[name])[:, None]
            for name, rates in self.rates.items()
        }
        past, row = self._past(part)
        made["item counts"] = self._counts(self.before.items, part.items)
        users = self._counts(self.before.users, part.users)
        made["user counts"] = np.concatenate([users, np.log1p(past.lengths)[row, None]], axis=1)
        return {**made, "attributes": self._attributes(part)}

    def _counts(self, of: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return counts, rates and ages (n, 20) before the moment of `keys` (n,) among `of`.

        `of` are the users or the items of the impressions before it.
        """
        opens, before, features = self.config.opens, self.before, list[np.ndarray]()
        for rows in (np.flatnonzero(before.in_tab), np.arange(len(of))):
            for name in LABELS:
                ones = before.labels[name][rows]
                timeline = Timeline(of[rows], before.times[rows], ones)
                features += [*map(np.log1p, timeline.before(keys, opens))]
                features.append(
                    Rates(of[rows], before.times[rows], ones).log_odds(keys, opens, 10.0)
                )
        whole = Timeline(of, before.times, before.labels[self.config.label])
        for days in WINDOWS:
            features += [*map(np.log1p, whole.between(keys, opens - days * DAY, opens))]
        for extreme, start in ((np.maximum, -np.inf), (np.minimum, opens)):  # newest, oldest
            at = np.full(self.corpus.num_users + self.corpus.num_items, start)
            extreme.at(at, of, before.times)
            features.append(np.log1p(np.minimum((opens - at[keys]) / DAY, 30)))
        return np.stack(features, axis=1)

    def _attributes(self, part: Shown) -> np.ndarray:
        """Return numbers and codes of categories (n, k), NaN where unknown, and rates by them."""
        corpus, before, label = self.corpus, self.before, self.config.label
        features: list[np.ndarray] = []
        for table, ids, key, rows, evidence in (
            (self.config.users, corpus.user_ids, "user_id", part.users, before.users),
            (self.config.items, corpus.item_ids, "item_id", part.items, before.items),
        ):
            codes, names = _coded(table, key)
            row_of = {name: at for at, name in enumerate(names)}
            row_of_id = np.array([row_of.get(name, -1) for name in ids.to_pylist()])
            at, seen = row_of_id[rows], row_of_id[evidence]
            features += list(np.where(at >= 0, codes[:, at], np.nan))
            if key == "item_id":  # the rate of all items of an author, of a tag …
                for each in codes:
                    values, keys = np.unique(each, return_inverse=True)
                    keys = np.append(keys, len(values))  # row -1: not in the table
                    rates = Rates(keys[seen], before.times, before.labels[label])
                    features.append(rates.log_odds(keys[at], self.config.opens, 10.0))
        return np.stack(features, axis=1)

    def _past(self, part: Shown) -> tuple[Snapshot, np.ndarray]:
        """Return the past of each user, and which of them each impression has."""
        users, row = np.unique(part.users, return_inverse=True)
        past = snapshot_at(self.corpus, users, self.config.opens, [self.config.service])
        return past, row

    def _read(self, model: Model) -> tuple[list[np.ndarray], Mapping[str, slice]]:
        """Return [u, i, u * i] of the impressions of each part (n, F) or [u], and their blocks."""
        each = [(part.items, *self._past(part)) for part in self.parts]
        read = [pair_features(model, model.users(past)[row], items) for items, past, row in each]
        return [x for x, _ in read], read[0][1]

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each impression of a user of the test split."""
        labels = self.labels[0], self.labels[1]
        predicted = answers(model, probe, ITEM, self.columns, self._vectors, labels)
        groups = ITEM if has_vectors(model) and probe == "linear" else ()
        groups = model.groups if isinstance(model, FeatureRows) else groups
        used = {name: self.smoothing[name] for name in groups if name in self.smoothing}
        return self._scored(predicted.values, {**predicted.chosen, **used})

    def _scored(self, values: np.ndarray, chosen: Mapping[str, Any]) -> Scored:
        test, corpus, label = self.parts[2], self.corpus, self.labels[2]
        past, row = self._past(test)
        counts = popularity(corpus, service_of(corpus, self.config.service))
        columns = {
            "user_id": corpus.user_ids.take(pa.array(test.users)),
            "score": values[:, 1],
            "label": label,
            "loss": class_losses(values, label),
            "slice history": history_slice(past.lengths[row]),
            "slice item": popularity_slice(counts[test.items]),
        }
        return Scored(pa.table(columns), MEASURES, chosen)


def _coded(file: Path, key: str) -> tuple[np.ndarray, list[str]]:
    """Return the columns of a table as numbers (columns, rows), categories coded, and its keys."""
    table = pq.read_table(file)
    columns: list[np.ndarray] = []
    for name in table.column_names:
        column = table[name].combine_chunks()
        if name == key:
            continue
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = column.dictionary_encode().indices
        columns.append(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
    return np.stack(columns), table[key].cast(pa.string()).to_pylist()
