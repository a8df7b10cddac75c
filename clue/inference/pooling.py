"""A user over all services: the one place where vectors of single services become one vector."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from tqdm import tqdm

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.evaluation.encode import normalised

Join: TypeAlias = Literal["time", "service"]
Part: TypeAlias = tuple[Ragged, Ragged]  # the (items, times) of users in one service
User: TypeAlias = Mapping[str, Sequence[str]]  # texts or item ids by service, oldest first
Event: TypeAlias = tuple[str, str]  # (service, text or item id)
Amounts: TypeAlias = Mapping[str, Ragged]  # numeric fields of the events of a Part, by name
T = TypeVar("T")

ALL = "all"  # the service name of the vector over all services
BATCH = 16_384  # users whose vectors are alive at once: 64 MiB of them at E = 1,024


@dataclass(frozen=True)
class Service:
    """A service of users' events: its `row` in the model, -1 for none, and if it has a `clock`."""

    row: int
    clock: bool


def histories_of(corpus: Corpus, users: np.ndarray) -> tuple[list[Part], list[Amounts]]:
    """Return the (items, times) of `users` (n,) in each service, and the numeric fields there."""
    parts: list[Part] = []
    amounts: list[Amounts] = []
    for number in range(len(corpus.services)):
        parts.append(corpus.histories_of(number, users))
        names = [field.name for field in corpus.fields_of(number) if field.kind == "numeric"]
        amounts.append({name: corpus.field_of(number, name, users) for name in names})
    return parts, amounts


def pool_services(parts: Iterable[tuple[np.ndarray, np.ndarray]], users: int) -> np.ndarray:
    """Return the vectors (users, E): the mean of each user's vectors, at unit length.

    A part is the users' indices (m,) and their unit vectors (m, E); one user may come in several
    rows. Without any row a user's vector is zero. At least one part, perhaps empty, says what E is.
    """
    total: np.ndarray | None = None
    for user_index, vectors in parts:
        if total is None:
            total = np.zeros((users, vectors.shape[1]), np.float32)
        # A loop over rows of E = 1,024 takes half the time of index_add_ and an eighth of
        # np.add.at; float64 vectors are rounded once, in the sum.
        for row, vector in zip(user_index, vectors, strict=True):
            total[row] += vector
    if total is None:
        raise ValueError("no part to pool; a user needs at least one service")
    return normalised(total)


def pool_histories(
    parts: Sequence[Part], encode: Callable[[int | None, Ragged], np.ndarray], join: Join
) -> np.ndarray:
    """Return the vectors (n, E) of n users over all services; without any event, zero.

    `parts` are their events in each service. `encode(service, histories)` gives the unit vectors of
    non-empty histories of the service with that number. Where a model's services `join` by time,
    the users' events become one history each, and the service is None.
    """
    users = len(parts[0][0])
    filled = [number for number, (items, _) in enumerate(parts) if len(items.values)] or [0]
    if join == "time" and len(filled) > 1:
        merged = Ragged.merge_by_time([parts[number] for number in filled])[0]
        some = np.flatnonzero(merged.lengths > 0)
        return pool_services([(some, encode(None, merged.take(some)))], users)
    some_of = {number: np.flatnonzero(parts[number][0].lengths > 0) for number in filled}
    return pool_services(
        ((some, encode(number, parts[number][0].take(some))) for number, some in some_of.items()),
        users,
    )


def services_and_all(
    parts: Sequence[Part], encode: Callable[[int | None, Ragged], np.ndarray], join: Join
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the vectors (n, E) of n users in each service, and over all; without events, zero.

    Arguments are as `pool_histories` has them; the history of one service is encoded once.
    """
    by_service: list[np.ndarray] = []
    for number, (items, _) in enumerate(parts):
        some = np.flatnonzero(items.lengths > 0)
        encoded = encode(number, items.take(some))
        vectors = np.zeros((len(items), encoded.shape[1]), encoded.dtype)
        vectors[some] = encoded
        by_service.append(vectors)

    def kept(number: int | None, histories: Ragged) -> np.ndarray:
        if number is None:
            return encode(None, histories)
        return by_service[number][parts[number][0].lengths > 0]

    return by_service, pool_histories(parts, kept, join)


def in_batches(
    encode: Callable[[Sequence[T]], np.ndarray],
    users: Sequence[T],
    *,
    batch_size: int,
    show_progress_bar: bool,
) -> np.ndarray:
    """Return `encode` of all `users` (n, E), `batch_size` of them at a time."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give a positive count of users")
    starts = range(0, max(len(users), 1), batch_size)
    bar = tqdm(starts, desc="encode", unit="batch", disable=not show_progress_bar)
    return np.concatenate([encode(users[start : start + batch_size]) for start in bar])


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine (n, m) of each of the vectors `a` (n, E) or (E,) with each of `b`."""
    return normalised(np.atleast_2d(a)) @ normalised(np.atleast_2d(b)).T
