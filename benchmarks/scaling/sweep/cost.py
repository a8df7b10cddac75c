"""What a run costs and what it learns from, counted before it is trained."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from clue.data.corpus import Corpus
from clue.data.groups import GroupSampler
from clue.data.sequences import Sequences
from clue.run.objectives.contrastive import Contrastive
from clue.run.objectives.next_item import NextItemObjective
from clue.run.pretrain_config import PretrainConfig
from clue.train.flops import Work, sequence_work
from clue.train.packing import Budget, pack_sequences

SAMPLED = 4  # batches whose FLOPs are counted; from step to step they differ by a few per cent


@dataclass(frozen=True)
class Facts:
    """What is known of a run before it begins; the same for all its lengths.

    `step_flops` are the model FLOPs of a step, forward and backward, the mean of SAMPLED batches;
    `params` counts all weights, `params_hidden` those of no embedding table. `users` and `events`
    are what it may learn from, `epoch` the steps in which it has read them once. `eval_set` names
    the held-out users (or questions): equal where losses compare.
    """

    step_flops: float
    params: int
    params_hidden: int
    users: int
    events: int
    epoch: float
    eval_set: str


def facts_of(run: PretrainConfig, corpus: Corpus) -> Facts:
    """Return the facts of a run; ValueError where corpus and config do not fit together."""
    objective = (NextItemObjective if run.objective == "next_item" else Contrastive)(run, corpus)
    with torch.device("meta"):  # weights without memory, to be counted
        model = objective.model()
    weights = sum(weight.numel() for weight in model.parameters())
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    hidden = weights - sum(table.weight.numel() for table in tables)
    if isinstance(objective, Contrastive):
        users, events = _drawn_from(objective)
        epoch = users / run.batch
    else:
        sequences = Sequences(corpus, run.sequences, run.users)
        learnt = sequences.trained >= 2
        users = len(np.unique(sequences.users[learnt]))
        events, epoch = int(sequences.trained[learnt].sum()), float(objective.sampler.per_epoch)
    flops = sum(batch_flops(objective, step) for step in range(SAMPLED)) / SAMPLED
    return Facts(flops, weights, hidden, users, events, epoch, _eval_set(objective, corpus))


def batch_flops(objective: Contrastive | NextItemObjective, step: int) -> float:
    """Return the model FLOPs of step `step` (from 0) on one process."""
    if isinstance(objective, Contrastive):
        return objective.flops(Work.of(objective.draw(step))).model
    batch = objective.draw(step)
    views = pack_sequences(batch, Budget(2**16), torch.device("cpu"))
    return objective.flops(sequence_work(batch, views, objective.catalogue)).model


def _drawn_from(objective: Contrastive) -> tuple[int, int]:
    """Return how many users some batch may hold, and their events."""
    sampler = objective.sampler
    samplers = sampler.samplers if isinstance(sampler, GroupSampler) else [sampler]
    users = [pool for one in samplers for kind, pool in one.pools.items() if one.shares[kind]]
    distinct = np.unique(np.concatenate(users))
    return len(distinct), int(samplers[0].histories.lengths[:, distinct].sum())


def _eval_set(objective: Contrastive | NextItemObjective, corpus: Corpus) -> str:
    """Return a hash of the queries and their users; how much of a history is read is no part."""
    if isinstance(objective, Contrastive):
        queries = [(pairs.name, pairs.users.tolist()) for pairs in objective.pairs]
    else:
        questions = objective.questions
        queries = [("next item", [*questions.users.tolist(), *questions.targets.tolist()])]
    text = json.dumps([corpus.fingerprint, queries])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
