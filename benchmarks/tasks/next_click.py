"""The next click on a news site on a later day, among the items clicked in the days before.

Split by time for everybody: what is tuned is tuned on valid users' last clicks of the day before,
and the last click of everybody on the day that opens is asked for. A past holds what the user
clicked before; the candidates and all that is learnt are of clicks before the full hour of the
question, those of all users. An item that nobody clicked in `candidate_days` before it cannot be
ranked by any row: such questions are left out.

    linear        the share of the items' recent clicks, and what the users' vectors add to it by a
                  ridge regression learnt anew every hour (hourly_probe.py)
    vector alone  what the vectors add
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
from benchmarks.baselines.hourly_probe import HOURS, STRENGTHS, ClickVectors
from benchmarks.datasets.label_tables import service_of
from benchmarks.protocols import (
    Model,
    Probe,
    Scored,
    TaskBaseline,
    has_items,
    has_vectors,
    items_of,
    model_of,
)
from benchmarks.query_columns import history_slice, seen_slice, take
from benchmarks.snapshot import Snapshot, snapshot_at
from benchmarks.tasks.next_item import MEASURES
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.evaluation.ranking import Ranks, concatenated, rank_scores

DAY = 86_400.0
WEIGHTS = (0.0, 0.3, 0.6, 1.0, 1.5, 3.0)  # of what a vector adds to the share of an item


@dataclass(frozen=True, kw_only=True)
class NextClickConfig:
    """The last click in a `service` of each user in the day from `opens` (epoch seconds) on.

    The day before it is the valid day; pretraining must have read nothing of either. What was
    clicked in the `candidate_days` before is ranked. `most` users are asked, the first of a fixed
    shuffle.
    """

    name: str
    opens: float
    service: str = "globo"
    candidate_days: int = 2
    most: int = 10_000

    def build(self, corpus: Corpus) -> "NextClickTask":
        """Return the task. ValueError for a service that the corpus lacks, and for no questions."""
        return NextClickTask(self, corpus)


@dataclass(frozen=True)
class Questions:
    """Users (n,), rows of the corpus by time, what they clicked, when, and the rows of the log."""

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    clicks: np.ndarray


class NextClickTask:
    """The last click of a day; see `NextClickConfig`."""

    version, family = 2, "next click"  # 2: the probe is learnt anew every hour, as its rivals are
    probes: tuple[Probe, ...] = ("linear", "vector alone", "zero-shot", "fitted")

    def __init__(self, config: NextClickConfig, corpus: Corpus) -> None:
        """Find the questions of the two days."""
        self.name, self.config, self.corpus = config.name, config, corpus
        self.number = service_of(corpus, config.service)
        self.log = ClickLog(corpus, self.number)
        valid, opens = config.opens - DAY, config.opens
        split = corpus.split
        self.valid = self._questions(valid, opens, split == 1)
        self.test = self._questions(opens, opens + DAY, split >= 0)
        for part, called in ((self.valid, "valid"), (self.test, "test")):
            if not len(part.users):
                raise ValueError(
                    f"{config.name}: no {called} click of {config.service} on an item of the "
                    f"{config.candidate_days} days before it; opens must lie within the log"
                )
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "service": config.service,
            "opens": config.opens,
            "candidate_days": config.candidate_days,
            "counts": [len(part.users) for part in (self.valid, self.test)],
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
        questions = Questions(log.users[rows], log.items[rows], log.times[rows], rows)
        kept = [
            hour.rows[hour.place(questions.items[hour.rows]) >= 0]
            for hour in self._hours(questions)
        ]
        return take(questions, np.concatenate(kept) if kept else np.zeros(0, np.int64))

    def _hours(self, questions: Questions) -> Iterator[Hour]:
        """Yield the questions hour by hour, in their order."""
        past = self._past(questions)
        start = np.floor(questions.times / HOUR) * HOUR
        for each in np.unique(start):
            rows = np.flatnonzero(start == each)
            known = self.log.hours(float(each), self.config.candidate_days * 24.0)
            items = np.unique(self.log.items[known])
            if len(items):
                yield Hour(float(each), rows, items, past.some(rows), self.number, self.log)

    def _past(self, questions: Questions) -> Snapshot:
        return snapshot_at(self.corpus, questions.users, questions.times, [self.config.service])

    @cached_property
    def _query_hours(self) -> dict[str, list[Hour]]:
        return {"valid": list(self._hours(self.valid)), "test": list(self._hours(self.test))}

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return popularity, recent popularity, item-kNN, last-item transitions."""
        popular = [RecentPopularity(recent=each) for each in (False, True)]
        return [*popular, HourlyItemKNN(), Transitions()]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return "fitted" of the rankers, the others of models, zero-shot of those with items."""
        if probe == "zero-shot":
            return has_items(model)
        return has_vectors(model) != (probe == "fitted")

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each user asked. ValueError for a model without vectors of items."""
        if probe == "fitted":
            setting, _ = self._tuned(model)  # pyright: ignore[reportArgumentType]
            hours = self._query_hours["test"]
            ranks = self._ranks(hours, self.test, lambda h: model.scores(h, setting))  # pyright: ignore[reportAttributeAccessIssue]
            return self._scored(ranks, setting)
        if probe == "zero-shot":
            return self._zero_shot(model_of(model))
        return self._of_vectors(model_of(model), alone=probe == "vector alone")

    def _tuned(self, ranker: HourRanker) -> tuple[Setting, float]:
        """Return the setting of the best NDCG@10 on the valid day, the first of equals, and it."""
        hours = self._query_hours["valid"]

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
        self, hours: Sequence[Hour], questions: Questions, scores: Callable[[Hour], np.ndarray]
    ) -> Ranks:
        """Return where each asked item stands among its hour's items, those read before left out.

        Of the last clicks of a day .6 % are on an item that the user had clicked before.
        """
        return concatenated([self._hour_ranks(hour, questions, scores(hour)) for hour in hours])

    def _hour_ranks(self, hour: Hour, questions: Questions, scores: np.ndarray) -> Ranks:
        clicked = hour.clicked()
        seen = Ragged(clicked.indices.astype(np.int64), clicked.indptr.astype(np.int64))
        return rank_scores([scores], hour.place(questions.items[hour.rows]), seen)

    def _zero_shot(self, model: Model) -> Scored:
        items = items_of(model)
        users = model.users(self._past(self.test))

        def scores(hour: Hour) -> np.ndarray:
            return users[hour.rows].astype(np.float64) @ items[hour.items].T

        return self._scored(self._ranks(self._query_hours["test"], self.test, scores), {})

    def _of_vectors(self, model: Model, *, alone: bool) -> Scored:
        """Choose the strength and the weight on the valid day, learn every hour of both days."""
        period = self.config.opens - DAY - HOURS * HOUR, self.config.opens + DAY
        clicks = ClickVectors.of(model, self.corpus, self.config.service, self.log, period)
        weights = (1.0,) if alone else WEIGHTS
        totals = np.zeros((len(STRENGTHS), len(weights)))
        for hour in self._query_hours["valid"]:
            share = 0.0 if alone else self._share(hour)
            click_rows = self.valid.clicks[hour.rows]
            for at, gain in enumerate(clicks.gains(hour, click_rows, STRENGTHS)):
                for number, weight in enumerate(weights):
                    ranks = self._hour_ranks(hour, self.valid, share + weight * gain)
                    totals[at, number] += ranks.ndcg(10).sum()
        at, number = np.unravel_index(int(np.argmax(np.round(totals, 9))), totals.shape)
        strength, weight = STRENGTHS[at], weights[number]

        def scores(hour: Hour) -> np.ndarray:
            (gain,) = clicks.gains(hour, self.test.clicks[hour.rows], [strength])
            return (0.0 if alone else self._share(hour)) + weight * gain

        chosen = {
            "strength": strength,
            **({} if alone else {"weight": weight, "hours": self._recent}),
        }
        return self._scored(self._ranks(self._query_hours["test"], self.test, scores), chosen)

    def _share(self, hour: Hour) -> np.ndarray:
        """Return each ranked item's share (m,) of the recent clicks, zeros where there is none."""
        counts = hour.counts(self._recent)
        return counts / max(counts.sum(), 1)

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
