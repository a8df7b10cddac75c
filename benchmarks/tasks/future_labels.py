"""What users of a shop do next: leave (churn), buy a product (propensity), spend.

The end of the log is three windows: train, valid and test labels. The vectors are those of each
window's start, of users who bought in the `active_days` before it. The probe is fitted on users of
the training split in the first window, chosen in the second on those outside the test split, and
scored on all active users in the third: "seen" ones, whom pretraining read, and "unseen".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from benchmarks.baselines.concatenated import beside
from benchmarks.baselines.probes import Target, predict
from benchmarks.baselines.transactions import DAY, Aggregates, Sales, read_sales, top_items
from benchmarks.datasets.label_tables import service_of
from benchmarks.metrics.calibration import log_losses
from benchmarks.protocols import Measure, Model, Probe, Scored, TaskBaseline, has_vectors, model_of
from benchmarks.query_columns import history_slice, matrix, seen_slice
from benchmarks.snapshot import Snapshot, snapshot_at
from clue.data.corpus import Corpus

Label = Literal["churn", "propensity", "spend"]
TARGETS: Mapping[Label, Target] = {"churn": "class", "propensity": "labels", "spend": "number"}
MEASURES: Mapping[Label, Mapping[str, Measure]] = {
    "churn": {
        "AUROC": Measure("auroc", ("score", "label")),
        "AP": Measure("average_precision", ("score", "label")),
        "log loss": Measure("mean", ("loss",), lower_is_better=True),
        "ECE": Measure("ece", ("score", "label"), lower_is_better=True),
    },
    "propensity": {"mean AUROC": Measure("mean_auroc", ("scores", "labels"))},
    "spend": {
        "R2": Measure("r2", ("predicted", "label")),
        "Spearman": Measure("spearman", ("predicted", "label")),
        "MAE": Measure("mean", ("error",), lower_is_better=True),
    },
}


@dataclass(frozen=True, kw_only=True)
class WindowsConfig:
    """A label of the sales in a window, from the table `sales` of a service's sales.

    churn: no sale. propensity: whether each of the `labels` items with the most buyers before all
    windows is bought. spend: log(1 + money). A window is `window_days` long: 28 is the median
    number of days between two visits to the shop of Online Retail II. Pretraining has read nothing
    of the service from `pretrained_until` (epoch seconds) on.
    """

    name: str
    label: Label
    sales: Path
    service: str = "retail"  # The service of the sales.
    window_days: int = 28
    active_days: int = 180  # Asked of users who bought in so many days before the window.
    labels: int = 50
    pretrained_until: int = 1_284_595_200

    def build(self, corpus: Corpus) -> "WindowsTask":
        """Return the task. ValueError for windows that do not fit the log or the pretraining."""
        return WindowsTask(self, corpus)


@dataclass(frozen=True)
class Window:
    """The active users at its start, as rows of the corpus (n,), their pasts and labels."""

    users: np.ndarray
    past: Snapshot
    labels: np.ndarray


class WindowsTask:
    """The users of a shop in three windows; see `WindowsConfig`."""

    version = 2  # 2: a penalty for each block
    probes: tuple[Probe, ...] = ("linear", "lightgbm", "mlp")

    def __init__(self, config: WindowsConfig, corpus: Corpus) -> None:
        """Find the users and their labels."""
        self.name, self.family, self.config, self.corpus = config.name, config.label, config, corpus
        self.sales = read_sales(corpus, config.sales)
        starts = _starts(config, corpus, self.sales)
        self.products = top_items(self.sales, starts[0], config.labels)
        # Users of the train split; without those of the test split; all.
        self.windows = [
            self._window(start, below) for start, below in zip(starts, (1, 2, 3), strict=True)
        ]
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "sales": self.sales.source,
            "label": config.label,
            "starts": starts,
            "active_days": config.active_days,
            "labels": config.labels,
            "users": [len(window.users) for window in self.windows],
        }
        self._vectors = lru_cache(maxsize=1)(self._read)

    def _window(self, start: float, below: int) -> Window:
        config, everybody = self.config, np.flatnonzero(self.corpus.split < below)
        before = start - config.active_days * DAY
        users = everybody[self.sales.between(everybody, before, np.array(start)).lengths > 0]
        if not len(users):
            raise ValueError(
                f"{config.name}: no user bought in the {config.active_days} days before "
                f"{start:.0f}; the log must be longer, or window_days less"
            )
        end = np.array(start + config.window_days * DAY)
        labels = _labels(config.label, self.sales, users, (start, end), self.products)
        return Window(users, snapshot_at(self.corpus, users, start, [config.service]), labels)

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return the aggregates, alone and beside every trained encoder."""
        counts = Aggregates(self.sales, self.products)
        return [counts, *beside(models, counts)]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return whether the row has vectors of users."""
        return has_vectors(model)

    def _read(self, model: Model) -> list[np.ndarray]:
        return [model.users(window.past) for window in self.windows]

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each active user of the test window."""
        train, valid, test = self.windows
        given = model_of(model)
        x = self._vectors(given)
        label = self.config.label
        parts = (x[0], train.labels), (x[1], valid.labels), x[2]
        predicted = predict(probe, TARGETS[label], *parts, blocks=given.blocks)
        columns = {
            "user_id": self.corpus.user_ids.take(pa.array(test.users)),
            **_answers(label, predicted.values, test.labels),
            "slice user": seen_slice(self.corpus.split[test.users]),
            "slice history": history_slice(test.past.lengths),
        }
        return Scored(pa.table(columns), MEASURES[label], predicted.chosen)


def _starts(config: WindowsConfig, corpus: Corpus, sales: Sales) -> list[float]:
    """Return the starts of the three windows that end with the log, in epoch seconds."""
    end = float(sales.time.max()) + 1
    last = corpus.timestamps_of(service_of(corpus, config.service)).values.max()
    if abs(last - sales.time.max()) > DAY:
        raise ValueError(
            f"{config.name}: the last sale is at {sales.time.max():.0f}, the last event of "
            f"{config.service} in {corpus.path} at {last:.0f}; both must be of one log"
        )
    starts = [end - back * config.window_days * DAY for back in (3, 2, 1)]
    if starts[0] < config.pretrained_until:
        raise ValueError(
            f"{config.name}: the first window begins at {starts[0]:.0f}, but pretraining read "
            f"{config.service} until {config.pretrained_until}; make window_days less"
        )
    return starts


def _labels(
    label: Label,
    sales: Sales,
    users: np.ndarray,
    window: tuple[float, np.ndarray],
    products: np.ndarray,
) -> np.ndarray:
    """Return the labels of `users` (n,) in start <= time < end: (n,), of propensity (n, L)."""
    rows = sales.between(users, *window)
    if label == "churn":
        return (rows.lengths == 0).astype(np.int64)
    user = np.repeat(np.arange(len(users)), rows.lengths)
    if label == "spend":
        return np.log1p(np.bincount(user, sales.money[rows.values], minlength=len(users)))
    bought = np.zeros((len(users), len(sales.items)), bool)
    bought[user, sales.item[rows.values]] = True
    return bought[:, products].astype(np.int64)


def _answers(label: Label, values: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    if label == "churn":
        loss = log_losses(values[:, 1], truth)
        return {"score": values[:, 1], "label": truth, "loss": loss}
    if label == "propensity":
        return {"scores": matrix(values), "labels": matrix(truth)}
    return {"predicted": values, "label": truth, "error": np.abs(values - truth)}
