"""Batches of event windows for the predictive block: at every event, which item comes next?

A batch is of one service, or where services join by time of those that share users, and they take
turns: the items that a softmax tells apart are then of one catalogue, where negatives teach
something. Batch k is a function of
(seed, k, rank, world) alone, as in clue/data/batches.py; so is what it packs: each distinct item
once, its tokens shortest first, nothing padded.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from clue.data.corpus import Corpus, first_users
from clue.data.groups import CYCLE, Turns, populations
from clue.data.marks import MarkTable, merge_marked
from clue.data.negatives import Proposal, SoftmaxConfig
from clue.data.ragged import Ragged
from clue.data.sequences import WindowSampler


@dataclass(frozen=True, kw_only=True)
class WindowsConfig:
    """The windows of a batch and the items that each event's next one is told from.

    `batch` windows over all processes, each of at most `max_events` events whose next item is
    asked; a service that has fewer gives all of them. `softmax` draws the negatives, out of the
    items of the batch's services. `power` p: a service has its turn in proportion to (its
    windows)^p, so that small services are not forgotten.
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
    counts the events of all processes. `marks` (E, M) are those of the events, if they are read.
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
    marks: np.ndarray | None = None


@dataclass(frozen=True)
class WindowQuestions:
    """Q `histories` of corpus items, the `targets` (Q,) that came next, the events' `marks`."""

    histories: Ragged
    targets: np.ndarray
    marks: np.ndarray | None = None


class ServiceWindows:
    """Draws the batches of windows of the training users' histories, service by service.

    Of each number in turn, `services` are those of its histories and `items` what they offer.
    """

    def __init__(
        self,
        corpus: Corpus,
        config: WindowsConfig,
        *,
        seed: int,
        users: int = 0,
        join: Literal["service", "time"] = "service",
        marks: MarkTable | None = None,
    ) -> None:
        """Of the training users the first `users` are drawn from (`first_users`), all where 0.

        `join` and `marks` are how histories are read (`histories_of`). Raises ValueError where no
        service has a user with two events.
        """
        self.corpus, self.seed, self.join, self.table = corpus, seed, join, marks
        chosen = first_users(corpus.users_in("train"), users)
        self.services: list[list[int]] = []
        self.samplers: list[WindowSampler] = []
        self.proposals: list[Proposal] = []
        self.items: list[np.ndarray] = []
        self.event_items: list[np.ndarray] = []
        self.marks: list[np.ndarray | None] = []
        for services in joined_services(corpus, chosen, join):
            training, of_events = histories_of(corpus, services, chosen, marks)
            windows = int((-(-np.maximum(training.lengths - 1, 0) // config.max_events)).sum())
            if not windows:
                continue
            own = seed + 1_000_003 * services[0]  # each shuffles its windows by a seed of its own
            self.samplers.append(
                WindowSampler(
                    # the numbers of events: both the items and the marks are found by them
                    Ragged(np.arange(len(training.values)), training.offsets),
                    max_events=config.max_events,
                    # a multiple of 8 where there are so many, that processes can share
                    batch=min(config.batch, windows - windows % 8 or windows),
                    seed=own,
                )
            )
            items = np.flatnonzero(np.isin(corpus.item_service, services))
            counts = np.bincount(np.searchsorted(items, training.values), minlength=len(items))
            self.services.append(services)
            self.items.append(items)
            self.event_items.append(training.values)
            self.marks.append(of_events)
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
        event_items, marks = self.event_items[number], self.marks[number]
        wanted = np.concatenate(
            [event_items[batch.items], event_items[batch.targets], self.items[number][drawn]]
        )
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
            marks=None if marks is None else marks[batch.items],
        )

    def held_out(self, service: int, most: int) -> WindowQuestions:
        """Return valid users' last items in a service and what they did before, as it is read.

        At most `most` users, the first of a fixed shuffle, of whom something is known by then.
        """
        corpus = self.corpus
        services = next((s for s in self.services if service in s), [service])
        users = np.random.default_rng(0).permutation(corpus.users_in("valid"))
        own = corpus.items_of(service).lengths
        long = np.sum([corpus.items_of(s).lengths for s in services], axis=0) >= 2
        users = np.sort(users[(own[users] > 0) & long[users]][:most])
        histories, marks = histories_of(corpus, services, users, self.table)
        row = np.repeat(np.arange(len(users)), histories.lengths)
        number = np.arange(len(histories.values))
        last = np.full(len(users), -1)
        here = corpus.item_service[histories.values] == service
        np.maximum.at(last, row[here], number[here])
        has_past = last > histories.offsets[:-1]  # not for their first event
        before = (number < last[row]) & has_past[row]
        rows = np.flatnonzero(has_past)
        return WindowQuestions(
            histories.mask(before).take(rows),
            histories.values[last[rows]],
            None if marks is None else marks[before],
        )


def marks_of(corpus: Corpus) -> MarkTable:
    """Return the table of the marks of a corpus's events."""
    return MarkTable([corpus.fields_of(number) for number in range(len(corpus.services))])


def joined_services(
    corpus: Corpus, users: np.ndarray, join: Literal["service", "time"]
) -> list[list[int]]:
    """Return the services whose events are one history: each alone, or by `time` those that share
    some of `users` (n,) and whose times are a clock's.
    """
    if join == "service":
        return [[number] for number in range(len(corpus.services))]
    parts: list[list[int]] = []
    for services in populations(corpus, users):
        timed = [number for number in services if corpus.is_clock(number)]
        parts += [[number] for number in services if number not in timed]
        parts += [timed] if timed else []
    return sorted(parts)


def histories_of(
    corpus: Corpus, services: list[int], users: np.ndarray, table: MarkTable | None
) -> tuple[Ragged, np.ndarray | None]:
    """Return the items of `users` (n,) in `services`, oldest first, and the marks of the events.

    Without a `table` there are no marks.
    """
    parts = [
        (corpus.items_of(s).take(users), corpus.timestamps_of(s).take(users)) for s in services
    ]
    if table is None:
        return Ragged.merge_by_time(parts)[0], None
    marks = [
        table.of(
            service,
            times,
            corpus.is_clock(service),
            {
                field.name: corpus.values_of(service, field.name).take(users).values
                for field in table.fields[service]
            },
        )
        for service, (_, times) in zip(services, parts, strict=True)
    ]
    return merge_marked(parts, marks)
