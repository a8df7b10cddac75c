"""T1 and T2, a new service: what somebody meets first where pretraining has never been.

The service's events and texts were no part of pretraining. A past holds what a user did in all
other services, whole: their clocks do not compare with that of the new one. Asked are the held-out
users who are there and elsewhere, whom nothing has read; such training users can be labelled.

    zero-shot   the items of the service by their dot product with the user's vector
    centred     the same less the mean vector of the training users, so that an item that is near to
                everybody has no advantage
    5 %         with that share of the training users labelled, drawn DRAWS times: a ridge map from
                a user's vector to the mean vector of all that she met there, shrunk towards the
                zero-shot answer, its strength chosen by leave-one-out among the labelled

Popularity is counted among all training users of the service, or among the labelled ones alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.linear_model import RidgeCV

from benchmarks.baselines.popularity import Popularity, catalogue, columns, matrix
from benchmarks.baselines.tfidf import unit
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
from clue.data.corpus import Corpus
from clue.evaluation.ranking import concatenated, products, rank_scores

MEASURES = {
    "NDCG@10": Measure("mean", ("ndcg_10",)),
    "HR@10": Measure("mean", ("hit_10",)),
    "HR@100": Measure("mean", ("hit_100",)),
}
DRAWS = 5
SHARES: Mapping[Probe, float] = {"1 %": 0.01, "5 %": 0.05, "10 %": 0.1}
STRENGTHS = tuple(10.0**power for power in range(-2, 5))


@dataclass(frozen=True, kw_only=True)
class NewServiceConfig:
    """The first event in a `service` unknown to pretraining; `seed` draws who is labelled."""

    name: str
    service: str
    seed: int = 0

    def build(self, corpus: Corpus) -> "NewServiceTask":
        """Return the task. ValueError for a service that the corpus lacks, and for no users."""
        return NewServiceTask(self, corpus)


class NewServiceTask:
    """Users of the new service and of another; see `NewServiceConfig`."""

    version, family = 1, "new service"
    probes: tuple[Probe, ...] = ("zero-shot", "centred", *SHARES)

    def __init__(self, config: NewServiceConfig, corpus: Corpus) -> None:
        """Finds who is asked and who can be labelled."""
        self.name, self.config, self.corpus = config.name, config, corpus
        self.items = catalogue(corpus, config.service)
        number = corpus.services.index(config.service)
        self.others = [name for name in corpus.services if name != config.service]
        counts = np.stack([corpus.items_of(n).lengths for n in range(len(corpus.services))])
        both = np.flatnonzero((counts[number] > 0) & (counts.sum(0) > counts[number]))
        held_out = corpus.split[both] > 0
        self.pool, self.asked = both[~held_out], both[held_out]
        if not len(self.pool) or not len(self.asked):
            raise ValueError(
                f"{config.name}: {len(self.pool)} training and {len(self.asked)} held-out users "
                f"are in {config.service} and elsewhere; the task needs some of both"
            )
        met = corpus.items_of(number)
        self.targets = np.searchsorted(self.items, met.values[met.offsets[self.asked]])
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "service": config.service,
            "seed": config.seed,
            "asked": len(self.asked),
            "labelled": len(self.pool),
            "draws": DRAWS,
            "items": len(self.items),
        }

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return popularity in the new service."""
        return [Popularity()]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Says yes to all but a centred popularity."""
        return hasattr(model, "users") or probe != "centred"

    @cached_property
    def elsewhere(self) -> Snapshot:
        """The past of those asked, in all other services."""
        return snapshot_at(self.corpus, self.asked, services=self.others)

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each user asked, or for each and draw: where her first item stands."""
        if not hasattr(model, "users"):
            return self._popularity(model, probe)  # pyright: ignore[reportArgumentType]
        return self._mapped(model, probe)  # pyright: ignore[reportArgumentType]

    def _mapped(self, model: Model, probe: Probe) -> Scored:
        vectors = model.items()
        if vectors is None:
            raise ValueError(f"{self.name}: {model.name} has no vectors of items to rank by")
        users = model.users(self.elsewhere)
        if probe == "zero-shot":
            return self._answers([products(users, vectors[self.items])], {})
        known = model.users(snapshot_at(self.corpus, self.pool, services=self.others))
        if probe == "centred":
            return self._answers([products(users - known.mean(0), vectors[self.items])], {})
        blocks, strengths = list[Iterator[np.ndarray]](), list[float]()
        for rows in self._draws(probe):
            labels = self._mean_met(self.pool[rows], vectors)
            ridge = RidgeCV(STRENGTHS).fit(known[rows], labels - known[rows])
            blocks.append(products(unit(users + ridge.predict(users)), vectors[self.items]))
            strengths.append(float(ridge.alpha_ or 0))
        return self._answers(blocks, {"strengths": strengths})

    def _popularity(self, ranker: Popularity, probe: Probe) -> Scored:
        service, blocks = self.config.service, list[Iterator[np.ndarray]]()
        training = self.corpus.users_in("train")
        drawn = [self.pool[rows] for rows in self._draws(probe)]
        for users in [training] if probe == "zero-shot" else drawn:
            past = snapshot_at(self.corpus, users, services=[service])
            fitted = copy(ranker)  # its scores are made when they are ranked, after all fits
            fitted.fit(past, past, np.zeros(0, np.int64), service)
            blocks.append(fitted.scores(self.elsewhere, self.items))
        return self._answers(blocks, {})

    def _draws(self, probe: Probe) -> list[np.ndarray]:
        """Return the places in the pool of who is labelled, at least two, for each draw."""
        rng = np.random.default_rng(self.config.seed)
        orders = [rng.permutation(len(self.pool)) for _ in range(DRAWS)]
        count = max(2, round(SHARES.get(probe, 1.0) * len(self.pool)))
        return [order[:count] for order in orders]

    def _mean_met(self, users: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Return the unit mean vector (n, E) of what each user met in the new service."""
        past = snapshot_at(self.corpus, users, services=[self.config.service])
        return unit(
            matrix(columns(past, self.config.service, self.items), len(self.items))
            @ vectors[self.items]
        )

    def _answers(self, blocks: Sequence[Iterator[np.ndarray]], chosen: Mapping[str, Any]) -> Scored:
        ranks = concatenated([rank_scores(each, self.targets) for each in blocks])
        met = snapshot_at(
            self.corpus, self.corpus.users_in("train"), services=[self.config.service]
        )
        counts = np.bincount(
            columns(met, self.config.service, self.items).values, minlength=len(self.items)
        )
        ids = self.corpus.user_ids.take(pa.array(self.asked))
        columns_of = {
            "user_id": ids,
            "slice history": history_slice(self.elsewhere.lengths),
            "slice popularity": popularity_slice(counts[self.targets]),
        }
        table = pa.concat_tables([pa.table(columns_of)] * len(blocks))
        for name, values in (
            ("ndcg_10", ranks.ndcg(10)),
            ("hit_10", ranks.hit(10)),
            ("hit_100", ranks.hit(100)),
        ):
            table = table.append_column(name, pa.array(values))
        return Scored(table, MEASURES, chosen)
