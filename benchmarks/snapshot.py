"""What a model may read of users: their events before a moment, with a guard that holds to it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged


@dataclass(frozen=True)
class Snapshot:
    """The events of n users before a moment of each.

    `parts` has (items, times) of every service of the corpus, n rows each, oldest first; a service
    that is not read has empty rows. `users` (n,) are rows of the corpus, `cutoff` (n,) the first
    moment that is not past: infinite where events are cut by their order alone. `amounts` has of
    each service the numeric fields by name, in rows like those of its items; empty where none is
    read. ValueError for an event at or after the cutoff: it may be what a task asks for.
    """

    corpus: Corpus
    users: np.ndarray
    parts: tuple[tuple[Ragged, Ragged], ...]
    cutoff: np.ndarray
    amounts: tuple[Mapping[str, Ragged], ...] = ()

    def __post_init__(self) -> None:
        """Look at every event."""
        for service, (items, times) in zip(self.corpus.services, self.parts, strict=True):
            if len(items) != len(self.users) or not np.array_equal(items.offsets, times.offsets):
                raise ValueError(
                    f"{service}: {len(items)} histories for {len(self.users)} users; a past has a "
                    "row for each user in every service"
                )
            late = times.values >= np.repeat(self.cutoff, times.lengths)
            if late.any():
                event = int(np.flatnonzero(late)[0])
                row = int(np.searchsorted(times.offsets, event, side="right")) - 1
                raise ValueError(
                    f"user {self.corpus.user_ids[int(self.users[row])]} has an event of {service} "
                    f"at {times.values[event]:g}, not before {self.cutoff[row]:g}: a model would "
                    "read what it is asked for; cut the past with snapshot_at"
                )

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self.users)

    @property
    def lengths(self) -> np.ndarray:
        """The number of events of each user, (n,)."""
        return np.sum([items.lengths for items, _ in self.parts], axis=0)

    @property
    def digest(self) -> str:
        """The name of what a model can read here: equal pasts of one corpus have equal digests."""
        hashed = hashlib.sha256(np.ascontiguousarray(self.cutoff).tobytes())
        columns = [column for part in self.parts for column in part]
        columns += [column for named in self.amounts for column in named.values()]
        for column in columns:
            for values in (column.values, column.offsets):
                hashed.update(np.ascontiguousarray(values).tobytes())
        return hashed.hexdigest()

    def some(self, rows: np.ndarray) -> "Snapshot":
        """Return the past of the users in `rows`, indices into these n."""
        parts = tuple((items.take(rows), times.take(rows)) for items, times in self.parts)
        amounts = tuple(
            {name: values.take(rows) for name, values in named.items()} for named in self.amounts
        )
        return Snapshot(self.corpus, self.users[rows], parts, self.cutoff[rows], amounts)


def snapshot_at(
    corpus: Corpus,
    users: np.ndarray,
    cutoff: np.ndarray | float = np.inf,
    services: Sequence[str] | None = None,
) -> Snapshot:
    """Return the events of `users` (n,) before `cutoff` (n,) or one moment, in `services` (all)."""
    cutoff = np.broadcast_to(np.asarray(cutoff, np.float64), (len(users),))
    parts: list[tuple[Ragged, Ragged]] = []
    amounts: list[Mapping[str, Ragged]] = []
    for number, service in enumerate(corpus.services):
        if services is not None and service not in services:
            parts.append(_nothing(len(users)))
            amounts.append({})
            continue
        items, times = (
            column.take(users) for column in (corpus.items_of(number), corpus.timestamps_of(number))
        )
        early = times.values < np.repeat(cutoff, times.lengths)
        parts.append((items.mask(early), times.mask(early)))
        amounts.append(
            {
                field.name: corpus.values_of(number, field.name).take(users).mask(early)
                for field in corpus.fields_of(number)
                if field.kind == "numeric"
            }
        )
    return Snapshot(corpus, users, tuple(parts), cutoff, tuple(amounts))


def views(corpus: Corpus, users: np.ndarray, service: str, items: Ragged) -> Snapshot:
    """Return the past that holds `items` (n rows) of one service and nothing else, without times.

    For views of a user that are not cut by time: the two halves of a matching.
    """
    parts = [_nothing(len(users)) for _ in corpus.services]
    times = Ragged(np.zeros(len(items.values)), items.offsets)
    parts[corpus.services.index(service)] = (items, times)
    return Snapshot(corpus, users, tuple(parts), np.full(len(users), np.inf))


def _nothing(rows: int) -> tuple[Ragged, Ragged]:
    offsets = np.zeros(rows + 1, np.int64)
    return Ragged(np.zeros(0, np.int64), offsets), Ragged(np.zeros(0), offsets)
