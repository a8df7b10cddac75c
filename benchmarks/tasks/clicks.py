"""Will this user click this item? A linear model on [u, i, u * i] of frozen vectors.

The click of games (Steam) is a game that was bought and then played. Users of the training split
fit the probe, valid ones choose it, those of test are scored. `u` is the user's vector as of the
impression, or of all her events where impressions have no time; `i` is the model's own vector of
the item; a model without items has [u] alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.baselines.oracle import ORACLE
from benchmarks.baselines.probes import predict
from benchmarks.baselines.representations import FixedScores, class_shares
from benchmarks.baselines.tfidf import popularity
from benchmarks.datasets.label_tables import (
    check_times,
    read_table,
    rows_of,
    service_of,
)
from benchmarks.metrics.calibration import class_losses, log_losses
from benchmarks.protocols import (
    Measure,
    Model,
    Probe,
    Scored,
    TaskBaseline,
    history_slice,
    popularity_slice,
)
from benchmarks.snapshot import Snapshot, snapshot_at
from clue.atomic import sha256
from clue.data.corpus import Corpus
from clue.data.ingest.files import log_file
from clue.data.ingest.readers import columns_of
from clue.data.ingest.table import ColumnKind

SMOOTHING = (1.0, 3.0, 10.0, 30.0, 100.0)  # impressions at the mean rate that an item starts with
FOLDS = 5
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
    from, the oracle's answers. `mlp_width` is that of the published probe.
    """

    name: str
    impressions: Path
    service: str | None = None
    mlp_width: int = 2048
    cutoff: float | None = None
    probability: str | None = None

    def build(self, corpus: Corpus) -> "ClicksTask":
        """Return the task. ValueError where a split has no impression."""
        return ClicksTask(self, corpus)


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

    def some(self, rows: np.ndarray) -> "Impressions":
        """Return those in `rows`."""
        return Impressions(
            *(self.users[rows], self.items[rows], self.cutoff[rows]),
            *(self.clicked[rows], self.probability[rows]),
        )


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
        found = rows_of(of_service, names, f"{file}: item_id of {service}", corpus)
        items[rows[found >= 0]] = here[found[found >= 0]]
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
    return Impressions(users, items, cutoff, clicked, chance).some(known)


class ClickRates:
    """The baseline that knows no vectors: the smoothed click rate of an item among training users.

    With `activity` the log of the user's number of events stands beside it.
    """

    seed = 0

    def __init__(
        self, corpus: Corpus, train: Impressions, valid: Impressions, *, activity: bool
    ) -> None:
        """Chooses the smoothing by the log loss on `valid`."""
        self.name = "item rate + activity" if activity else "item rate"
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

    def training_items(self) -> np.ndarray:
        """Return those of the training impressions (n, 1), from the users of the other folds.

        With her own click in it a rate would promise more than it holds for others.
        """
        fold, found = self.train.users % FOLDS, np.empty(len(self.train.users))
        for number in range(FOLDS):
            mine = fold == number
            rates = self._rates(self.train.some(~mine), self.smoothing)
            found[mine] = rates[self.train.items[mine]]
        return _log_odds(found)[:, None]


def _log_odds(rates: np.ndarray) -> np.ndarray:
    return np.log(rates / (1 - rates))


class ClicksTask:
    """Impressions of held-out users; see `ClicksConfig`."""

    version, family = 2, "click"  # 2: impressions in the order of the file, an exact prior
    probes: tuple[Probe, ...] = ("linear", "mlp")

    def __init__(self, config: ClicksConfig, corpus: Corpus) -> None:
        """Reads the impressions."""
        self.name, self.config, self.corpus = config.name, config, corpus
        shown = read_impressions(corpus, config)
        split = corpus.split[shown.users]
        self.parts = [shown.some(np.flatnonzero(split == number)) for number in range(3)]
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
            "mlp_width": config.mlp_width,
            "counts": [len(part.users) for part in self.parts],
            "base_rate_of_test": float(self.parts[2].clicked.mean()),
            "cutoff": config.cutoff,
        }
        self.services = None if config.service is None else [config.service]
        self._features = lru_cache(maxsize=1)(self._read)

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return the oracle where there is one, the base rate, and the items' rates."""
        train, valid, test = self.parts
        source = self.recipe["impressions"][:8]
        prior = class_shares(train.clicked, np.zeros(len(train.clicked)))[0]
        given = [FixedScores("prior", np.tile(prior, (len(test.clicked), 1)), source)]
        if self.config.probability:
            chance = np.stack([1 - test.probability, test.probability], axis=1)
            given.insert(0, FixedScores(ORACLE, chance, source))
        rates = [ClickRates(self.corpus, train, valid, activity=each) for each in (False, True)]
        return [*given, *rates]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Says yes to every model that has vectors of users; the baselines need but one probe."""
        if isinstance(model, FixedScores | ClickRates):
            return probe == "linear"
        return hasattr(model, "users")

    def _past(self, part: Impressions) -> tuple[Snapshot, np.ndarray]:
        """Return the past of each user and moment, and which of them each impression has."""
        pairs, whose = np.unique(np.stack([part.users, part.cutoff]), axis=1, return_inverse=True)
        past = snapshot_at(self.corpus, pairs[0].astype(np.int64), pairs[1], self.services)
        return past, whose

    def _read(self, model: Model) -> list[np.ndarray]:
        """Return [u, i, u * i] of the impressions of each part, (n, 3 E) float32, or [u] (n, E)."""
        items, found = model.items(), []
        for number, part in enumerate(self.parts):
            past, whose = self._past(part)
            u = model.users(past)[whose].astype(np.float32)
            if items is None:
                found.append(u)
                continue
            if number == 0 and isinstance(model, ClickRates):
                i = model.training_items()
            else:
                i = items[part.items]
            i = i.astype(np.float32)
            found.append(np.concatenate([u, i, u * i], axis=1))
        return found

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each impression of a user of the test split."""
        train, valid, _ = self.parts
        if isinstance(model, FixedScores):
            return self._scored(model.answers, {})
        x = self._features(model)  # pyright: ignore[reportArgumentType]
        parts = (x[0], train.clicked), (x[1], valid.clicked), x[2]
        found = predict(probe, "class", *parts, width=self.config.mlp_width)
        chosen = dict(found.chosen)
        if isinstance(model, ClickRates):
            chosen["smoothing"] = model.smoothing
        return self._scored(found.values, chosen)

    def _scored(self, values: np.ndarray, chosen: Mapping[str, Any]) -> Scored:
        test, corpus = self.parts[2], self.corpus
        past, whose = self._past(test)
        counts = np.sum([popularity(corpus, s) for s in range(len(corpus.services))], axis=0)
        services = pa.array(corpus.services).take(pa.array(corpus.item_service[test.items]))
        columns = {
            "user_id": self.corpus.user_ids.take(pa.array(test.users)),
            "score": values[:, 1],
            "label": test.clicked,
            "loss": class_losses(values, test.clicked),
            "slice history": history_slice(past.lengths[whose]),
            "slice item": popularity_slice(counts[test.items]),
        }
        if self.services is None:
            columns["slice service"] = services
        return Scored(pa.table(columns), MEASURES, chosen)
