"""Tasks over all services of a synthetic world at once: the next item, clicks as a window opens.

The row "oracle" answers with the probabilities that the world drew from. Matching and labels of
such a world are the ordinary tasks: `world` of tasks/matching, `probability` of tasks/attributes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from benchmarks.baselines.oracle import ORACLE, Oracle, TrueLatents, last_events
from benchmarks.baselines.probe_head import probe as fit_probe
from benchmarks.baselines.representations import Concatenated, FixedScores, class_shares
from benchmarks.baselines.tfidf import popularity
from benchmarks.metrics.calibration import class_losses
from benchmarks.protocols import (
    Measure,
    Model,
    Probe,
    Scored,
    Task,
    TaskBaseline,
    history_slice,
    popularity_slice,
)
from benchmarks.snapshot import Snapshot, snapshot_at
from clue.data.corpus import Corpus
from clue.evaluation.ranking import rank
from clue.synthetic.labels import places

RANKING = {
    "NDCG@10": Measure("mean", ("ndcg_10",)),
    "HR@10": Measure("mean", ("hit_10",)),
    "MRR": Measure("mean", ("reciprocal",)),
}
CLICKS = {
    "AUC": Measure("auroc", ("score", "label")),
    "gAUC": Measure("gauc", ("score", "label")),
    "log loss": Measure("mean", ("loss",), lower_is_better=True),
}


@dataclass(frozen=True, kw_only=True)
class SyntheticTaskConfig:
    """What is asked of the world in the directory `world`, of which the suite's corpus is."""

    name: str
    task: Literal["next item", "clicks"]
    world: Path = Path("data/mini")

    def build(self, corpus: Corpus) -> Task:
        """Return the task. FileNotFoundError without a world, ValueError for another's corpus."""
        truth = Oracle(self.world, corpus)
        made = NextItemTask if self.task == "next item" else ClicksTask
        return made(self.name, truth)


class Popular:
    """The popularity of the items among training users, as a model of one dimension."""

    name, seed = "popularity", 0

    def __init__(self, corpus: Corpus) -> None:
        """Counts the training users' events."""
        self.fingerprint = f"popularity-{corpus.fingerprint}"
        services = range(len(corpus.services))
        self.counts = np.sum([popularity(corpus, s) for s in services], axis=0)[:, None]

    def users(self, past: Snapshot) -> np.ndarray:
        """Return the same for everybody, (n, 1)."""
        return np.ones((len(past), 1))

    def items(self) -> np.ndarray:
        """Return the counts (num_items, 1)."""
        return self.counts


class NextItemTask:
    """The last event of every held-out user, among all items of its service, seen ones too.

    Her past is all that she did before, in any service. In this world nobody tires of an item, so
    that what was seen stays in the ranking.
    """

    version, family = 1, "next item"
    probes: tuple[Probe, ...] = ("zero-shot",)

    def __init__(self, name: str, truth: Oracle) -> None:
        """Finds the last events of those who have one before it."""
        self.name, self.truth, self.corpus = name, truth, truth.corpus
        users = np.flatnonzero(self.corpus.split > 0)
        services = range(len(self.corpus.services))
        lengths = np.sum([self.corpus.items_of(s).lengths for s in services], axis=0)
        users = users[lengths[users] > 1]
        self.service, self.target, cutoff = last_events(self.corpus, users)
        self.past = snapshot_at(self.corpus, users, cutoff)
        self.recipe: Mapping[str, Any] = {
            "corpus": self.corpus.fingerprint,
            "truth": truth.fingerprint,
            "queries": len(users),
        }

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return the oracle and popularity."""
        return [TrueLatents(self.truth), Popular(self.corpus)]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Says yes to every model that has vectors of users and of items."""
        return hasattr(model, "users") and not isinstance(model, Concatenated)

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each user."""
        users = model.users(self.past)  # pyright: ignore[reportAttributeAccessIssue]
        items: np.ndarray = model.items()  # pyright: ignore[reportAttributeAccessIssue, reportAssignmentType]
        parts: list[pa.Table] = []
        for number, service in enumerate(self.corpus.services):
            rows = np.flatnonzero(self.service == number)
            catalogue = np.flatnonzero(self.corpus.item_service == number)
            target = self.target[rows]
            found = rank(users[rows], items[catalogue], np.searchsorted(catalogue, target))
            past = self.past.some(rows)
            columns = {
                "user_id": self.corpus.user_ids.take(pa.array(past.users)),
                "ndcg_10": found.ndcg(10),
                "hit_10": found.hit(10),
                "reciprocal": found.reciprocal(),
                "slice service": pa.array([service] * len(rows)),
                "slice history": history_slice(past.lengths),
                "slice popularity": popularity_slice(popularity(self.corpus, number)[target]),
            }
            parts.append(pa.table(columns))
        return Scored(pa.concat_tables(parts), RANKING)


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
        prior = class_shares(self.clicked, self.split)
        return [
            FixedScores(ORACLE, self.probability, self.truth.fingerprint),
            FixedScores("prior", prior, self.truth.fingerprint),
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
            "loss": class_losses(found, self.clicked[test]),
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
