"""Held-out next items: at which rank is the item that came next, among the whole catalogue?"""

import numpy as np
import torch

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.data.sequences import EvalQueries
from clue.data.windows import WindowQuestions
from clue.evaluation.encode import last_states, predictive_items, predictive_states
from clue.evaluation.ranking import Ranks, table_ranks
from clue.nn.decoder import NextItemDecoder
from clue.nn.predictive import PredictiveEncoder
from clue.train.losses.item_softmax import item_losses


def evaluate(model: NextItemDecoder, queries: EvalQueries) -> dict[str, float]:
    """Return cross-entropy in nats, R@10 (= HR@10: there is one target), NDCG@10 and MRR.

    The whole catalogue is ranked, items seen before included; ties count as in
    clue/evaluation/ranking.py. `entropy_se` is the standard error of the cross-entropy over the
    queries.
    """
    losses, ranks = losses_and_ranks(model, queries)
    return _figures(losses, ranks, len(model.decoder.item.weight))


def evaluate_predictive(
    model: PredictiveEncoder, corpus: Corpus, service: int, questions: WindowQuestions
) -> dict[str, float]:
    """Return the same figures of a service's next items, among all of its own."""
    histories, targets = questions.histories, questions.targets
    past_items, columns = np.unique(histories.values, return_inverse=True)
    inputs = predictive_items(model, corpus.item_tokens.take(past_items), past_items)
    states = predictive_states(model, inputs, Ragged(columns, histories.offsets), questions.marks)
    items = np.flatnonzero(corpus.item_service == service)
    table = predictive_items(model, corpus.item_tokens.take(items), items)
    places = torch.from_numpy(np.searchsorted(items, targets))
    losses = item_losses(states, places, table).double()
    return _figures(losses, table_ranks(states, places, table), len(items))


def _figures(losses: torch.Tensor, ranks: Ranks, candidates: int) -> dict[str, float]:
    return {
        "cross_entropy": losses.mean().item(),
        "entropy_se": losses.std(correction=0).item() / len(losses) ** 0.5,
        "recall_at_10": float(ranks.hit(10).mean()),
        "ndcg_at_10": float(ranks.ndcg(10).mean()),
        "mrr": float(ranks.reciprocal().mean()),
        "negatives": float(candidates - 1),
        "queries": float(len(losses)),
    }


def losses_and_ranks(model: NextItemDecoder, queries: EvalQueries) -> tuple[torch.Tensor, Ranks]:
    """Return the cross-entropy in nats (Q,), and the ranks among the whole catalogue."""
    table = model.decoder.item.weight.detach()
    states = last_states(model, queries.histories).to(table.device)
    targets = torch.from_numpy(queries.targets.astype(np.int64)).to(table.device)
    return item_losses(states, targets, table).double(), table_ranks(states, targets, table)
