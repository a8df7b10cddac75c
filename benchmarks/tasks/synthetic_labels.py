"""Tasks of a synthetic world that a probe answers: who stops, who is what, who clicks on what.

The probe (standardised logistic regression) is fitted on training users and chosen on valid ones;
test users are scored once. The oracle's answers are the probabilities that the labels came from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.baselines.oracle import ORACLE, Oracle
from benchmarks.baselines.probe_head import probe as fit_probe
from benchmarks.baselines.representations import Concatenated
from benchmarks.protocols import (
    Measure,
    Model,
    Probe,
    Scored,
    TaskBaseline,
    history_slice,
    matrix,
)
from benchmarks.snapshot import Snapshot, snapshot_at
from clue.synthetic.labels import places

LOSS = Measure("mean", ("loss",), lower_is_better=True)
BINARY = {"AUROC": Measure("auroc", ("score", "label")), "log loss": LOSS}
CLASSES = {
    "AUROC": Measure("macro_auroc", ("scores", "label")),
    "log loss": LOSS,
    "accuracy": Measure("mean", ("right",)),
}
CLICKS = {
    "AUC": Measure("auroc", ("score", "label")),
    "gAUC": Measure("gauc", ("score", "label")),
    "log loss": LOSS,
}


class FixedScores:
    """A baseline whose answers are given: the truth, or each class' share of the training users.

    `answers` (Q, C) are the class probabilities of all queries of its task.
    """

    seed = 0

    def __init__(self, name: str, answers: np.ndarray, truth: Oracle) -> None:
        """Keeps them."""
        self.name, self.answers = name, answers
        self.fingerprint = f"{name}-{truth.fingerprint}"


class Counts:
    """The logarithms of a user's numbers of events: how much she did, and nothing of what."""

    name, seed, fingerprint = "log counts", 0, "log-counts"

    def users(self, past: Snapshot) -> np.ndarray:
        """Return a column (n, S + 1) for each service and for all together."""
        counts = [*(items.lengths for items, _ in past.parts), past.lengths]
        return np.log1p(np.stack(counts, axis=1))

    def items(self) -> np.ndarray | None:
        """Return None: it says nothing of items."""
        return None


@dataclass(frozen=True)
class Labels:
    """What every user of the corpus is, `label` (N,) in 0 .. C-1, and with which `probability`.

    `cutoff` is the moment that is not past any more; `probability` (N, C).
    """

    family: str
    label: np.ndarray
    probability: np.ndarray
    cutoff: float
    measures: Mapping[str, Measure]


def churn(truth: Oracle) -> Labels:
    """Return who stops as the window opens; nothing after that may be read."""
    table = truth.table("outcomes")
    rows = truth.rows(table["user_id"], truth.corpus.user_ids)
    stops = table["churn_probability"].to_numpy()[rows]
    both = np.stack([1 - stops, stops], axis=1)
    label = table["churned"].to_numpy()[rows].astype(np.int64)
    return Labels("churn", label, both, truth.config.window_start, BINARY)


def attributes(truth: Oracle) -> Labels:
    """Return each user's class, of which her whole log speaks."""
    table = truth.table("outcomes")
    rows = truth.rows(table["user_id"], truth.corpus.user_ids)
    of_class = table["attribute_probability"].combine_chunks().flatten().to_numpy()
    of_class = of_class.reshape(table.num_rows, -1)[rows]
    label = table["attribute"].to_numpy()[rows].astype(np.int64)
    return Labels("attribute", label, of_class, np.inf, CLASSES)


