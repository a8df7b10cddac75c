"""Batches of event windows for the predictive block: at every event, which item comes next?

A batch is of one service, and the services take turns: the items that a softmax tells apart are
then those of one catalogue, where negatives teach something. Batch k is a function of
(seed, k, rank, world) alone, as in clue/data/batches.py; so is what it packs: each distinct item
once, its tokens shortest first, nothing padded.
"""

from dataclasses import dataclass, field

import numpy as np

from clue.data.corpus import Corpus, first_users
from clue.data.groups import CYCLE, Turns
from clue.data.negatives import Proposal, SoftmaxConfig
from clue.data.ragged import Ragged
from clue.data.sequences import WindowSampler


@dataclass(frozen=True, kw_only=True)
class WindowsConfig:
    """The windows of a batch and the items that each event's next one is told from.

    `batch` windows over all processes, each of at most `max_events` events whose next item is
    asked; a service that has fewer gives all of them. `softmax` draws the negatives, out of the
    service's own items. `power` p: a service has its turn in proportion to (its windows)^p, so
    that small services are not forgotten.
    """

    batch: int = 512
    max_events: int = 50
    power: float = 0.75
    softmax: SoftmaxConfig = field(default_factory=lambda: SoftmaxConfig(negatives=1024))

    def __post_init__(self) -> None:
        """Validate counts; the softmax of a service is always a sampled one."""
        if min(self.batch, self.max_events, self.softmax.negatives) < 1 or self.power < 0:
            raise ValueError(
                f"windows.batch {self.batch}, max_events {self.max_events} and softmax.negatives "
                f"{self.softmax.negatives} must be positive, and power {self.power} at least 0"
            )


@dataclass(frozen=True)
class WindowBatch:
    """Windows of this process, packed: after event e of a window, which of the items came next?

    `tokens` (T,) of the U distinct items, shortest first, with `token_lengths` (U,) ascending, and
    `rows` (U,), their rows of the catalogue. `events` and `targets` (E,) and `candidates` (K,), the
    drawn negatives, index those U; `event_lengths` (N,) are those of the windows, ascending.
    `log_expected` (K,) is the log of how often each candidate is expected among the K; `total`
    counts the events of all processes.
    """

    tokens: np.ndarray
    token_lengths: np.ndarray
    rows: np.ndarray
    events: np.ndarray
    event_lengths: np.ndarray
    targets: np.ndarray
    candidates: np.ndarray
    log_expected: np.ndarray
    total: int


class ServiceWindows:
    """Draws the batches of windows of the training users' histories, service by service."""

    def __init__(self, corpus: Corpus, config: WindowsConfig, *, seed: int, users: int = 0) -> None:
        """Of the training users the first `users` are drawn from (`first_users`), all where 0.

        Raises ValueError where no service has a user with two events.
        """
        self.corpus, self.seed = corpus, seed
        chosen = first_users(corpus.users_in("train"), users)
        self.samplers: list[WindowSampler] = []
        self.proposals: list[Proposal] = []
        self.items: list[np.ndarray] = []
        for service in range(len(corpus.services)):
            training = corpus.items_of(service).take(chosen)
            windows = int((-(-np.maximum(training.lengths - 1, 0) // config.max_events)).sum())
            if not windows:
                continue
            own = seed + 1_000_003 * service  # each service shuffles its windows by its own seed
            self.samplers.append(
                WindowSampler(
                    training,
                    max_events=config.max_events,
                    # a multiple of 8 where there are so many, that processes can share
                    batch=min(config.batch, windows - windows % 8 or windows),
                    seed=own,
                )
            )
            items = np.flatnonzero(corpus.item_service == service)
            counts = np.bincount(np.searchsorted(items, training.values), minlength=len(items))
            self.items.append(items)
            self.proposals.append(Proposal(counts, config.softmax))
        if not self.samplers:
            raise ValueError(
                f"{corpus.path}: no training user has two events in a service, so that nothing "
                "comes next; log more events, or leave the predictive block out"
            )
        sizes = np.array([len(sampler.sequence) for sampler in self.samplers], float)
        shares = sizes**config.power / (sizes**config.power).sum()
        self.turns = Turns(np.maximum(shares, 1.5 / CYCLE), seed)

    def check(self, world: int) -> None:
        """Raise ValueError where `world` processes cannot share a batch equally."""
        for sampler in self.samplers:
            sampler.check(world)

    def at(self, step: int, rank: int = 0, world: int = 1) -> WindowBatch:
        """Return this process's part of batch `step` (from 0)."""
        number, turn = self.turns.at(step)
        batch = self.samplers[number].at(turn, rank, world)
        drawn, log_expected = self.proposals[number].draw(self.samplers[number].seed, turn)
        wanted = np.concatenate([batch.items, batch.targets, self.items[number][drawn]])
        rows, places = np.unique(wanted, return_inverse=True)
        texts = self.corpus.item_tokens.take(rows)
        by_length = np.argsort(texts.lengths, kind="stable")
        sorted_place = np.empty_like(by_length)
        sorted_place[by_length] = np.arange(len(by_length))
        events, targets, candidates = np.split(
            sorted_place[places], np.cumsum([len(batch.items), len(batch.targets)])
        )
        packed = texts.take(by_length)
        return WindowBatch(
            tokens=packed.values,
            token_lengths=packed.lengths,
            rows=rows[by_length].astype(np.int64),
            events=events,
            event_lengths=batch.lengths,
            targets=targets,
            candidates=candidates,
            log_expected=log_expected,
            total=batch.total,
        )


def held_out_windows(corpus: Corpus, service: int, most: int) -> tuple[Ragged, np.ndarray]:
    """Return valid users' histories before their last event in a service, and those last items.

    At most `most` users, the first of a fixed shuffle; the items are the corpus's.
    """
    users = np.random.default_rng(0).permutation(corpus.users_in("valid"))
    lengths = corpus.items_of(service).lengths
    users = np.sort(users[lengths[users] >= 2][:most])
    histories = corpus.items_of(service).take(users)
    last = histories.offsets[1:] - 1
    before = np.ones(len(histories.values), bool)
    before[last] = False
    return histories.mask(before), histories.values[last]
