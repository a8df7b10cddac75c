"""R1, next item: the last event of everybody in one service, among all items of that service.

Leave-one-out: the event before the last is the valid item, all before it is trained on. A past
holds the events of that service before the target, since the clocks of services do not compare.
Training users' two last events were no part of pretraining, so that everybody is asked.

    zero-shot   the items by their dot product with the user's vector
    linear      with her vector mapped to the items' space by ridge regression: fitted on training
                users and their valid items, its strength chosen on those of valid users
    fitted      baselines that learn the service's training events and have no vector of a user
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.baselines.collaborative import Ease, ImplicitALS, ItemKNN
from benchmarks.baselines.linear_map import LinearMap, tuned_map
from benchmarks.baselines.popularity import (
    Popularity,
    RecentPopularity,
    Tuned,
    catalogue,
    columns,
)
from benchmarks.baselines.sasrec import SupervisedItems
from benchmarks.protocols import (
    Measure,
    Model,
    Probe,
    Scored,
    TaskBaseline,
    history_slice,
    popularity_slice,
    seen_slice,
)
from benchmarks.snapshot import Snapshot, snapshot_at
from clue.data.corpus import Corpus
from clue.evaluation.ranking import Ranks, products, rank, rank_scores, top_scores

MEASURES = {
    "NDCG@10": Measure("mean", ("ndcg_10",)),
    "HR@10": Measure("mean", ("hit_10",)),
    "MRR": Measure("mean", ("reciprocal",)),
}


@dataclass(frozen=True, kw_only=True)
class NextItemConfig:
    """The next item of a `service`, asked of at most `most` users, the first of a fixed shuffle.

    `filter_seen` leaves out of the ranking what the user met there: right for films, which nobody
    rates twice, wrong for shops. `clock_times`: timestamps are epoch seconds, so that there is a
    recent popularity. `supervised` is a next-item run trained for the service, the oracle.
    """

    name: str
    service: str
    filter_seen: bool = False
    most: int = 10_000
    clock_times: bool = False
    supervised: Path | None = None

    def build(self, corpus: Corpus) -> "NextItemTask":
        """Return the task. ValueError for a service that the corpus lacks, and for no users."""
        return NextItemTask(self, corpus)


class NextItemTask:
    """Everybody with three events in the service; see `NextItemConfig`."""

    version, family = 1, "next item"
    probes: tuple[Probe, ...] = ("zero-shot", "linear", "fitted")

    def __init__(self, config: NextItemConfig, corpus: Corpus) -> None:
        """Finds users, their valid and test items, and who is asked."""
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
        shuffled = np.random.default_rng(0).permutation(len(self.users))
        self.asked = np.sort(shuffled[: config.most])
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "service": config.service,
            "filter_seen": config.filter_seen,
            "asked": len(self.asked),
            "users": len(self.users),
            "items": len(self.items),
        }

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return popularity, item-kNN, EASE, iALS, and a supervised oracle where there is one."""
        config, filtered = self.config, self.config.filter_seen
        found: list[Tuned] = [
            Popularity(),
            ItemKNN(filter_seen=filtered),
            Ease(filter_seen=filtered),
            ImplicitALS(filter_seen=filtered),
        ]
        if config.clock_times:
            found.append(RecentPopularity(filter_seen=filtered))
        if config.supervised is not None:
            found.append(SupervisedItems(config.supervised, self.corpus, config.service))
        return found

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Says "fitted" of the rankers, and the others of models that have vectors of users."""
        return hasattr(model, "users") != (probe == "fitted")

    @cached_property
    def before_valid(self) -> Snapshot:
        """The past of each of `users` before their valid item: what is trained on."""
        return snapshot_at(self.corpus, self.users, self._valid_at, [self.config.service])

    @cached_property
    def before_test(self) -> Snapshot:
        """The past of those `asked` before their test item."""
        cutoff = self._test_at[self.asked]
        return snapshot_at(self.corpus, self.users[self.asked], cutoff, [self.config.service])

    @cached_property
    def training(self) -> Snapshot:
        """All training events: `before_valid`, and all of those with fewer than three."""
        users = np.concatenate([self.users, self._few])
        cutoff = np.concatenate([self._valid_at, np.full(len(self._few), np.inf)])
        order = np.argsort(users)
        return snapshot_at(self.corpus, users[order], cutoff[order], [self.config.service])

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each user asked: where her last item stands."""
        if probe == "fitted":
            return self._fitted(copy(model))  # pyright: ignore[reportArgumentType]
        catalogue = model.items()  # pyright: ignore[reportAttributeAccessIssue]
        if catalogue is None:
            raise ValueError(f"{self.name}: {model.name} has no vectors of items to rank by")
        users = model.users(self.before_test)  # pyright: ignore[reportAttributeAccessIssue]
        chosen: dict[str, Any] = {}
        if probe == "linear":
            linear, chosen["strength"] = self._linear(model, catalogue)  # pyright: ignore[reportArgumentType]
            users = linear(users)
        return self._answers(lambda: products(users, catalogue[self.items]), chosen)

    def _fitted(self, ranker: Tuned) -> Scored:
        """Fits a copy of the ranker, whose matrices go with it."""
        valid = self.before_valid.some(self.asked)
        ranker.fit(self.training, valid, self.valid_items[self.asked], self.config.service)
        return self._answers(lambda: ranker.scores(self.before_test, self.items), ranker.chosen)

    def _linear(self, model: Model, catalogue: np.ndarray) -> tuple[LinearMap, float]:
        """Learns the valid items of training users; the strength is chosen by NDCG@10 on others."""
        split = self.corpus.split[self.users]
        train, valid = np.flatnonzero(split == 0), np.flatnonzero(split == 1)
        if not len(valid):
            raise ValueError(f"{self.name}: no valid user to choose the strength on")
        x = model.users(self.before_valid.some(train))
        past = self.before_valid.some(valid)
        queries, targets = model.users(past), np.searchsorted(self.items, self.valid_items[valid])
        seen = columns(past, self.config.service, self.items) if self.config.filter_seen else None

        def loss(found: LinearMap) -> float:
            ranks = rank(found(queries), catalogue[self.items], targets, seen)
            return -float(ranks.ndcg(10).mean())

        return tuned_map(x, catalogue[self.valid_items[train]], loss)

    def _answers(
        self, blocks: Callable[[], Iterator[np.ndarray]], chosen: Mapping[str, Any]
    ) -> Scored:
        past = self.before_test
        targets = np.searchsorted(self.items, self.test_items[self.asked])
        met = columns(past, self.config.service, self.items)
        seen = met if self.config.filter_seen else None
        ranks = rank_scores(blocks(), targets, seen)
        listed = len(np.unique(top_scores(blocks(), min(10, len(self.items)), seen)))
        return Scored(
            self._queries(ranks, past, targets),
            MEASURES,
            {**chosen, "coverage@10": listed / len(self.items)},
        )

    def _queries(self, ranks: Ranks, past: Snapshot, targets: np.ndarray) -> pa.Table:
        trained = columns(self.training, self.config.service, self.items).values
        counts = np.bincount(trained, minlength=len(self.items))
        return pa.table(
            {
                "user_id": self.corpus.user_ids.take(pa.array(past.users)),
                "ndcg_10": ranks.ndcg(10),
                "hit_10": ranks.hit(10),
                "reciprocal": ranks.reciprocal(),
                "slice history": history_slice(past.lengths),
                "slice popularity": popularity_slice(counts[targets]),
                "slice users": seen_slice(self.corpus.split[past.users]),
            }
        )
