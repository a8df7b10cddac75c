"""Trajectory: a model rolls out a user's future by itself, and is held against what came."""

from dataclasses import dataclass

import numpy as np

from benchmarks.baselines.next_item_models import ItemModel
from benchmarks.hard_tasks.scores import Key, Scores
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
    """Return so many futures: the last `steps` events of a sequence, none of them trained on
    and none the valid item, by which a checkpoint may have been chosen.

    Raises ValueError where no sequence has as many.
    """
    size = sequences.rows.lengths
    begin = size - steps
    told = np.maximum(sequences.trained, sequences.valid_at + 1)
    asked = np.flatnonzero((begin >= told) & (begin >= 1) & (sequences.trained > 0))
    if not len(asked):
        raise ValueError(
            f"no sequence has {steps} events after those it was trained and validated on; train "
            f"with sequences.held_out={steps + 1}, or with sequences.split=temporal"
        )
    asked = asked[np.sort(np.random.default_rng(0).permutation(len(asked))[:most])]
    starts = sequences.rows.offsets[asked]
    before = Ragged.slices(starts, begin[asked])
    after = Ragged.slices(starts + begin[asked], np.full(len(asked), steps))
    return Futures(
        sequences.users[asked],
        Ragged(sequences.rows.values[before.values], before.offsets),
        sequences.rows.values[after.values].reshape(-1, steps),
    )


def trajectory(model: ItemModel, asked: Futures, *, filter_seen: bool) -> Scores:
    """Return HR@10 at each step of a rollout, and the recall of the whole future by its items.

    A step's best item is appended to the history that the next step reads; step k asks for the true
    item k. With `filter_seen` no item of the history or of the rollout is rolled out again, so that
    a true item which the rollout gave too early is a miss at its own step. "recall" is the share of
    the distinct items of the future that are anywhere in the rollout.
    """
    steps = asked.truth.shape[1]
    history = asked.histories
    columns: dict[Key, np.ndarray] = {}
    for step in range(steps):
        states = model.states(history)
        seen = history if filter_seen else None
        hit = rank(states, model.table, asked.truth[:, step], seen).hit(10)
        if filter_seen:
            early = (_rolled(history, step) == asked.truth[:, step, None]).any(1)
            hit = np.where(early, 0, hit)
        columns[str(step + 1), "HR@10"] = hit
        history = appended(history, top(states, model.table, 1, seen)[:, 0])
    rolled = _rolled(history, steps)
    recall = [
        len(np.intersect1d(mine, true)) / len(np.unique(true))
        for mine, true in zip(rolled, asked.truth, strict=True)
    ]
    columns["all", "recall"] = np.array(recall)
    return Scores(asked.users, columns, len(model.table))


def appended(histories: Ragged, items: np.ndarray) -> Ragged:
    """Return each history with one more item (n,) at its end."""
    values = np.insert(histories.values, histories.offsets[1:], items)
    return Ragged(values, histories.offsets + np.arange(len(histories.offsets)))


def _rolled(histories: Ragged, steps: int) -> np.ndarray:
    """Return the last `steps` items (n, steps) of each history."""
    places = histories.offsets[1:, None] - steps + np.arange(steps)
    return histories.values[places]
