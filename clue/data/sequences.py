"""Item sequences for next-item models: what is trained on, what is asked, and batches of windows.

A corpus becomes sequences of catalogue rows, oldest event first. **Ties**: events of one user at
one time stay in the order of the log within a service, and services in the order of the corpus;
sorting ties by item id instead, or by an unstable sort, changes a quarter of MovieLens' test items.

    leave_one_out   the last event of a sequence is the test item, the one before it the valid item,
                    all before those are trained on; sequences of fewer than 3 events are trained on
                    (H > 2 `held_out`: none of the last H is trained on, the first is the valid
                    item, and sequences of no more than H events are trained on)
    temporal        two moments cut all sequences: what is before the first is trained on, the first
                    event from the first moment on is the valid item, from the second on the test
                    item; a history is all that lies before its moment

Nobody's future is in anybody's training data under `temporal`; under `leave_one_out`, which the
published tables use, other users' later events are.

Batch k is a function of (seed, k, rank, world) and of nothing else, as in clue/data/batches.py.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from clue.data.corpus import Corpus, first_users
from clue.data.ragged import Ragged
from clue.data.views import uniform


@dataclass(frozen=True, kw_only=True)
class SequencesConfig:
    """Which events make sequences, and which of them are held out.

    `services` are those of the catalogue, all where empty. `join`: a user's events of several
    services become one sequence by `time`, or each `service` keeps its own, for logs whose order
    holds within a service alone. `held_out` last events of a sequence are left out of the training
    of `leave_one_out`: 2 as published; 11 leave a trajectory of ten after the valid item.
    `valid_share` and `test_share` of the events lie from the moments of `temporal` on: the moments
    are quantiles of all times.
    """

    services: list[str] = field(default_factory=list[str])
    join: Literal["time", "service"] = "time"
    split: Literal["leave_one_out", "temporal"] = "leave_one_out"
    held_out: int = 2
    valid_share: float = 0.1
    test_share: float = 0.1

    def __post_init__(self) -> None:
        """Validate that the shares leave something to learn from, and the tail both items."""
        if self.held_out < 2 or (self.held_out > 2 and self.split == "temporal"):
            raise ValueError(
                f"held_out is {self.held_out} with split={self.split}; leave_one_out holds out at "
                "least 2 events, and temporal takes its moments from the shares (leave it at 2)"
            )
        if min(self.valid_share, self.test_share) <= 0 or self.valid_share + self.test_share >= 1:
            raise ValueError(
                f"valid_share {self.valid_share} and test_share {self.test_share} must be positive "
                "and leave some events to train on"
            )


@dataclass(frozen=True)
class EvalQueries:
    """Q held-out events: `histories` before them, newest last, and `targets` (Q,), catalogue rows.

    `users` (Q,) index the corpus's users.
    """

    users: np.ndarray
    histories: Ragged
    targets: np.ndarray

    def some(self, most: int) -> "EvalQueries":
        """Return at most so many of them, the first of a fixed shuffle, in order."""
        rows = np.random.default_rng(0).permutation(len(self.targets))[:most]
        return self.at(np.sort(rows))

    def at(self, rows: np.ndarray) -> "EvalQueries":
        """Return those of the chosen rows, in the order asked for."""
        return EvalQueries(self.users[rows], self.histories.take(rows), self.targets[rows])


class Catalogue:
    """The V items that a model knows: `items` (V,) index the corpus's, `rows` (items,) go back.

    An item of the corpus that is none of them has row -1.
    """

    def __init__(self, corpus: Corpus, services: list[str]) -> None:
        """Raise ValueError for a service that the corpus lacks."""
        unknown = sorted(set(services) - set(corpus.services))
        if unknown:
            raise ValueError(
                f"sequences.services names {', '.join(unknown)}; {corpus.path} has "
                f"{', '.join(corpus.services)}"
            )
        self.corpus = corpus
        self.services = [n for n, s in enumerate(corpus.services) if not services or s in services]
        self.items = np.flatnonzero(np.isin(corpus.item_service, self.services))
        self.rows = np.full(corpus.num_items, -1, np.int32)
        self.rows[self.items] = np.arange(len(self.items))

    def __len__(self) -> int:
        """V."""
        return len(self.items)

    def columns(self) -> dict[str, pa.Array]:
        """Return `service` and `item_id` of each row, as a checkpoint keeps them."""
        names = pa.array([self.corpus.services[n] for n in self.corpus.item_service[self.items]])
        return {"service": names, "item_id": self.corpus.item_ids.take(pa.array(self.items))}


class Sequences:
    """The N sequences of a corpus: `rows` over the catalogue, `users` (N,) whose they are.

    `trained` (N,) says how many events of each are trained on; `valid_at` and `test_at` (N,) are
    the places of the held-out events, -1 where there is none.
    """

    def __init__(self, corpus: Corpus, config: SequencesConfig, users: int = 0) -> None:
        """Trained on are the sequences of the first `users` (`first_users`), of all where it is 0.

        Questions are asked of everybody. Raises ValueError where nothing is left to train on or to
        ask.
        """
        self.catalogue = Catalogue(corpus, config.services)
        parts = [(corpus.items_of(n), corpus.timestamps_of(n)) for n in self.catalogue.services]
        if config.join == "time":
            histories, times = Ragged.merge_by_time(parts)
            owners = np.arange(corpus.num_users)
        else:
            histories = Ragged.concat([items for items, _ in parts])
            times = Ragged.concat([when for _, when in parts])
            owners = np.tile(np.arange(corpus.num_users), len(parts))
        some = np.flatnonzero(histories.lengths)
        histories, times = histories.take(some), times.take(some)
        self.users = owners[some]
        self.rows = Ragged(self.catalogue.rows[histories.values], histories.offsets)
        self.trained, self.valid_at, self.test_at = _held_out(times, config)
        chosen = np.isin(self.users, first_users(np.unique(self.users), users))
        self.trained = np.where(chosen, self.trained, 0)
        if not ((self.trained >= 2).any() and (self.valid_at >= 0).any()):
            raise ValueError(
                f"{corpus.path}: no sequence has two events to train on and one held out under "
                f"sequences.split={config.split}; give longer histories"
            )

    def questions(self, part: Literal["valid", "test"]) -> EvalQueries:
        """Return the held-out events of a part, with all that lies before them."""
        at = self.valid_at if part == "valid" else self.test_at
        known = np.flatnonzero(at >= 0)
        starts, size = self.rows.offsets[known], at[known]
        places = Ragged.slices(starts, size)
        histories = Ragged(self.rows.values[places.values], places.offsets)
        return EvalQueries(self.users[known], histories, self.rows.values[starts + size])

    def training(self) -> Ragged:
        """Return the part of each sequence that is trained on."""
        places = Ragged.slices(self.rows.offsets[:-1], self.trained)
        return Ragged(self.rows.values[places.values], places.offsets)

    def counts(self) -> np.ndarray:
        """Return how often each item is trained on, int64 (V,)."""
        return np.bincount(self.training().values, minlength=len(self.catalogue))


def _held_out(times: Ragged, config: SequencesConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return `trained`, `valid_at` and `test_at` of sequences with these times."""
    size = times.lengths
    if config.split == "leave_one_out":
        first = size - config.held_out
        enough = first >= 1
        return (
            np.where(enough, first, size),
            np.where(enough, first, -1),
            np.where(enough, size - 1, -1),
        )
    held = config.valid_share + config.test_share
    moments = np.quantile(times.values, [1 - held, 1 - config.test_share], method="lower")
    before = [times.mask(times.values < moment).lengths for moment in moments]
    # a history before the moment, and an event from it on (before the second, for the first)
    valid = (before[0] > 0) & (before[0] < before[1])
    test = (before[1] > 0) & (before[1] < size)
    return before[0], np.where(valid, before[0], -1), np.where(test, before[1], -1)


