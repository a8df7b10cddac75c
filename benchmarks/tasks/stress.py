"""The tasks that change the question: which target, how short a history, how broken an input.

All rank the test item among the same candidates at every condition: with `filter_seen` what the
whole true history holds is left out, however much of it the model is shown.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from benchmarks.baselines.next_item_models import ItemModel
from benchmarks.hard_tasks.scores import Key, Scores
from clue.data.ragged import Ragged
from clue.data.sequences import EvalQueries
from clue.data.views import uniform
from clue.evaluation.ranking import rank, top

GROUPS = 4


def long_tail(
    model: ItemModel, asked: EvalQueries, counts: np.ndarray, *, filter_seen: bool
) -> Scores:
    """Return HR@10 and NDCG@10 by how popular the target is: "G1" holds the most popular items."""
    states = model.states(asked.histories)
    seen = asked.histories if filter_seen else None
    ranks = rank(states, model.table, asked.targets, seen)
    group = popularity_groups(counts, asked.targets)[asked.targets]
    columns: dict[Key, np.ndarray] = {}
    for number in np.unique(group):
        for name, values in (("HR@10", ranks.hit(10)), ("NDCG@10", ranks.ndcg(10))):
            columns[f"G{number + 1}", name] = np.where(group == number, values, np.nan)
    return Scores(asked.users, columns, len(model.table))


def popularity_groups(counts: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the group (V,) of each item, 0 the most popular: each has a quarter of the `targets`.

    Zhang et al. do not say where they cut. Here items are taken by falling training `counts` (V,),
    those of equal counts together, so that the quarters are as equal as whole counts allow.
    """
    distinct, level = np.unique(-counts, return_inverse=True)
    asked = np.bincount(level[targets], minlength=len(distinct))
    middle = np.cumsum(asked) - asked / 2
    return np.minimum(GROUPS * middle / len(targets), GROUPS - 1).astype(np.int64)[level]


def cold_start(
    model: ItemModel, asked: EvalQueries, lengths: Sequence[int], *, filter_seen: bool
) -> Scores:
    """Return HR@10, NDCG@10 and coverage@10 where the model reads the newest events alone.

    Who has fewer events than a length asks for is read in full.
    """
    seen = asked.histories if filter_seen else None
    columns: dict[Key, np.ndarray] = {}
    for length in lengths:
        states = model.states(asked.histories.last(length))
        ranks = rank(states, model.table, asked.targets, seen)
        columns[str(length), "HR@10"] = ranks.hit(10)
        columns[str(length), "NDCG@10"] = ranks.ndcg(10)
        columns[str(length), "coverage@10"] = top(states, model.table, 10, seen)
    return Scores(asked.users, columns, len(model.table))


def robustness(
    model: ItemModel,
    asked: EvalQueries,
    rates: Sequence[float],
    pool: np.ndarray,
    *,
    events: int,
    seed: int,
    filter_seen: bool,
) -> Scores:
    """Return HR@10, NDCG@10 and the share of it retained as the input loses or swaps events.

    The input are the newest `events` of a history. `rates` begin with 0. What is put in comes from
    `pool`, each of its items as likely as the other.
    """
    seen = asked.histories if filter_seen else None
    whole = asked.histories.last(events)
    columns: dict[Key, np.ndarray] = {}
    ratios: dict[Key, tuple[Key, Key]] = {}
    for kind in ("deleted", "replaced"):
        for rate in rates:
            told = corrupted(whole, asked.users, kind, rate, pool, seed)
            ranks = rank(model.states(told), model.table, asked.targets, seen)
            name = f"{kind} {rate:.0%}"
            columns[name, "HR@10"] = ranks.hit(10)
            columns[name, "NDCG@10"] = ranks.ndcg(10)
            ratios[name, "retained NDCG@10"] = (name, "NDCG@10"), (f"{kind} 0%", "NDCG@10")
    return Scores(asked.users, columns, len(model.table), ratios)


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
    of the seed, of the history's entry in `keys` (n,) and of the place of the event.
    """
    size = histories.lengths
    row = np.repeat(np.arange(len(size)), size)
    place = np.arange(len(row)) - np.repeat(histories.offsets[:-1], size)
    key = keys[row]
    order = np.lexsort((uniform(seed, 1, key, place), row))
    turn = np.empty_like(order)  # whose turn it is to go, from 0 in each history
    turn[order] = place
    most = np.maximum(size - 1, 0) if kind == "deleted" else size
    taken = np.minimum((rate * size + uniform(seed, 2, keys)).astype(np.int64), most)
    gone = turn < taken[row]
    if kind == "deleted":
        return histories.mask(~gone)
    other = pool[(uniform(seed, 3, key, place) * len(pool)).astype(np.int64)]
    return Ragged(np.where(gone, other, histories.values), histories.offsets)