class LabelTask:
    """One label of each user, read from her vector as of a moment."""

    version = 1
    probes: tuple[Probe, ...] = ("linear",)

    def __init__(self, name: str, truth: Oracle, labels: Labels) -> None:
        """Cuts the pasts."""
        self.name, self.truth, self.labels = name, truth, labels
        self.family, corpus = labels.family, truth.corpus
        self.past = snapshot_at(corpus, np.arange(corpus.num_users), labels.cutoff)
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "truth": truth.fingerprint,
            "until": str(labels.cutoff),
        }

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return the oracle, the classes' shares, and the numbers of events."""
        label, split = self.labels.label, self.truth.corpus.split
        return [
            FixedScores(ORACLE, self.labels.probability, self.truth),
            FixedScores("prior", shares(label, split), self.truth),
            Counts(),
        ]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Says yes to all that have vectors of users, and to what is stated."""
        return hasattr(model, "users") or isinstance(model, FixedScores)

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each test user."""
        label, split = self.labels.label, self.truth.corpus.split
        if isinstance(model, FixedScores):
            found, chosen = model.answers[split == 2], {}
        else:
            x = model.users(self.past)  # pyright: ignore[reportAttributeAccessIssue]
            found, chosen = probed(x, label, split)
        test, answers = np.flatnonzero(split == 2), label[split == 2]
        columns = {
            "user_id": self.truth.corpus.user_ids.take(pa.array(test)),
            "label": answers,
            "score": found[:, 1],
            "scores": matrix(found),
            "loss": losses(found, answers),
            "right": (found.argmax(axis=1) == answers).astype(np.float64),
            "slice history": history_slice(self.past.lengths[test]),
        }
        return Scored(pa.table(columns), self.labels.measures, chosen)


class ClicksTask:
    """Impressions in the window: a probe of [user, item, user * item] as the window opens."""

    version, family = 1, "clicks"
    probes: tuple[Probe, ...] = ("linear",)

    def __init__(self, name: str, truth: Oracle) -> None:
        """Reads the impressions; users without any event are in no corpus and are left out."""
        self.name, self.truth, corpus = name, truth, truth.corpus
        known = truth.table("impressions")
        user = places(corpus.user_ids, known["user_id"])
        known, self.user = known.filter(pa.array(user >= 0)), user[user >= 0]
        self.item = places(corpus.item_ids, known["item_id"])
        self.clicked = known["clicked"].to_numpy().astype(np.int64)
        clicks = known["probability"].to_numpy()
        self.probability = np.stack([1 - clicks, clicks], axis=1)
        self.split = corpus.split[self.user]
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "truth": truth.fingerprint,
            "impressions": len(self.user),
        }

    @cached_property
    def past(self) -> Snapshot:
        """Every user's events before the window."""
        corpus = self.truth.corpus
        return snapshot_at(corpus, np.arange(corpus.num_users), self.truth.config.window_start)

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return the oracle and the share of clicks."""
        prior = shares(self.clicked, self.split)
        return [
            FixedScores(ORACLE, self.probability, self.truth),
            FixedScores("prior", prior, self.truth),
        ]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Says yes to all that have vectors of users and items, and to what is stated."""
        has_items = hasattr(model, "users") and not isinstance(model, Concatenated)
        return has_items or isinstance(model, FixedScores)

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each impression of a test user."""
        if isinstance(model, FixedScores):
            found, chosen = model.answers[self.split == 2], {}
        else:
            user = model.users(self.past)[self.user]  # pyright: ignore[reportAttributeAccessIssue]
            items: np.ndarray = model.items()  # pyright: ignore[reportAttributeAccessIssue, reportAssignmentType]
            item = items[self.item]
            x = np.concatenate([user, item, user * item], axis=1)
            found, chosen = probed(x, self.clicked, self.split)
        test, corpus = self.split == 2, self.truth.corpus
        services = pa.array(corpus.services)
        columns = {
            "user_id": corpus.user_ids.take(pa.array(self.user[test])),
            "label": self.clicked[test],
            "score": found[:, 1],
            "loss": losses(found, self.clicked[test]),
            "slice service": services.take(pa.array(corpus.item_service[self.item[test]])),
            "slice history": history_slice(self.past.lengths[self.user[test]]),
        }
        return Scored(pa.table(columns), CLICKS, chosen)


def probed(
    x: np.ndarray, label: np.ndarray, split: np.ndarray
) -> tuple[np.ndarray, dict[str, float]]:
    """Return class probabilities (n, C) of the test rows of `x` (Q, F), and the probe's choice."""
    train, valid, test = (split == number for number in range(3))
    found = fit_probe((x[train], label[train]), (x[valid], label[valid]), x[test])
    return found.probabilities, {"C": found.strength}


def shares(label: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Return each class's share among the training rows, for every row, (Q, C)."""
    count = np.bincount(label[split == 0], minlength=int(label.max()) + 1)
    return np.tile(count / count.sum(), (len(label), 1))


def losses(probabilities: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return -log of each row's probability of its label, (n,) in nats."""
    return -np.log(np.maximum(probabilities[np.arange(len(label)), label], 1e-12))
