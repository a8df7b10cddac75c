"""Does an active user come back within days? The opposite of churn, from a log of clicks alone.

Split by time for everybody: the probe is fitted on training users at one moment and chosen on valid
ones at the same, and asked of users at a later moment: "seen" ones, whom pretraining read up to the
first moment, and "unseen". A user is asked who was active in the days before. The past ends at the
moment; the labels are the events of the days from it on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.baselines.feature_rows import FeatureRows, answers, beside, supports
from benchmarks.baselines.interactions import bounded
from benchmarks.baselines.representations import FixedScores
from benchmarks.baselines.visits import GROUPS, counted
from benchmarks.datasets.label_tables import service_of
from benchmarks.metrics.calibration import class_losses
from benchmarks.protocols import Measure, Model, Probe, Scored, TaskBaseline
from benchmarks.query_columns import history_slice, seen_slice
from benchmarks.snapshot import Snapshot, snapshot_at
from clue.data.corpus import Corpus

DAY = 86_400.0
MEASURES = {
    "AUROC": Measure("auroc", ("score", "label")),
    "AP": Measure("average_precision", ("score", "label")),
    "log loss": Measure("mean", ("loss",), lower_is_better=True),
    "ECE": Measure("ece", ("score", "label"), lower_is_better=True),
}


@dataclass(frozen=True, kw_only=True)
class ReturnsConfig:
    """An event of a `service` in the `days` from a moment on, of those active before it.

    Active is an event in the `active_days` before. The probe is fitted at `fitted_at` and asked at
    `opens`, epoch seconds, at least `days` later; pretraining must have read nothing from
    `fitted_at` on. `most` users fit it and as many are asked, the first of a fixed shuffle.
    """

    name: str
    fitted_at: float
    opens: float
    service: str = "globo"
    days: float = 2.0
    active_days: float = 7.0
    most: int = 20_000

    def build(self, corpus: Corpus) -> "ReturnsTask":
        """Return the task. ValueError for moments that do not fit the log or each other."""
        return ReturnsTask(self, corpus)


@dataclass(frozen=True)
class Moment:
    """The active users at a moment, rows of the corpus (n,), their pasts, and who returned (n,)."""

    users: np.ndarray
    past: Snapshot
    labels: np.ndarray


class ReturnsTask:
    """The active users at two moments; see `ReturnsConfig`."""

    version, family = 1, "return"
    probes: tuple[Probe, ...] = ("linear", "lightgbm")

    def __init__(self, config: ReturnsConfig, corpus: Corpus) -> None:
        """Find the users and their labels."""
        self.name, self.config, self.corpus = config.name, config, corpus
        if config.opens < config.fitted_at + config.days * DAY:
            raise ValueError(
                f"{config.name}: opens={config.opens:.0f} is less than {config.days:g} days after "
                f"fitted_at={config.fitted_at:.0f}; labels and pasts must not overlap"
            )
        last = float(corpus.timestamps_of(service_of(corpus, config.service)).values.max())
        if last < config.opens + (config.days - 1) * DAY:
            raise ValueError(
                f"{config.name}: the log of {config.service} ends at {last:.0f}, before the "
                f"{config.days:g} days from opens={config.opens:.0f} on; take an earlier moment"
            )
        split = corpus.split
        self.parts = [
            self._moment(moment, users)
            for moment, users in (
                (config.fitted_at, split == 0),
                (config.fitted_at, split == 1),
                (config.opens, split >= 0),
            )
        ]
        for part, called in zip(self.parts, ("training", "valid", "test"), strict=True):
            if not 0 < part.labels.sum() < len(part.labels):
                raise ValueError(
                    f"{config.name}: {len(part.labels)} active {called} users, "
                    f"{part.labels.sum()} of whom return; both kinds are needed"
                )
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            **{name: getattr(config, name) for name in ("service", "fitted_at", "opens")},
            "days": config.days,
            "active_days": config.active_days,
            "users": [len(part.users) for part in self.parts],
            "base_rate_of_test": float(self.parts[2].labels.mean()),
        }
        self._vectors = lru_cache(maxsize=1)(self._read)

    def _moment(self, moment: float, users: np.ndarray) -> Moment:
        """Return the active ones of `users` (U,) at a moment."""
        config, number = self.config, service_of(self.corpus, self.config.service)
        times = self.corpus.timestamps_of(number)
        user = np.repeat(np.arange(len(times)), times.lengths)

        def some_between(start: float, end: float) -> np.ndarray:
            inside = (times.values >= start) & (times.values < end)
            return np.bincount(user[inside], minlength=len(times)) > 0

        active = np.flatnonzero(users & some_between(moment - config.active_days * DAY, moment))
        shuffled = np.random.default_rng(0).permutation(len(active))[: config.most]
        active = active[np.sort(shuffled)]
        labels = some_between(moment, moment + config.days * DAY)[active].astype(np.int64)
        past = snapshot_at(self.corpus, active, moment, [config.service])
        return Moment(active, past, labels)

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return the prior, groups of counts, all by a line and by trees, and beside CLUE."""
        share = self.parts[0].labels.mean()
        prior = np.tile([1 - share, share], (len(self.parts[2].labels), 1))
        return [
            FixedScores("prior", prior, self.corpus.fingerprint),
            *(FeatureRows(name, (name,), "linear") for name in GROUPS),
            FeatureRows("aggregates", GROUPS, "linear"),
            FeatureRows("aggregates (trees)", GROUPS, "lightgbm"),
            *beside(models, GROUPS),
        ]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return whether a vector is asked, or a rival by its own probe."""
        return supports(model, probe)

    @cached_property
    def columns(self) -> list[dict[str, np.ndarray]]:
        """The columns of each group of counts, for the users of each part (n, k)."""
        number = service_of(self.corpus, self.config.service)
        return [counted(part.past, number) for part in self.parts]

    def _read(self, model: Model) -> tuple[list[np.ndarray], Mapping[str, slice]]:
        vectors = [model.users(part.past) for part in self.parts]
        return vectors, bounded(model.blocks, vectors[0].shape[1])

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each active user of the later moment."""
        labels = self.parts[0].labels, self.parts[1].labels
        predicted = answers(model, probe, (), self.columns, self._vectors, labels)
        return self._scored(predicted.values, predicted.chosen)

    def _scored(self, values: np.ndarray, chosen: Mapping[str, Any]) -> Scored:
        test = self.parts[2]
        columns = {
            "user_id": self.corpus.user_ids.take(pa.array(test.users)),
            "score": values[:, 1],
            "label": test.labels,
            "loss": class_losses(values, test.labels),
            "slice user": seen_slice(self.corpus.split[test.users]),
            "slice history": history_slice(test.past.lengths),
        }
        return Scored(pa.table(columns), MEASURES, chosen)
