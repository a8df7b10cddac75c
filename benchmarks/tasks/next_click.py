"""The next click on a news site on a later day, among the items clicked in the days before.

Split by time for everybody: the probe's map is fitted on training users' last clicks of the days
before the valid day, what is tuned is tuned on the valid day, and the last click of everybody on
the day after it is asked for. A past holds what the user clicked before; the candidates and all
counts are those of clicks before the full hour of the question. An item that nobody clicked in
`candidate_days` before it cannot be ranked by any row: such questions are left out.

    linear        the user's vector, mapped as in next_item.py, and the items' recent popularity,
                  weighted on the valid day
    vector alone  the user's vector, mapped
    zero-shot     the user's vector as it is
    fitted        rankers that learn anew every hour and have no vector of a user
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.baselines.click_rankers import (
    HOUR,
    ClickLog,
    Hour,
    HourlyItemKNN,
    HourRanker,
    RecentPopularity,
    Setting,
    Transitions,
)
from benchmarks.baselines.linear_map import frame_of, item_columns, linear_maps, tuned_map
from benchmarks.datasets.label_tables import service_of
from benchmarks.protocols import Model, Probe, Scored, TaskBaseline, has_vectors, model_of
from benchmarks.query_columns import history_slice, seen_slice
from benchmarks.snapshot import Snapshot, snapshot_at
from benchmarks.tasks.next_item import MEASURES
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.evaluation.ranking import Ranks, concatenated, rank_scores

DAY = 86_400.0
WEIGHTS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # of a cosine beside the log of a count


@dataclass(frozen=True, kw_only=True)
class NextClickConfig:
    """The last click in a `service` of each user in the day from `opens` (epoch seconds) on.

    The day before it is the valid day, and the `fit_days` before that fit the map; pretraining must
    have read nothing of them. What was clicked in the `candidate_days` before is ranked. `most`
    users are asked, the first of a fixed shuffle.
    """

    name: str
    opens: float
    service: str = "globo"
    fit_days: int = 2
    candidate_days: int = 2
    most: int = 10_000

    def build(self, corpus: Corpus) -> "NextClickTask":
        """Return the task. ValueError for a service that the corpus lacks, and for no questions."""
        return NextClickTask(self, corpus)


@dataclass(frozen=True)
class Questions:
    """Users (n,), rows of the corpus by time, the items that they clicked, and when."""

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray

    def some(self, rows: np.ndarray) -> "Questions":
        """Return those in `rows`."""
        return Questions(self.users[rows], self.items[rows], self.times[rows])


class NextClickTask:
    """The last click of a day; see `NextClickConfig`."""

    version, family = 1, "next click"
    probes: tuple[Probe, ...] = ("linear", "vector alone", "zero-shot", "fitted")

    def __init__(self, config: NextClickConfig, corpus: Corpus) -> None:
        """Find the questions of the three periods."""
        self.name, self.config, self.corpus = config.name, config, corpus
        self.number = service_of(corpus, config.service)
        self.log = ClickLog(corpus, self.number)
        valid, opens = config.opens - DAY, config.opens
        split = corpus.split
        self.train = self._questions(valid - config.fit_days * DAY, valid, split == 0)
        self.valid = self._questions(valid, opens, split == 1)
        self.test = self._questions(opens, opens + DAY, split >= 0)
        for part, called in ((self.train, "fitting"), (self.valid, "valid"), (self.test, "test")):
            if not len(part.users):
                raise ValueError(
                    f"{config.name}: no {called} click of {config.service} on an item of the "
                    f"{config.candidate_days} days before it; opens must lie within the log"
                )
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "service": config.service,
            "opens": config.opens,
            "fit_days": config.fit_days,
            "candidate_days": config.candidate_days,
            "counts": [len(part.users) for part in (self.train, self.valid, self.test)],
        }

    def _questions(self, start: float, end: float, users: np.ndarray) -> Questions:
        """Return the last click of `users` (U,) in start <= time < end that can be ranked."""
        log = self.log
        rows = np.arange(*np.searchsorted(log.times, [start, end]))
        _, last = np.unique(log.users[rows][::-1], return_index=True)
        rows = np.sort(rows[len(rows) - 1 - last])
        rows = rows[users[log.users[rows]] & (log.before[rows] >= 0)]
        shuffled = np.random.default_rng(0).permutation(len(rows))[: self.config.most]
        rows = rows[np.sort(shuffled)]
        found = Questions(log.users[rows], log.items[rows], log.times[rows])
        kept = [hour.rows[hour.place(found.items[hour.rows]) >= 0] for hour in self._hours(found)]
        return found.some(np.concatenate(kept) if kept else np.zeros(0, np.int64))

    def _hours(self, asked: Questions) -> Iterator[Hour]:
        """Yield the questions hour by hour, in their order."""
        past = self._past(asked)
        start = np.floor(asked.times / HOUR) * HOUR
        for each in np.unique(start):
            rows = np.flatnonzero(start == each)
            known = self.log.hours(float(each), self.config.candidate_days * 24.0)
            items = np.unique(self.log.items[known])
            if len(items):
                yield Hour(float(each), rows, items, past.some(rows), self.number, self.log)

    def _past(self, asked: Questions) -> Snapshot:
        return snapshot_at(self.corpus, asked.users, asked.times, [self.config.service])

    @cached_property
    def _asked(self) -> dict[str, list[Hour]]:
        return {"valid": list(self._hours(self.valid)), "test": list(self._hours(self.test))}

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return popularity, recent popularity, item-kNN, last-item transitions."""
        popular = [RecentPopularity(recent=each) for each in (False, True)]
        return [*popular, HourlyItemKNN(), Transitions()]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return "fitted" of the rankers, and the others of models with vectors of users."""
        return has_vectors(model) != (probe == "fitted")

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each user asked. ValueError for a model without vectors of items."""
        if probe == "fitted":
            setting, _ = self._tuned(model)  # pyright: ignore[reportArgumentType]
            ranks = self._ranks(self._asked["test"], self.test, lambda h: model.scores(h, setting))  # pyright: ignore[reportAttributeAccessIssue]
            return self._scored(ranks, setting)
        return self._of_vectors(model_of(model), probe)

    def _tuned(self, ranker: HourRanker) -> tuple[Setting, float]:
        """Return the setting of the best NDCG@10 on the valid day, the first of equals, and it."""
        hours = self._asked["valid"]

        def ndcg(setting: Setting) -> float:
            ranks = self._ranks(hours, self.valid, lambda hour: ranker.scores(hour, setting))
            return float(ranks.ndcg(10).mean())

        each = [ndcg(setting) for setting in ranker.grid]
        best = int(np.argmax(each))
        return ranker.grid[best], each[best]

    @cached_property
    def _recent(self) -> float:
        """The hours whose clicks are the popularity beside a vector."""
        return self._tuned(RecentPopularity(recent=True))[0]["hours"]

    def _ranks(
        self, hours: Sequence[Hour], asked: Questions, scores: Callable[[Hour], np.ndarray]
    ) -> Ranks:
        """Return where each asked item stands among its hour's items, those read before left out.

        Of the last clicks of a day .6 % are on an item that the user had clicked before.
        """
        parts: list[Ranks] = []
        for hour in hours:
            clicked = hour.clicked()
            seen = Ragged(clicked.indices.astype(np.int64), clicked.indptr.astype(np.int64))
            targets = hour.place(asked.items[hour.rows])
            parts.append(rank_scores([scores(hour)], targets, seen))
        return concatenated(parts)

    def _of_vectors(self, model: Model, probe: Probe) -> Scored:
        catalogue, chosen = model.items(), dict[str, Any]()
        if catalogue is None:
            raise ValueError(f"{self.name}: {model.name} has no vectors of items to rank by")
        items = catalogue
        valid, test = (model.users(self._past(part)) for part in (self.valid, self.test))

        def scores(users: np.ndarray, weight: float | None) -> Callable[[Hour], np.ndarray]:
            def of(hour: Hour) -> np.ndarray:
                cosines = users[hour.rows].astype(np.float64) @ items[hour.items].T
                if weight is None:
                    return cosines
                return weight * cosines + np.log1p(hour.counts(self._recent))

            return of

        def loss(users: np.ndarray, weight: float | None) -> float:
            ranks = self._ranks(self._asked["valid"], self.valid, scores(users, weight))
            return -float(ranks.ndcg(10).mean())

        weight: float | None = None
        if probe != "zero-shot":
            train = model.users(self._past(self.train)), items[self.train.items]
            columns = item_columns(items)
            frame, factors = frame_of(
                train, (valid, items[self.valid.items]), columns, model.blocks
            )
            items = items[:, columns]
            mapped, chosen["strength"] = tuned_map(
                linear_maps(*train, frame), lambda found: loss(found(valid), None)
            )
            chosen |= {"factors": factors} if factors else {}
            valid, test = mapped(valid), mapped(test)
        if probe == "linear":
            weight = min(WEIGHTS, key=lambda one: loss(valid, one))
            chosen |= {"weight": weight, "hours": self._recent}
        return self._scored(
            self._ranks(self._asked["test"], self.test, scores(test, weight)), chosen
        )

    def _scored(self, ranks: Ranks, chosen: Mapping[str, Any]) -> Scored:
        past = self._past(self.test)
        return Scored(
            pa.table(
                {
                    "user_id": self.corpus.user_ids.take(pa.array(self.test.users)),
                    "ndcg_10": ranks.ndcg(10),
                    "hit_10": ranks.hit(10),
                    "reciprocal": ranks.reciprocal(),
                    "slice history": history_slice(past.lengths),
                    "slice users": seen_slice(self.corpus.split[self.test.users]),
                }
            ),
            MEASURES,
            {**chosen, "candidates": round(float(ranks.of.mean()), 1)},
        )
