"""Multi-domain transfer: one service's questions to models that were taught on others too.

    scratch   trained on the target service alone
    mix       trained on all services, the target's among them
    diff      trained on all but the target, then, items apart, on the target

All kinds are asked the same: the last event of a user's sequence in the target service, after the
events before it in that service, among the items of that service.
"""

from collections.abc import Mapping

import numpy as np

from benchmarks.baselines.next_item_models import ItemModel, TrainedItems
from benchmarks.hard_tasks.scores import Key, Scores
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.data.sequences import Catalogue, EvalQueries, Sequences, SequencesConfig
from clue.evaluation.ranking import rank


class OneService:
    """A model of several services, as a model of the items of one."""

    def __init__(self, model: ItemModel, rows: np.ndarray) -> None:
        """`rows` (V,) are the model's rows of the service's items."""
        self.model, self.rows = model, rows
        self.table: np.ndarray = model.table[rows]

    def states(self, histories: Ragged) -> np.ndarray:
        """Return the state (n, D) after each history of the service's rows."""
        return self.model.states(Ragged(self.rows[histories.values], histories.offsets))


def target_sequences(corpus: Corpus, target: str) -> Sequences:
    """Return the target service's own sequences; ValueError where the corpus lacks it."""
    return Sequences(corpus, SequencesConfig(services=[target], join="service"))


def on_target(model: TrainedItems, corpus: Corpus, target: str) -> OneService:
    """Return a trained model over the items of the target service.

    Raises ValueError where it does not know them, and where it was trained on the answers: only
    sequences of one service each, leave-one-out, hold out the last event of every service.
    """
    config, path = model.sequences, model.checkpoint.path
    theirs = config.services or list(corpus.services)
    if target not in theirs:
        raise ValueError(f"{path} knows {', '.join(theirs)} and not the target {target}")
    if config.split != "leave_one_out" or (len(theirs) > 1 and config.join != "service"):
        raise ValueError(
            f"{path} was trained with sequences.split={config.split} and sequences.join="
            f"{config.join}, which may hold the answers for {target}; train it with "
            "sequences.split=leave_one_out and sequences.join=service"
        )
    all_rows = Catalogue(corpus, config.services).rows
    return OneService(model, all_rows[Catalogue(corpus, [target]).items])


def transfer(models: Mapping[str, ItemModel], asked: EvalQueries, *, filter_seen: bool) -> Scores:
    """Return HR@10 and NDCG@10 of each kind, and by how much NDCG@10 is above that of `scratch`."""
    seen = asked.histories if filter_seen else None
    columns: dict[Key, np.ndarray] = {}
    for kind, model in models.items():
        ranks = rank(model.states(asked.histories), model.table, asked.targets, seen)
        columns[kind, "HR@10"] = ranks.hit(10)
        columns[kind, "NDCG@10"] = ranks.ndcg(10)
        if kind != "scratch" and "scratch" in models:
            columns[kind, "NDCG@10 - scratch"] = (
                columns[kind, "NDCG@10"] - columns["scratch", "NDCG@10"]
            )
    items = len(next(iter(models.values())).table)
    return Scores(asked.users, columns, items)
