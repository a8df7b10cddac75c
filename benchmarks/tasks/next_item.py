"""R1, next item: the last event of everybody in one service, among all items of that service.

Leave-one-out: the event before the last is the valid item, all before it is trained on. A past
holds the events of that service before the target, since the clocks of services do not compare.
Training users' two last events were no part of pretraining, so that everybody is asked.

    linear                  the user's vector mapped to the items' space by ridge regression: fitted
                            on training users and their valid items, plus the item's popularity; the
                            strength and the weight of popularity chosen on those of valid users
    zero-shot               the items by their dot product with the user's vector
    zero-shot + popularity  the same plus popularity, its weight chosen as above
    fitted                  baselines that learn the service's training events and have no vector of
                            a user
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from benchmarks.baselines.collaborative import Ease, ImplicitALS, ItemKNN
from benchmarks.baselines.linear_map import frame_of, item_columns, linear_maps
from benchmarks.baselines.popularity import Popularity, RecentPopularity, Tuned, catalogue, columns
from benchmarks.baselines.popularity_weight import Questions, tuned_map_and_weight, tuned_weight
from benchmarks.baselines.sasrec import SupervisedItems
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
from benchmarks.query_columns import history_slice, popularity_slice, seen_slice
from benchmarks.snapshot import Snapshot, snapshot_at
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.evaluation.ranking import Ranks, products, rank_scores, top_scores

MEASURES = {
    "NDCG@10": Measure("mean", ("ndcg_10",)),
    "HR@10": Measure("mean", ("hit_10",)),
    "MRR": Measure("mean", ("reciprocal",)),
}


@dataclass(frozen=True, kw_only=True)
class NextItemConfig:
    """The next item of a `service`, asked of at most `most` users, the first of a fixed shuffle.

    `past` is where the history comes from: the target's own service, or the others alone, as of a
    newcomer; their clocks must then be one. `users` held_out asks valid and test users alone: right
    where pretraining read all events of the others.

    `filter_seen` leaves out of the ranking what the user met there: right for films, which nobody
    rates twice, wrong for shops. `clock_times`: timestamps are epoch seconds, so that there is a
    recent popularity. `supervised` is a next-item run trained for the service, the oracle.
    """

    name: str
    service: str
    filter_seen: bool = False
    past: Literal["same", "other"] = "same"
    users: Literal["all", "held_out"] = "all"
    most: int = 10_000
    clock_times: bool = False
    supervised: Path | None = None

    def build(self, corpus: Corpus) -> "NextItemTask":
        """Return the task. ValueError for a service that the corpus lacks, and for no users."""
        return NextItemTask(self, corpus)


class NextItemTask:
    """Everybody with three events in the service; see `NextItemConfig`."""

    version, family = 2, "next item"  # 2: popularity beside every vector, linear the main probe
    probes: tuple[Probe, ...] = ("linear", "zero-shot", "zero-shot + popularity", "fitted")

    def __init__(self, config: NextItemConfig, corpus: Corpus) -> None:
        """Find users, their valid and test items, and who is asked."""
        self.name, self.config, self.corpus = config.name, config, corpus
        self.items = catalogue(corpus, config.service)
        number = corpus.services.index(config.service)
        items, times = corpus.items_of(number), corpus.timestamps_of(number)
        self.users = np.flatnonzero(items.lengths >= 3)
        if not len(self.users):
            raise ValueError(f"{config.name}: nobody has three events in {config.service}")
        last = items.offsets[self.users + 1] - 1
        self.valid_items, self.test_items = items.values[last - 1], items.values[last]
        self._valid_at, self._test_at = times.values[last - 1], times.values[last]
        self._few = np.flatnonzero((items.lengths > 0) & (items.lengths < 3))
        own = config.past == "same"
        self._services = [s for s in corpus.services if (s == config.service) == own]
        shuffled = np.random.default_rng(0).permutation(len(self.users))
        able = self._may_be_asked()
        self.queried = np.sort(shuffled[able[shuffled]][: config.most])
        if not len(self.queried):
            raise ValueError(
                f"{config.name}: no {config.users} user has an event of "
                f"{', '.join(self._services) or 'another service'} before the last one in "
                f"{config.service}; ask with another past or users"
            )
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "service": config.service,
            "filter_seen": config.filter_seen,
            "asked": len(self.queried),
            "users": len(self.users),
            "items": len(self.items),
            # A key that has its default is no part of a recipe: older scores stay valid.
            **({} if own else {"past": config.past}),
            **({} if config.users == "all" else {"asked_of": config.users}),
        }

    def _may_be_asked(self) -> np.ndarray:
        """Return which of `users` have a past that is read, and are of the users asked, (n,)."""
        able = np.ones(len(self.users), bool)
        if self.config.users == "held_out":
            able &= self.corpus.split[self.users] > 0
        if self.config.past == "other":
            before = snapshot_at(self.corpus, self.users, self._test_at, self._services)
            able &= before.lengths > 0
        return able

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return popularity, item-kNN, EASE, iALS, and a supervised oracle where there is one."""
        config, filtered = self.config, self.config.filter_seen
        if config.past == "other":  # the others read the items of the service itself
            return [Popularity()]
        rankers: list[Tuned] = [
            Popularity(),
            ItemKNN(filter_seen=filtered),
            Ease(filter_seen=filtered),
            ImplicitALS(filter_seen=filtered),
        ]
        if config.clock_times:
            rankers.append(RecentPopularity(filter_seen=filtered))
        if config.supervised is not None:
            rankers.append(SupervisedItems(config.supervised, self.corpus, config.service))
        return rankers

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return whether it is "fitted" for a ranker, another probe for vectors of users and items.

        Without training or valid users nothing can be chosen.
        """
        split = self.corpus.split[self.users]
        if probe in ("linear", "zero-shot + popularity") and not {0, 1} <= set(split.tolist()):
            return False
        return not has_vectors(model) if probe == "fitted" else has_items(model)

    @cached_property
    def before_valid(self) -> Snapshot:
        """The past of each of `users` before their valid item: what is trained on."""
        return snapshot_at(self.corpus, self.users, self._valid_at, self._services)

    @cached_property
    def before_test(self) -> Snapshot:
        """What may be read of those `queried`: their events before their test item."""
        cutoff = self._test_at[self.queried]
        return snapshot_at(self.corpus, self.users[self.queried], cutoff, self._services)

    @cached_property
    def seen(self) -> Ragged:
        """The items of the service that those `queried` met before their test item, as columns."""
        cutoff, service = self._test_at[self.queried], self.config.service
        own = snapshot_at(self.corpus, self.users[self.queried], cutoff, [service])
        return columns(own, service, self.items)

    @cached_property
    def training(self) -> Snapshot:
        """All training events: `before_valid`, and all of those with fewer than three."""
        users = np.concatenate([self.users, self._few])
        cutoff = np.concatenate([self._valid_at, np.full(len(self._few), np.inf)])
        order = np.argsort(users)
        return snapshot_at(self.corpus, users[order], cutoff[order], [self.config.service])

    @cached_property
    def counts(self) -> np.ndarray:
        """The number of training events of each item of the service, (m,)."""
        event_columns = columns(self.training, self.config.service, self.items).values
        return np.bincount(event_columns, minlength=len(self.items))

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each user asked: where their last item stands."""
        if isinstance(model, Tuned):
            return self._fitted(copy(model))
        given = model_of(model)
        catalogue = items_of(given)
        of_service = catalogue[self.items]
        users = given.users(self.before_test)
        if probe == "zero-shot":
            return self._answers(lambda: products(users, of_service), {})
        if probe == "linear":
            return self._linear(given, users, catalogue)
        past, questions = self._valid
        known = given.users(past)
        weight, _ = tuned_weight(lambda: products(known, of_service), questions)
        chosen = {"popularity": weight.share}
        return self._answers(lambda: weight(products(users, of_service)), chosen)

    def _fitted(self, ranker: Tuned) -> Scored:
        """Fit a copy of the ranker, whose matrices go with it."""
        valid = self.before_valid.some(self.queried)
        ranker.fit(self.training, valid, self.valid_items[self.queried], self.config.service)
        return self._answers(lambda: ranker.scores(self.before_test, self.items), ranker.chosen)

    @cached_property
    def _valid(self) -> tuple[Snapshot, Questions]:
        """The pasts of valid users before their valid items. ValueError without such a user."""
        rows = np.flatnonzero(self.corpus.split[self.users] == 1)
        if not len(rows):
            raise ValueError(f"{self.name}: no valid user to choose the strength on")
        past = self.before_valid.some(rows)
        targets = np.searchsorted(self.items, self.valid_items[rows])
        seen = columns(past, self.config.service, self.items) if self.config.filter_seen else None
        return past, Questions(targets, seen, self.counts)

    def _linear(self, model: Model, users: np.ndarray, catalogue: np.ndarray) -> Scored:
        """Learn the valid items of training users; what is chosen is chosen on valid users."""
        train = np.flatnonzero(self.corpus.split[self.users] == 0)
        used = item_columns(catalogue)
        items = catalogue[self.items][:, used]
        past, questions = self._valid
        known = model.users(self.before_valid.some(train)), catalogue[self.valid_items[train]]
        valid = model.users(past), catalogue[self.items[questions.targets]]
        frame, factors = frame_of(known, valid, used, model.blocks)
        maps = linear_maps(*known, frame)
        linear_map, weight, chosen = tuned_map_and_weight(maps, valid[0], items, questions)
        return self._answers(
            lambda: weight(products(linear_map(users), items)),
            {**chosen, **({"factors": factors} if factors else {})},
        )

    def _answers(
        self, blocks: Callable[[], Iterator[np.ndarray]], chosen: Mapping[str, Any]
    ) -> Scored:
        past = self.before_test
        targets = np.searchsorted(self.items, self.test_items[self.queried])
        seen = self.seen if self.config.filter_seen else None
        ranks = rank_scores(blocks(), targets, seen)
        listed = len(np.unique(top_scores(blocks(), min(10, len(self.items)), seen)))
        return Scored(
            self._queries(ranks, past, targets),
            MEASURES,
            {**chosen, "coverage@10": listed / len(self.items)},
        )

    def _queries(self, ranks: Ranks, past: Snapshot, targets: np.ndarray) -> pa.Table:
        return pa.table(
            {
                "user_id": self.corpus.user_ids.take(pa.array(past.users)),
                "ndcg_10": ranks.ndcg(10),
                "hit_10": ranks.hit(10),
                "reciprocal": ranks.reciprocal(),
                "slice history": history_slice(past.lengths),
                "slice popularity": popularity_slice(self.counts[targets]),
                "slice users": seen_slice(self.corpus.split[past.users]),
            }
        )
