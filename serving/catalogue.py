"""The items of one generation, and whose it is: what every process holds, wherever vectors lie."""

from collections.abc import Iterable

import numpy as np

from serving.contents import Contents, content_of
from serving.filters import Filters

# What a text is compared by: 10 nearest items of the same topic in a synthetic world of 40 topics
# were .99 within and .97 across services, by contrastive alone .86 and .81, by lexical .98 and .95.
TEXT_BLOCKS = ("contrastive", "lexical")


class Catalogue:
    """Items by row, by id and by what the model reads of them, and whose generation it is.

    A search for users has a unit vector of `width`, one for items a state of `ranking_width`; where
    `is_cosine` the two are one and the same.
    """

    def __init__(self, name: str, contents: Contents) -> None:
        """Read checked `contents`."""
        self.name = name
        self.model_fingerprint = contents.model_fingerprint
        self.corpus_fingerprint = contents.corpus_fingerprint
        self.corpus_name = contents.corpus_name
        self.templates = contents.templates
        self.services = tuple(contents.services)
        self.width = int(contents.user_vectors.shape[1])
        self.ranking_width = int(contents.item_vectors.shape[1])
        self.is_cosine = contents.user_states is None
        self.num_items = len(contents.item_ids)
        self.item_blocks = contents.item_block_columns
        self.item_service = contents.item_service
        self.filters = Filters(contents)
        self._item_ids = contents.item_ids
        self._item_texts = contents.item_texts
        self._by_content = _Lookup(contents.item_content)
        self._by_key = _Lookup(contents.item_key)

    def item(self, row: int) -> tuple[str, str, str]:
        """Return the id, the service and the text of an item row."""
        service = self.services[self.item_service[row]]
        return self._item_ids[row].as_py(), service, self._item_texts[row].as_py()

    def rows_read(self, events: Iterable[tuple[str, str]]) -> np.ndarray:
        """Return the rows of items that the model reads as it reads the events (service, key)."""
        return self._by_content.rows(events)

    def rows_of(self, events: Iterable[tuple[str, str]]) -> np.ndarray:
        """Return the rows of the items (service, item id); without those the index lacks."""
        return self._by_key.rows(events)

    def among(self, rows: np.ndarray, service: int) -> np.ndarray:
        """Return those of some item rows that are of a service, in their order."""
        return rows[self.item_service[rows] == service]


class _Lookup:
    """Rows by a hash that several of them may share."""

    def __init__(self, hashes: np.ndarray) -> None:
        self._rows = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._rows]

    def rows(self, events: Iterable[tuple[str, str]]) -> np.ndarray:
        wanted = np.array([content_of(*event) for event in set(events)], dtype=np.uint64)
        first = np.searchsorted(self._hashes, wanted, side="left")
        last = np.searchsorted(self._hashes, wanted, side="right")
        parts = [self._rows[a:b] for a, b in zip(first, last, strict=True)]
        return np.concatenate([np.empty(0, np.int64), *parts])
