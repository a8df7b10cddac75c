"""The next item of a synthetic world over all services at once, with no probe.

The row "oracle" answers with the probabilities that the world drew from. The other tasks of such a
world are the ordinary ones: `world` of tasks/matching, `probability` of attributes and clicks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.baselines.concatenated import Concatenated
from benchmarks.baselines.oracle import Oracle, TrueLatents, last_events
from benchmarks.baselines.posterior import LogOracle
from benchmarks.baselines.tfidf import popularity
from benchmarks.protocols import (
    Measure,
    Model,
    Probe,
    Scored,
    Task,
    TaskBaseline,
    has_items,
    items_of,
    model_of,
    one_block,
)
from benchmarks.query_columns import history_slice, popularity_slice
from benchmarks.snapshot import Snapshot, snapshot_at
from clue.data.corpus import Corpus
from clue.evaluation.ranking import rank

RANKING = {
    "NDCG@10": Measure("mean", ("ndcg_10",)),
    "HR@10": Measure("mean", ("hit_10",)),
    "MRR": Measure("mean", ("reciprocal",)),
}


@dataclass(frozen=True, kw_only=True)
class SyntheticTaskConfig:
    """What is asked of the world in the directory `world`, of which the suite's corpus is."""

    name: str
    world: Path = Path("data/mini")

    def build(self, corpus: Corpus) -> Task:
        """Return the task. FileNotFoundError without a world, ValueError for another's corpus."""
        return NextItemTask(self.name, Oracle(self.world, corpus))


class Popular:
    """The popularity of the items among training users, as a model of one dimension."""

    name, seed, similarity = "popularity", 0, slice(None)

    def __init__(self, corpus: Corpus) -> None:
        """Count the training users' events."""
        self.fingerprint, self.blocks = f"popularity-{corpus.fingerprint}", one_block(1)
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

    Their past is all that they did before, in any service. In this world nobody tires of an item,
    so that what was seen stays in the ranking.
    """

    version, family = 1, "next item"
    probes: tuple[Probe, ...] = ("zero-shot",)

    def __init__(self, name: str, truth: Oracle) -> None:
        """Find the last events of those who have one before it."""
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
        """Return the oracles of the latents and of the log, and popularity."""
        return [TrueLatents(self.truth), LogOracle(self.truth), Popular(self.corpus)]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return whether the row has vectors of users and of items."""
        return has_items(model) and not isinstance(model, Concatenated)

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each user."""
        given = model_of(model)
        users, items = given.users(self.past), items_of(given)
        parts: list[pa.Table] = []
        for number, service in enumerate(self.corpus.services):
            rows = np.flatnonzero(self.service == number)
            catalogue = np.flatnonzero(self.corpus.item_service == number)
            target = self.target[rows]
            ranks = rank(users[rows], items[catalogue], np.searchsorted(catalogue, target))
            past = self.past.some(rows)
            columns = {
                "user_id": self.corpus.user_ids.take(pa.array(past.users)),
                "ndcg_10": ranks.ndcg(10),
                "hit_10": ranks.hit(10),
                "reciprocal": ranks.reciprocal(),
                "slice service": pa.array([service] * len(rows)),
                "slice history": history_slice(past.lengths),
                "slice popularity": popularity_slice(popularity(self.corpus, number)[target]),
            }
            parts.append(pa.table(columns))
        return Scored(pa.concat_tables(parts), RANKING)
