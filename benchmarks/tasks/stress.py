"""Stress tests of next-item models: rare targets, short histories, broken ones (arXiv 2311.11351).

All rank the test item among the same candidates under every condition: with `filter_seen` what the
whole true history holds is left out, however much of it the model reads.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from benchmarks.baselines.next_item_models import ItemModel
from benchmarks.tasks.conditions import Answers, key
from clue.data.ragged import Ragged
from clue.data.sequences import EvalQueries
from clue.data.views import uniform
from clue.evaluation.ranking import rank, top

GROUPS = 4


def long_tail(
    model: ItemModel, queries: EvalQueries, counts: np.ndarray, *, filter_seen: bool
) -> Answers:
    """Return NDCG@10 and HR@10 by how popular the target is: "G1" holds the most popular items.

    The main measure is that of the least popular quarter.
    """
    states = model.states(queries.histories)
    seen = queries.histories if filter_seen else None
    ranks = rank(states, model.table, queries.targets, seen)
    group = popularity_groups(counts, queries.targets)[queries.targets]
    answers = Answers(queries.users)
    numbers = np.unique(group)
    for number in numbers:
        for name, values in (("NDCG@10", ranks.ndcg(10)), ("HR@10", ranks.hit(10))):
            answers.subset_mean(name, f"G{number + 1}", values, group == number)
    return answers.main_first(key("NDCG@10", f"G{numbers[-1] + 1}"))


def popularity_groups(counts: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the group (V,) of each item, 0 the most popular: each has a quarter of the `targets`.

    Zhang et al. do not say where they cut. Here items are taken by falling training `counts` (V,),
    those of equal counts together, so that the quarters are as equal as whole counts allow.
    """
    distinct, level = np.unique(-counts, return_inverse=True)
    per_level = np.bincount(level[targets], minlength=len(distinct))
    middle = np.cumsum(per_level) - per_level / 2
    return np.minimum(GROUPS * middle / len(targets), GROUPS - 1).astype(np.int64)[level]


def cold_start(
    model: ItemModel, queries: EvalQueries, lengths: Sequence[int], *, filter_seen: bool
) -> Answers:
    """Return NDCG@10, HR@10 and coverage@10 where the model reads the newest events alone.

    A history of fewer events than a length is read in full. The first length is the main one.
    """
    seen = queries.histories if filter_seen else None
    answers = Answers(queries.users)
    for length in lengths:
        states = model.states(queries.histories.last(length))
        answers.top_10(str(length), rank(states, model.table, queries.targets, seen))
        answers.coverage(str(length), top(states, model.table, 10, seen), len(model.table))
    return answers


def corruption(
    model: ItemModel,
    queries: EvalQueries,
    rates: Sequence[float],
    pool: np.ndarray,
    *,
    events: int,
    seed: int,
    filter_seen: bool,
) -> Answers:
    """Return NDCG@10, HR@10 and the share of NDCG@10 retained as the input loses or swaps events.

    The input is the newest `events` of a history. `rates` begin with 0. What is put in comes from
    `pool`, all of its items equally likely. The main measure is NDCG@10 at the last rate of
    replacement: a model that reads nothing retains everything.
    """
    seen = queries.histories if filter_seen else None
    whole = queries.histories.last(events)
    answers, main = Answers(queries.users), ""
    for kind in ("deleted", "replaced"):
        for rate in rates:
            read = corrupted(whole, queries.users, kind, rate, pool, seed)
            ranks = rank(model.states(read), model.table, queries.targets, seen)
            condition = f"{kind} {rate:.0%}"
            main = answers.top_10(condition, ranks)
            answers.ratio("retained NDCG@10", condition, main, key("NDCG@10", f"{kind} 0%"))
    return answers.main_first(main)


def corrupted(
    histories: Ragged,
    keys: np.ndarray,
    kind: Literal["deleted", "replaced"],
    rate: float,
    pool: np.ndarray,
    seed: int,
) -> Ragged:
    """Return the histories with a share `rate` of each one's events deleted or replaced.

    A history of n events loses rate * n of them, rounded up or down by chance so that the share
    is right on average, and keeps one. What a rate takes, a higher one takes too. All is a function
    of the seed, of the history's entry in `keys` (n,) and of the position of the event.
    """
    size = histories.lengths
    row = np.repeat(np.arange(len(size)), size)
    position = np.arange(len(row)) - np.repeat(histories.offsets[:-1], size)
    user = keys[row]
    order = np.lexsort((uniform(seed, 1, user, position), row))
    turn = np.empty_like(order)  # in which order events go, from 0 in each history
    turn[order] = position
    most = np.maximum(size - 1, 0) if kind == "deleted" else size
    taken = np.minimum((rate * size + uniform(seed, 2, keys)).astype(np.int64), most)
    gone = turn < taken[row]
    if kind == "deleted":
        return histories.mask(~gone)
    other = pool[(uniform(seed, 3, user, position) * len(pool)).astype(np.int64)]
    return Ragged(np.where(gone, other, histories.values), histories.offsets)
