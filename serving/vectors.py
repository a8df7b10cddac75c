"""The vectors of one generation behind one protocol: in this process, or on a cluster.

`serving.index` holds them in memory and searches with FAISS, `serving.milvus` asks Milvus. Both
pass the tests below tests/serving/contract. What users have written since is the delta's
(`serving.delta`), beside either.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from serving.base_index import Built, Hits
from serving.catalogue import Catalogue
from serving.contents import is_unit
from serving.filters import Filter
from serving.population import PopulationMap


class VectorsAway(ConnectionError):
    """The vectors are on another machine that does not answer; the message says which and why.

    Nothing was written; come again after `retry_seconds`.
    """

    def __init__(self, detail: str, retry_seconds: int = 1) -> None:
        """`retry_seconds` is at least 1."""
        super().__init__(detail)
        self.retry_seconds = retry_seconds


@dataclass(frozen=True, eq=False, kw_only=True)
class Search:
    """The `k` nearest items or users, without the item rows in `exclude`.

    `service` restricts items to one service (an index into the catalogue's), `filter` items or
    users to those that it keeps. With `blocks` items are compared by the mean of the cosines of
    these blocks, and else by what ranks them.
    """

    kind: str  # "items" or "users"
    k: int
    exclude: np.ndarray
    service: int | None = None
    filter: Filter | None = None
    blocks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class KnownUser:
    """A user of a generation: their unit `vector` (S,), the `state` (R,) by which items rank.

    `seen` are the item rows of their history, oldest first, `events` (services,) how many each has.
    """

    user_id: str
    vector: np.ndarray
    state: np.ndarray
    seen: np.ndarray
    events: np.ndarray


class Vectors(Protocol):
    """What the routes and the upkeep need of a generation's vectors.

    Where it is `remote`, a call may wait for another machine and raise VectorsAway, at the latest
    when its own time is over: any thread may make it but the event loop's and the model's. One that
    is not is searched on the model thread alone.
    """

    catalogue: Catalogue
    remote: bool

    # of the generation itself: the store that wrote some of its users, up to which write
    @property
    def store(self) -> str: ...  # noqa: D102

    @property
    def store_seq(self) -> int: ...  # noqa: D102

    @property
    def num_users(self) -> int: ...  # noqa: D102

    @property
    def num_left_out(self) -> int: ...  # noqa: D102

    @property
    def built(self) -> Mapping[str, Built]: ...  # noqa: D102

    def map(self) -> PopulationMap:
        """Return a map of the users, or of a sample of them."""
        ...

    def nearest_items(
        self, queries: Sequence[np.ndarray], searches: Sequence[Search]
    ) -> list[Hits]:
        """Return for each query the item rows of the search beside it, fewer only where fewer are.

        Raises ValueError as `require` does.
        """
        ...

    def nearest_users(
        self,
        queries: Sequence[np.ndarray],
        searches: Sequence[Search],
        without: Sequence[str | None],
        left_out: Any,
    ) -> list[list[tuple[str, float]]]:
        """Return for each query the nearest users, (id, score), best first.

        The one of `without` is not among them, nor is who was left out when `left_out` was taken.
        """
        ...

    def user(self, user_id: str) -> KnownUser | None: ...  # noqa: D102

    def ids_from(self, prefix: str, limit: int) -> list[str]:
        """Return at most `limit` ids that begin with `prefix`, ascending."""
        ...

    def some_users(self, limit: int) -> list[KnownUser]:
        """Return at most `limit` users, those with events in several services first."""
        ...

    def leave_out(self, user_id: str) -> None:
        """Keep a user out of what is nearest from now on: they were replaced, or deleted."""
        ...

    def left_out(self, written: Collection[str]) -> Any:
        """Return who is left out at this moment, for `nearest_users`.

        `written` are the users given to `leave_out` and not taken in since.
        """
        ...


def width_of(search: Search, catalogue: Catalogue) -> int:
    """Return the width of the query that a search compares."""
    if search.kind == "users":
        return catalogue.width
    columns = [catalogue.item_blocks[name] for name in search.blocks]
    return sum(stop - start for start, stop in columns) if columns else catalogue.ranking_width


def require(
    queries: Sequence[np.ndarray], searches: Sequence[Search], catalogue: Catalogue
) -> None:
    """Raise ValueError for a search that has no answer.

    That is one with a wrong width, a vector that is not finite and, for a cosine, of length one, or
    k below 1: FAISS would answer these with rows of -1, or not at all.
    """
    if len(queries) != len(searches):
        raise ValueError(f"{len(searches)} searches need as many vectors, got {len(queries)}")
    for vector, search in zip(queries, searches, strict=True):
        width = width_of(search, catalogue)
        if vector.shape != (width,) or vector.dtype != np.float32:
            raise ValueError(
                f"a search for {search.kind} needs float32 ({width},), "
                f"got {vector.dtype} {vector.shape}"
            )
        cosine = search.kind == "users" or (catalogue.is_cosine and not search.blocks)
        if not (is_unit(vector) if cosine else np.isfinite(vector)).all():
            length = " or not of length one; normalise it" if cosine else ""
            raise ValueError(f"a query vector is not finite{length}")
        if search.k < 1:
            raise ValueError(f"k is at least 1, got {search.k}")


def unit_or_zero(vectors: np.ndarray) -> np.ndarray:
    """Return the rows of (n, E) at unit length; zero ones, which have no direction, stay zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
