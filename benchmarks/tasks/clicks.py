"""Will this user click this item? A linear model on [u, i, u * i] of frozen vectors, and its rate.

The click of games (Steam) is a game that was bought and then played. Users of the training split
fit the probe, valid ones choose it, those of test are scored. `u` is the user's vector as of the
impression, or of all their events where impressions have no time; `i` is the model's own vector of
the item, and beside [u, i, u * i] stands how near the two are in each block (interactions.py); a
model without items has [u] alone. What is counted of an item is known to every rival of rates, so
that the probes know it beside every vector: its click rate among the training impressions, how
often it was shown there, and its events before the moment.

    linear        [u, i, u * i] and what is counted of the item, a penalty for each block
    vector alone  [u, i, u * i]
    mlp           what linear reads, by a network
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.baselines.click_rates import ClickRates, Impressions
from benchmarks.baselines.concatenated import beside
from benchmarks.baselines.counts import LogCounts
from benchmarks.baselines.interactions import pair_features
from benchmarks.baselines.oracle import ORACLE, Oracle
from benchmarks.baselines.posterior import LogOracle
from benchmarks.baselines.probes import predict
from benchmarks.baselines.rates import Timeline
from benchmarks.baselines.representations import FixedScores, class_shares
from benchmarks.baselines.tfidf import popularity
from benchmarks.datasets.label_tables import check_times, read_table, rows_of, service_of
from benchmarks.metrics.calibration import class_losses
from benchmarks.protocols import (
    WHOLE,
    Measure,
    Model,
    Probe,
    Scored,
    TaskBaseline,
    has_vectors,
    model_of,
)
from benchmarks.query_columns import history_slice, popularity_slice, take
from benchmarks.snapshot import Snapshot, snapshot_at
from clue.atomic import sha256
from clue.data.corpus import Corpus
from clue.data.ingest.files import log_file
from clue.data.ingest.readers import columns_of
from clue.data.ingest.table import ColumnKind

MEASURES = {
    "AUC": Measure("auroc", ("score", "label")),
    "gAUC": Measure("gauc", ("score", "label")),
    "log loss": Measure("mean", ("loss",), lower_is_better=True),
    "NE": Measure("ne", ("loss", "label"), lower_is_better=True),
    "ECE": Measure("ece", ("score", "label"), lower_is_better=True),
}


@dataclass(frozen=True, kw_only=True)
class ClicksConfig:
    """Impressions of a `service` in a Parquet table: user_id, item_id, clicked, perhaps timestamp.

    Without `service` they are of all services, in a column "service", and so is the past. With
    timestamps the vectors are those before each impression, with `cutoff` (epoch seconds) all are
    of that moment. `probability` is the column of a synthetic world that the clicks were drawn
    from, the oracle's answers, and `world` its directory: what a log tells of the users' latents is
    then read by the same probe.
    """

    name: str
    impressions: Path  # The Parquet table.
    service: str | None = None
    cutoff: float | None = None
    probability: str | None = None
    world: Path | None = None

    def build(self, corpus: Corpus) -> "ClicksTask":
        """Return the task. ValueError where a split has no impression."""
        return ClicksTask(self, corpus)


def read_impressions(corpus: Corpus, config: ClicksConfig) -> Impressions:
    """Return the impressions of known users and items, in the order of the file.

    Raises as `read_table` and `check_times` do, and ValueError where none is known.
    """
    file = config.impressions
    kinds: dict[str, ColumnKind] = {"user_id": "id", "item_id": "id", "clicked": "number"}
    if config.service is None:
        kinds["service"] = "text"
    if config.probability is not None:
        kinds[config.probability] = "number"
    timed = config.cutoff is None and file.is_file() and "timestamp" in columns_of(log_file(file))
    if timed:
        kinds["timestamp"] = "time"
    table = read_table(file, kinds)
    users = rows_of(table["user_id"], corpus.user_ids.to_pylist(), f"{file}: user_id", corpus)
    items = np.full(len(users), -1)
    for service in corpus.services if config.service is None else [config.service]:
        here = np.flatnonzero(corpus.item_service == service_of(corpus, service))
        shown = np.ones(len(users), bool)
        if config.service is None:
            shown = table["service"].to_numpy() == service
        rows = np.flatnonzero(shown)
        names = corpus.item_ids.take(pa.array(here)).to_pylist()
        of_service = table["item_id"].take(pa.array(rows))
        position = rows_of(of_service, names, f"{file}: item_id of {service}", corpus)
        items[rows[position >= 0]] = here[position[position >= 0]]
    known = np.flatnonzero((users >= 0) & (items >= 0))
    if not len(known):
        raise ValueError(
            f"{file}: no impression of a user and an item of {config.service or 'any service'} in "
            f"{corpus.path}; are the ids the same?"
        )
    moment = np.inf if config.cutoff is None else config.cutoff
    cutoff = table["timestamp"].to_numpy() if timed else np.full(len(users), moment)
    if timed:
        for service in corpus.services if config.service is None else [config.service]:
            check_times(corpus, service, cutoff[known], f"{file}: timestamp")
    clicked = table["clicked"].to_numpy().astype(np.int64)
    chance = table[config.probability].to_numpy() if config.probability else cutoff * np.nan
    return take(Impressions(users, items, cutoff, clicked, chance), known)


class ClicksTask:
    """Impressions of held-out users; see `ClicksConfig`."""

    version, family = 4, "click"  # 4: counts of the item, and similarities in each block
    probes: tuple[Probe, ...] = ("linear", "vector alone", "mlp")

    def __init__(self, config: ClicksConfig, corpus: Corpus) -> None:
        """Read the impressions."""
        self.name, self.config, self.corpus = config.name, config, corpus
        shown = read_impressions(corpus, config)
        split = corpus.split[shown.users]
        self.parts = [take(shown, split == number) for number in range(3)]
        for part, called in zip(self.parts, ("training", "valid", "test"), strict=True):
            if not 0 < part.clicked.sum() < len(part.clicked):
                raise ValueError(
                    f"{config.name}: the {called} users have {len(part.clicked)} impressions, "
                    f"{part.clicked.sum()} of them clicked; both kinds are needed"
                )
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "impressions": sha256(config.impressions),
            "service": config.service,
            "counts": [len(part.users) for part in self.parts],
            "base_rate_of_test": float(self.parts[2].clicked.mean()),
            "cutoff": config.cutoff,
        }
        self.services = None if config.service is None else [config.service]
        self._features = lru_cache(maxsize=1)(self._read)

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return the oracle where there is one, the base rate, and rates, alone and beside CLUE."""
        train, valid, test = self.parts
        source = self.recipe["impressions"][:8]
        prior = class_shares(train.clicked, np.zeros(len(train.clicked)))[0]
        given: list[Model | TaskBaseline] = [
            FixedScores("prior", np.tile(prior, (len(test.clicked), 1)), source)
        ]
        if self.config.probability:
            chance = np.stack([1 - test.probability, test.probability], axis=1)
            given.insert(0, FixedScores(ORACLE, chance, source))
        rates = [ClickRates(self.corpus, train, valid, activity=each) for each in (False, True)]
        if self.config.world is not None:
            given.append(LogOracle(Oracle(self.config.world, self.corpus)))
        return [*given, *rates, *beside(models, LogCounts(self.corpus))]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return whether it has vectors of users; the baselines need but one probe."""
        if isinstance(model, FixedScores | ClickRates):
            return probe == "linear"
        return has_vectors(model)

    def _past(self, part: Impressions) -> tuple[Snapshot, np.ndarray]:
        """Return the past of each user and moment, and which of them each impression has."""
        pairs, row = np.unique(np.stack([part.users, part.cutoff]), axis=1, return_inverse=True)
        past = snapshot_at(self.corpus, pairs[0].astype(np.int64), pairs[1], self.services)
        return past, row

    @cached_property
    def rate(self) -> ClickRates:
        """The rates that every probe but "vector alone" reads."""
        return ClickRates(self.corpus, self.parts[0], self.parts[1], activity=False)

    @cached_property
    def _counts(self) -> list[np.ndarray]:
        """Logarithms (n, 2) of how often each part's items were shown in training, and of events.

        Of a training user's impression the others' are counted, as its rate is theirs; the events
        are those of training users before the moment.
        """
        corpus, users = self.corpus, self.corpus.users_in("train")
        read = snapshot_at(corpus, users, services=self.services).parts
        event_items = np.concatenate([items.values for items, _ in read])
        times = np.concatenate([times.values for _, times in read])
        events = Timeline(event_items, times, np.ones(len(event_items)))
        return [
            np.log1p(np.stack([shown, events.before(part.items, part.cutoff)[0]], axis=1))
            for part, shown in zip(self.parts, self.rate.shown(self.parts), strict=True)
        ]

    def _rates_of(self, rates: ClickRates) -> list[np.ndarray]:
        """Return the log odds (n, 1) of the items of each part."""
        others = [rates.items()[part.items] for part in self.parts[1:]]
        return [rates.training_items(), *others]

    def _read(self, model: Model) -> tuple[list[np.ndarray], Mapping[str, slice]]:
        """Return [u, i, u * i] (n, F) of the impressions of each part, or [u], and its blocks."""
        each = [(part.items, *self._past(part)) for part in self.parts]
        read = [pair_features(model, model.users(past)[row], items) for items, past, row in each]
        return [x for x, _ in read], read[0][1]

    def _read_rates(self, model: ClickRates) -> list[np.ndarray]:
        """Return [u, i, u * i] (n, 3), i being no rate of the user's own clicks in training."""
        features: list[np.ndarray] = []
        for part, rates in zip(self.parts, self._rates_of(model), strict=True):
            past, row = self._past(part)
            u = model.users(past)[row]
            features.append(np.concatenate([u, rates, u * rates], axis=1).astype(np.float32))
        return features

    def _inputs(self, model: Model, probe: Probe) -> tuple[list[np.ndarray], Mapping[str, slice]]:
        """Return what a probe reads of each part, and its blocks."""
        if isinstance(model, ClickRates):
            return self._read_rates(model), WHOLE
        x, blocks = self._features(model)
        if probe == "vector alone":
            return x, blocks if len(model.blocks) > 1 else WHOLE
        width = x[0].shape[1]
        counted = zip(x, self._rates_of(self.rate), self._counts, strict=True)
        known = [np.concatenate(each, axis=1, dtype=np.float32) for each in counted]
        more = {"item rate": slice(width, width + 1), "item counts": slice(width + 1, width + 3)}
        return known, {**blocks, **more}

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each impression of a user of the test split."""
        train, valid, _ = self.parts
        if isinstance(model, FixedScores):
            return self._scored(model.answers, {})
        x, blocks = self._inputs(model_of(model), probe)
        parts = (x[0], train.clicked), (x[1], valid.clicked), x[2]
        named = "linear" if probe == "vector alone" else probe
        predicted = predict(named, "class", *parts, blocks=blocks)
        rates = model if isinstance(model, ClickRates) else self.rate
        smoothing = {} if probe == "vector alone" else {"smoothing": rates.smoothing}
        return self._scored(predicted.values, {**predicted.chosen, **smoothing})

    def _scored(self, values: np.ndarray, chosen: Mapping[str, Any]) -> Scored:
        test, corpus = self.parts[2], self.corpus
        past, row = self._past(test)
        counts = np.sum([popularity(corpus, s) for s in range(len(corpus.services))], axis=0)
        services = pa.array(corpus.services).take(pa.array(corpus.item_service[test.items]))
        columns = {
            "user_id": self.corpus.user_ids.take(pa.array(test.users)),
            "score": values[:, 1],
            "label": test.clicked,
            "loss": class_losses(values, test.clicked),
            "slice history": history_slice(past.lengths[row]),
            "slice item": popularity_slice(counts[test.items]),
        }
        if self.services is None:
            columns["slice service"] = services
        return Scored(pa.table(columns), MEASURES, chosen)
