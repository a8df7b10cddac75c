"""Next-item models on the test items of their own sequences, in full ranking, by raw scores.

    leave one out   among all items once with and once without what the history holds
    long tail       by how often the target is trained on        (benchmarks/tasks/stress.py)
    cold start      where the model reads the newest events alone
    corruption      where events of the input are lost or replaced
    rollout         ten steps of its own continuation            (benchmarks/tasks/rollout.py)

Of a model that was trained on several services `sequences.services` ask one alone, with its items
for the candidates: transfer between services is leave one out of models that were trained on other
services too (scratch, mix, diff), beside one that was not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from benchmarks.baselines.next_item_models import (
    ItemModel,
    ItemPopularity,
    ServiceItems,
    TrainedItems,
)
from benchmarks.external.rectools_sasrec import RectoolsConfig, RectoolsSasrec
from benchmarks.protocols import Model, Probe, Scored, TaskBaseline
from benchmarks.tasks.conditions import Answers, key
from benchmarks.tasks.rollout import Futures, futures, rollout
from benchmarks.tasks.stress import cold_start, corruption, long_tail
from clue.data.corpus import Corpus
from clue.data.sequences import EvalQueries, Sequences, SequencesConfig
from clue.evaluation.ranking import losses, rank, top

SEEN = ("seen kept", "seen left out")
Kind: TypeAlias = Literal["leave one out", "long tail", "cold start", "corruption", "rollout"]


@dataclass(frozen=True, kw_only=True)
class ItemRankingConfig:
    """A `kind` of question about the test items of `sequences`, those of the models' training.

    `filter_seen` leaves what a history holds out of the ranking: right for films, not for shops;
    leave one out measures both, and takes this one for its main measure. `lengths` are those of
    cold start, `rates` those of corruption, whose input is the newest `events`; `steps` those of
    the rollout. At most `most` test items are asked, the first of a fixed shuffle. `rectools` is
    an external model of leave one out, null for none.
    """

    name: str
    kind: Kind
    sequences: SequencesConfig = field(default_factory=SequencesConfig)
    filter_seen: bool = False
    lengths: list[int] = field(default_factory=lambda: [1, 2, 5, 10, 20, 50])
    rates: list[float] = field(default_factory=lambda: [0.0, 0.1, 0.2, 0.3, 0.5])
    events: int = 50
    steps: int = 10
    most: int = 1_000_000
    seed: int = 0
    rectools: RectoolsConfig | None = None

    def __post_init__(self) -> None:
        """Validate lengths, rates and counts."""
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError(f"lengths are {self.lengths}; they must be positive counts")
        if self.rates[:1] != [0.0] or not all(0 <= rate <= 1 for rate in self.rates):
            raise ValueError(f"rates are {self.rates}; they are shares, the first of them 0")
        for name in ("events", "steps", "most"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a positive count")
        if self.rectools is not None and self.kind != "leave one out":
            raise ValueError(f"{self.name}: rectools answers leave one out alone, not {self.kind}")

    def build(self, corpus: Corpus) -> "ItemRankingTask":
        """Return the task. ValueError where the corpus has no such sequence."""
        return ItemRankingTask(self, corpus)


class ItemRankingTask:
    """The test items of one configuration of sequences; see `ItemRankingConfig`."""

    version = 1
    probes: tuple[Probe, ...] = ("raw scores",)

    def __init__(self, config: ItemRankingConfig, corpus: Corpus) -> None:
        """Find the sequences and what is asked of them."""
        self.name, self.family = config.name, config.kind
        self.config, self.corpus = config, corpus
        self.sequences = Sequences(corpus, config.sequences)
        self.catalogue = self.sequences.catalogue
        self.services = {corpus.services[number] for number in self.catalogue.services}
        own = {
            "long tail": (),
            "cold start": ("lengths",),
            "corruption": ("rates", "events", "seed"),
            "rollout": ("steps",),
        }
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "kind": config.kind,
            "sequences": asdict(config.sequences),
            "filter_seen": config.filter_seen,
            "most": config.most,
            "items": len(self.catalogue),
            **{name: getattr(config, name) for name in own.get(config.kind, ())},
        }

    @cached_property
    def queries(self) -> EvalQueries:
        """The test items. ValueError where there is none."""
        queries = self.sequences.questions("test").some(self.config.most)
        if not len(queries.targets):
            raise ValueError(f"{self.corpus.path}: no sequence has a test item; log more events")
        return queries

    @cached_property
    def futures(self) -> Futures:
        """What a rollout is held against."""
        return futures(self.sequences, self.config.steps, self.config.most)

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return popularity, and RecTools' SASRec where it is asked for."""
        rows: list[Any] = [ItemPopularity(self.sequences.counts())]
        if self.config.rectools is not None:
            settings = self.config.rectools
            rows += [RectoolsSasrec(settings, self.sequences, seed=s) for s in settings.seeds]
        return rows

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return whether it scores items, those of the task's services among them."""
        if isinstance(model, TrainedItems):
            return self.services <= model.services
        return isinstance(model, ItemPopularity | RectoolsSasrec)

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each test item, or each future.

        ValueError where the model may have been trained on the answers, or lacks an item.
        """
        if isinstance(model, TrainedItems):
            model.check_held_out(self.config.sequences, self.services)
            answers = self.answers(ServiceItems(model, model.rows(self.catalogue)))
            return answers.scored(self.corpus.user_ids, model.about())
        assert isinstance(model, ItemPopularity | RectoolsSasrec)
        return self.answers(model).scored(self.corpus.user_ids, model.chosen)

    def answers(self, model: ItemModel) -> Answers:
        """Return a model's answers, whose table is of the task's catalogue."""
        config, seen = self.config, self.config.filter_seen
        match config.kind:
            case "leave one out":
                answers = leave_one_out(model, self.queries, filter_seen=seen)
                if isinstance(model, RectoolsSasrec):  # the log of a target unknown to it is -1e9
                    for condition in SEEN:
                        del answers.measures[key("cross-entropy", condition)]
                return answers
            case "long tail":
                return long_tail(model, self.queries, self.sequences.counts(), filter_seen=seen)
            case "cold start":
                return cold_start(model, self.queries, config.lengths, filter_seen=seen)
            case "corruption":
                pool = np.flatnonzero(self.sequences.counts())
                draws = {"events": config.events, "seed": config.seed}
                return corruption(
                    model, self.queries, config.rates, pool, **draws, filter_seen=seen
                )
            case "rollout":
                return rollout(model, self.futures, filter_seen=seen)


def leave_one_out(model: ItemModel, queries: EvalQueries, *, filter_seen: bool) -> Answers:
    """Return NDCG@10, HR@10, MRR, cross-entropy in nats and coverage@10 of the test items.

    Once among all items ("seen kept") and once without those of the history ("seen left out");
    published tables differ in it. `filter_seen` puts the second first.
    """
    states, answers = model.states(queries.histories), Answers(queries.users)
    for left_out in (filter_seen, not filter_seen):
        seen = queries.histories if left_out else None
        condition = SEEN[left_out]
        ranks = rank(states, model.table, queries.targets, seen)
        answers.top_10(condition, ranks)
        answers.mean("MRR", condition, ranks.reciprocal())
        nats = losses(states, model.table, queries.targets, seen)
        answers.mean("cross-entropy", condition, nats, lower=True)
        lists = top(states, model.table, min(10, len(model.table)), seen)
        answers.coverage(condition, lists, len(model.table))
        answers.columns[f"rank [{condition}]"] = ranks.expected()
        answers.columns[f"candidates [{condition}]"] = ranks.of
    return answers
