"""T1 and T2, a new service: what somebody meets first where pretraining has never been.

The service's events and texts were no part of pretraining. A past holds what a user did in all
other services, whole: their clocks do not compare with that of the new one. Asked are the held-out
users who are there and elsewhere, whom nothing has read; such training users can be labelled.

    zero-shot + popularity  the items of the service by their dot product with the user's vector and
                            their popularity among all training users, its weight chosen on training
                            users, each half of them by counts of the others
    zero-shot               the same without popularity
    centred                 zero-shot less the mean vector of the training users, so that an item
                            that is near to everybody has no advantage
    5 %                     with that share of the training users labelled, drawn DRAWS times: a
                            ridge map from a user's vector to the mean vector of all that they met
                            there, shrunk towards the zero-shot answer, its strength chosen by
                            leave-one-out among the labelled; and popularity among them, its weight
                            chosen on each half of them by a map and counts of the other

The row "popularity" is counted among all training users of the service, or the labelled ones alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from sklearn.linear_model import RidgeCV

from benchmarks.baselines.linear_map import equal_blocks, item_columns
from benchmarks.baselines.popularity import Popularity, catalogue, columns, matrix
from benchmarks.baselines.popularity_weight import (
    WEIGHTS,
    PopularityWeight,
    Questions,
    best_of,
    gains_of,
    weights,
)
from benchmarks.baselines.tfidf import unit
from benchmarks.protocols import (
    Measure,
    Model,
    Probe,
    Scored,
    TaskBaseline,
    has_items,
    has_vectors,
    items_of,
    model_of,
)
from benchmarks.query_columns import history_slice, popularity_slice
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
POPULAR: Probe = "zero-shot + popularity"
FEW = 10  # labelled users below whom popularity has no weight: halves of them say nothing
STRENGTHS = tuple(10.0**power for power in range(-2, 5))


Reader: TypeAlias = Callable[[np.ndarray], np.ndarray]  # vectors (n, E) to queries (n, D)


@dataclass(frozen=True, kw_only=True)
class NewServiceConfig:
    """The first event in a `service` unknown to pretraining; `seed` draws who is labelled."""

    name: str
    service: str
    seed: int = 0

    def build(self, corpus: Corpus) -> "NewServiceTask":
        """Return the task. ValueError for a service that the corpus lacks, and for no users."""
        return NewServiceTask(self, corpus)


@dataclass(frozen=True)
class Pool:
    """The users who can be labelled: vectors `known` (n, E), and those of the items (m, D).

    `fit` returns what some rows say maps a user's vector to the items' space, and its strength.
    """

    known: np.ndarray
    items: np.ndarray
    fit: Callable[[np.ndarray], tuple[Reader, float]]

    def scores(self, fitted: np.ndarray, rows: np.ndarray) -> Callable[[], Iterator[np.ndarray]]:
        """Return what makes the scores (n, m) of `rows` by the map of the rows `fitted`."""
        queries = self.fit(fitted)[0](self.known[rows])
        return lambda: products(queries, self.items)


class NewServiceTask:
    """Users of the new service and of another; see `NewServiceConfig`."""

    version, family = 2, "new service"  # 2: popularity beside every vector
    probes: tuple[Probe, ...] = (POPULAR, "zero-shot", "centred", *SHARES)

    def __init__(self, config: NewServiceConfig, corpus: Corpus) -> None:
        """Find who is asked and who can be labelled."""
        self.name, self.config, self.corpus = config.name, config, corpus
        self.items = catalogue(corpus, config.service)
        number = corpus.services.index(config.service)
        self.others = [name for name in corpus.services if name != config.service]
        counts = np.stack([corpus.items_of(n).lengths for n in range(len(corpus.services))])
        both = np.flatnonzero((counts[number] > 0) & (counts.sum(0) > counts[number]))
        held_out = corpus.split[both] > 0
        self.pool, self.test_users = both[~held_out], both[held_out]
        if not len(self.pool) or not len(self.test_users):
            raise ValueError(
                f"{config.name}: {len(self.pool)} training and {len(self.test_users)} held-out "
                f"users are in {config.service} and elsewhere; the task needs some of both"
            )
        self.targets = self._first_met(self.test_users)
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "service": config.service,
            "seed": config.seed,
            "asked": len(self.test_users),
            "labelled": len(self.pool),
            "draws": DRAWS,
            "items": len(self.items),
        }

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return popularity in the new service."""
        return [Popularity()]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return whether the row has vectors of users and items, or counts popularity as asked."""
        return has_items(model) if has_vectors(model) else probe not in ("centred", POPULAR)

    @cached_property
    def elsewhere(self) -> Snapshot:
        """The past of those asked, in all other services."""
        return snapshot_at(self.corpus, self.test_users, services=self.others)

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each user asked, or for each and draw: where their first item is."""
        if isinstance(model, Popularity):
            return self._popularity(model, probe)
        given = model_of(model)
        vectors = items_of(given)
        items, users = vectors[self.items], given.users(self.elsewhere)
        if probe == "zero-shot":
            return self._answers([products(users, items)], {})
        known = given.users(snapshot_at(self.corpus, self.pool, services=self.others))
        if probe == "centred":
            return self._answers([products(users - known.mean(0), items)], {})
        if probe == POPULAR:
            pool = Pool(known, items, lambda _: (lambda x: x, 0.0))
            training = self.corpus.users_in("train")
            weight = self._weight(pool, np.arange(len(known)), training)
            return self._answers([weight(products(users, items))], {"popularity": weight.share})
        return self._shares(self._pool(vectors, known, given.blocks), users, probe)

    def _shares(self, pool: "Pool", users: np.ndarray, probe: Probe) -> Scored:
        blocks, strengths, shares = list[Iterator[np.ndarray]](), list[float](), list[float]()
        for rows in self._draws(probe):
            read, strength = pool.fit(rows)
            weight = self._weight(pool, rows, self.pool[rows])
            blocks.append(weight(products(read(users), pool.items)))
            strengths.append(strength)
            shares.append(weight.share)
        return self._answers(blocks, {"strengths": strengths, "popularity": shares})

    def _pool(self, vectors: np.ndarray, known: np.ndarray, blocks: Mapping[str, slice]) -> "Pool":
        """Return the users who can be labelled, and the ridge map of some of them."""
        columns = item_columns(vectors)
        frame = equal_blocks(known, columns, blocks)
        items = vectors[self.items][:, columns]
        own, features = frame.own(known), frame.features(known)
        residual = self._mean_met(self.pool, items) - own

        def fit(rows: np.ndarray) -> tuple[Reader, float]:
            ridge = RidgeCV(STRENGTHS).fit(features[rows], residual[rows])

            def read(users: np.ndarray) -> np.ndarray:
                return unit(frame.own(users) + ridge.predict(frame.features(users)))

            return read, float(ridge.alpha_ or 0)

        return Pool(known, items, fit)

    def _weight(self, pool: "Pool", rows: np.ndarray, counted: np.ndarray) -> PopularityWeight:
        """Return the weight of popularity among the users `counted`, chosen on `rows` of the pool.

        On each half of them, by a map that the other half fits and counts without this half.
        """
        order = np.random.default_rng(self.config.seed).permutation(rows)
        gains = np.zeros(len(WEIGHTS))
        for half, other in ((order[::2], order[1::2]), (order[1::2], order[::2])):
            if len(rows) >= FEW:
                counts = self._counts(np.setdiff1d(counted, self.pool[half]))
                questions = Questions(self._first_met(self.pool[half]), None, counts)
                gains += gains_of(pool.scores(other, half), questions)
        return weights(pool.scores(rows, rows), self._counts(counted))[best_of(gains)]

    def _counts(self, users: np.ndarray) -> np.ndarray:
        """Return the number of events of each item of the service (m,) among `users`."""
        events = snapshot_at(self.corpus, users, services=[self.config.service])
        places = columns(events, self.config.service, self.items).values
        return np.bincount(places, minlength=len(self.items))

    def _first_met(self, users: np.ndarray) -> np.ndarray:
        """Return the place in the catalogue of what each user met first there, (n,)."""
        events = self.corpus.items_of(self.corpus.services.index(self.config.service))
        return np.searchsorted(self.items, events.values[events.offsets[users]])

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

    def _mean_met(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the unit mean (n, D) of the vectors `items` (m, D) of what each user met there."""
        past = snapshot_at(self.corpus, users, services=[self.config.service])
        interacted = columns(past, self.config.service, self.items)
        return unit(matrix(interacted, len(self.items)) @ items)

    def _answers(self, blocks: Sequence[Iterator[np.ndarray]], chosen: Mapping[str, Any]) -> Scored:
        ranks = concatenated([rank_scores(each, self.targets) for each in blocks])
        counts = self._counts(self.corpus.users_in("train"))
        ids = self.corpus.user_ids.take(pa.array(self.test_users))
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