@dataclass(frozen=True)
class SequenceBatch:
    """Windows of this process, packed: at place t the model reads `items` and is asked `targets`.

    `items` and `targets` (T,) are catalogue rows of N windows, shortest first, with `lengths` (N,)
    ascending. `total` counts the places of all processes. With sampled negatives, `drawn` (K,) are
    their rows and `log_expected` (K,) the logs of how often each is expected among the K.
    """

    items: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray
    total: int
    drawn: np.ndarray | None = None
    log_expected: np.ndarray | None = None


class WindowSampler:
    """Draws the batches of a training run: in an epoch every event after the first is asked once.

    Sequences of more than `max_events` + 1 events are cut into windows, at places that change from
    epoch to epoch.
    """

    def __init__(self, training: Ragged, *, max_events: int, batch: int, seed: int) -> None:
        """`batch` B counts windows over all processes.

        Raises ValueError where there are fewer windows than that.
        """
        self.max_events, self.batch, self.seed = max_events, batch, seed
        self.values = training.values
        num_targets = np.maximum(training.lengths - 1, 0)
        parts = -(-num_targets // max_events)
        self.sequence = np.repeat(np.arange(len(parts)), parts)  # (W,) of each window
        first = np.concatenate([[0], np.cumsum(parts)[:-1]])
        self.number = np.arange(len(self.sequence)) - first[self.sequence]
        self.starts, self.num_targets = training.offsets[:-1], num_targets
        self.slack = parts * max_events - num_targets
        self.per_epoch = len(self.sequence) // batch
        self._kept: tuple[int, tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None
        if not self.per_epoch:
            raise ValueError(
                f"batch {batch} takes more windows than the {len(self.sequence)} that there are; "
                "lower batch, or decoder.max_events so that there are more"
            )

    def windows(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return start and length of all W windows: where in `values`, and how many are asked."""
        sequence, slack = self.sequence, self.slack[self.sequence]
        # a shifted grid covers as much with as many windows while the shift is within the slack
        whole = self.num_targets[sequence] > self.max_events
        shift = np.where(whole, (uniform(self.seed, epoch, sequence) * (slack + 1)), 0)
        begin = self.number * self.max_events - shift.astype(np.int64)
        end = np.minimum(begin + self.max_events, self.num_targets[sequence])
        begin = np.maximum(begin, 0)
        return self.starts[sequence] + begin, end - begin

    def _shuffled(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return an epoch's windows and their order: made once an epoch, not once a step."""
        if self._kept is None or self._kept[0] != epoch:
            starts, lengths = self.windows(epoch)
            order = np.random.default_rng((self.seed, epoch)).permutation(len(starts))
            self._kept = epoch, (starts, lengths, order)
        return self._kept[1]

    def check(self, world: int) -> None:
        """Raise ValueError where `world` processes cannot share the batch equally."""
        if self.batch % world:
            raise ValueError(f"batch {self.batch} is no multiple of {world} processes; change it")

    def at(self, step: int, rank: int = 0, world: int = 1) -> SequenceBatch:
        """Return this process's part of batch `step` (from 0).

        What fills no batch at an epoch's end is left out, and differs from epoch to epoch.
        """
        self.check(world)
        epoch, position = divmod(step, self.per_epoch)
        starts, lengths, order = self._shuffled(epoch)
        chosen = order[position * self.batch : (position + 1) * self.batch]
        share = self.batch // world
        local = chosen[rank * share : (rank + 1) * share]
        local = local[np.argsort(lengths[local], kind="stable")]
        places = Ragged.slices(starts[local], lengths[local]).values
        return SequenceBatch(
            items=self.values[places].astype(np.int64),
            targets=self.values[places + 1].astype(np.int64),
            lengths=lengths[local],
            total=int(lengths[chosen].sum()),
        )
