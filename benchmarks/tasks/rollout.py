"""Rollout: a model continues a user's history with its own best items, against what came."""

from dataclasses import dataclass

import numpy as np

from benchmarks.baselines.next_item_models import ItemModel
from benchmarks.tasks.conditions import Answers
from clue.data.ragged import Ragged
from clue.data.sequences import Sequences
from clue.evaluation.ranking import rank, top


@dataclass(frozen=True)
class Futures:
    """Q histories of catalogue rows and what came after each: `truth` (Q, steps), in order."""

    users: np.ndarray
    histories: Ragged
    truth: np.ndarray


def futures(sequences: Sequences, steps: int, most: int) -> Futures:
    """Return at most `most` futures: the last `steps` events of a sequence, none of them trained on
    and none the valid item, by which a checkpoint may have been chosen.

    Raises ValueError where no sequence has as many.
    """
    size = sequences.rows.lengths
    begin = size - steps
    used = np.maximum(sequences.trained, sequences.valid_at + 1)
    rows = np.flatnonzero((begin >= used) & (begin >= 1) & (sequences.trained > 0))
    if not len(rows):
        raise ValueError(
            f"no sequence has {steps} events after those it was trained and validated on; train "
            f"with sequences.held_out={steps + 1}, or with sequences.split=temporal"
        )
    rows = rows[np.sort(np.random.default_rng(0).permutation(len(rows))[:most])]
    starts = sequences.rows.offsets[rows]
    before = Ragged.slices(starts, begin[rows])
    after = Ragged.slices(starts + begin[rows], np.full(len(rows), steps))
    return Futures(
        sequences.users[rows],
        Ragged(sequences.rows.values[before.values], before.offsets),
        sequences.rows.values[after.values].reshape(-1, steps),
    )


def rollout(model: ItemModel, queries: Futures, *, filter_seen: bool) -> Answers:
    """Return the recall of the whole future by a rollout's items, and HR@10 at each step of it.

    A step's best item is appended to the history that the next step reads; step k asks for the true
    item k. With `filter_seen` no item of the history or of the rollout is rolled out again, so that
    a true item which the rollout gave too early is a miss at its own step. The recall, the main
    measure, is the share of the distinct items of the future that are anywhere in the rollout.
    """
    steps = queries.truth.shape[1]
    history = queries.histories
    answers = Answers(queries.users)
    for step in range(steps):
        states = model.states(history)
        seen = history if filter_seen else None
        hit = rank(states, model.table, queries.truth[:, step], seen).hit(10)
        if filter_seen:
            early = (_rolled(history, step) == queries.truth[:, step, None]).any(1)
            hit = np.where(early, 0, hit)
        answers.mean("HR@10", str(step + 1), hit)
        history = appended(history, top(states, model.table, 1, seen)[:, 0])
    recall = [
        len(np.intersect1d(rolled, true)) / len(np.unique(true))
        for rolled, true in zip(_rolled(history, steps), queries.truth, strict=True)
    ]
    return answers.main_first(answers.mean("recall", "all", np.array(recall)))


def appended(histories: Ragged, items: np.ndarray) -> Ragged:
    """Return each history with one more item (n,) at its end."""
    values = np.insert(histories.values, histories.offsets[1:], items)
    return Ragged(values, histories.offsets + np.arange(len(histories.offsets)))


def _rolled(histories: Ragged, steps: int) -> np.ndarray:
    """Return the last `steps` items (n, steps) of each history."""
    positions = histories.offsets[1:, None] - steps + np.arange(steps)
    return histories.values[positions]
