"""What a generation's collections are asked, and whether what comes back is an answer."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.catalogue import Catalogue
from serving.contents import UNIT_TOLERANCE
from serving.milvus.tables import USER_FIELDS, Tables, id_of, known_user
from serving.vectors import KnownUser

MOST_HITS = 16_384  # that Milvus returns of one search


class Asks:
    """Searches and queries of one generation. Raises VectorsAway as `Link.call` does."""

    def __init__(self, tables: Tables, catalogue: Catalogue) -> None:
        """Ask nothing yet."""
        self._link, self._catalogue = tables.link, catalogue
        self._users, self._items = tables.users(catalogue.name), tables.items(catalogue.name)

    def users(
        self, query: np.ndarray, terms: Sequence[str], limit: int, **how: Any
    ) -> list[tuple[str, float]]:
        """Return the (id, score) of users nearest to a unit vector (S,), who fit all `terms`."""

        def read(answer: Any) -> list[tuple[str, float]]:
            made = _hits(answer, "id", limit)
            if not all(abs(score) <= 1 + UNIT_TOLERANCE for _, score in made):
                raise ValueError("a cosine is none")
            return [(id_of(key), score) for key, score in made]

        return self._search(self._users, "vector", query, terms, limit, read=read, **how)

    def items(
        self, field: str, query: np.ndarray, terms: Sequence[str], limit: int, **how: Any
    ) -> list[tuple[int, float]]:
        """Return the (row, score) of items whose vectors in `field` are nearest."""

        def read(answer: Any) -> list[tuple[int, float]]:
            made = _hits(answer, "row", limit)
            if not all(0 <= row < self._catalogue.num_items for row, _ in made):
                raise ValueError("no such row")
            return made

        return self._search(self._items, field, query, terms, limit, read=read, **how)

    def known(self, method: str, **wanted: Any) -> list[KnownUser]:
        """Return users, by a method of MilvusClient that returns rows."""
        width, ranking = self._catalogue.width, self._catalogue.ranking_width

        def read(rows: Any) -> list[KnownUser]:
            return [known_user(row, width, ranking) for row in rows]

        return self._link.call(
            *(method, self._users), output_fields=USER_FIELDS, read=read, **wanted
        )

    def ids(self, expression: str, limit: int) -> list[str]:
        """Return ids of users."""

        def read(rows: Any) -> list[str]:
            return [id_of(row["id"]) for row in rows]

        return self._link.call(
            *("query", self._users),
            filter=expression,
            limit=limit,
            output_fields=["id"],
            read=read,
        )

    def _search(
        self,
        collection: str,
        field: str,
        query: np.ndarray,
        terms: Sequence[str],
        limit: int,
        **how: Any,
    ) -> Any:
        return self._link.call(
            *("search", collection),
            data=[query],
            anns_field=field,
            filter=" and ".join(terms),
            limit=limit,
            output_fields=["id" if field == "vector" else "row"],
            **how,
        )


def _hits(answer: Any, key: str, limit: int) -> list[tuple[Any, float]]:
    (hits,) = answer
    made = [(hit[key], float(hit["distance"])) for hit in hits]
    if len(made) > limit or len({own for own, _ in made}) < len(made):
        raise ValueError("too many")
    if not all(math.isfinite(score) for _, score in made):
        raise ValueError("a score is none")
    return made
