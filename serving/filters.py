"""Which items and users a search may answer with: filters, as masks over the rows of an index."""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute

from serving.contents import Contents

compute: Any = pyarrow.compute
MOST_MASKS = 16  # those of the latest filters; a mask is a byte a row


@dataclass(frozen=True, kw_only=True)
class ItemFilter:
    """Items of one of `services` (numbers), with one of `item_ids` and none of `exclude_item_ids`,
    met at least `min_events` times by the indexed users, with `contains` in their text.

    What is empty asks nothing. Letters count alike in both cases.
    """

    services: tuple[int, ...] = ()
    item_ids: tuple[str, ...] = ()
    exclude_item_ids: tuple[str, ...] = ()
    min_events: int = 0
    contains: str = ""


@dataclass(frozen=True, kw_only=True)
class UserFilter:
    """Users with events in each of `services` (numbers), and `min_events` of them or more."""

    services: tuple[int, ...] = ()
    min_events: int = 0

    def keeps(self, counts: np.ndarray) -> np.ndarray:
        """Return the mask (n,) of users with so many events in each service, (n, S)."""
        kept = counts.sum(1) >= self.min_events
        for service in self.services:
            kept &= counts[:, service] > 0
        return kept


Filter = ItemFilter | UserFilter


class Filters:
    """What filters read of one generation; a mask is made once while its filter is in use.

    `events` (N, S) are each user's in each service, `item_events` (I,) each item's.
    """

    def __init__(self, contents: Contents) -> None:
        """Count the events of each item, and of each user in each service."""
        self._ids, self._texts = contents.item_ids, contents.item_texts
        self._service = contents.item_service
        seen, users = contents.seen_values, len(contents.user_ids)
        counted = np.bincount(seen, minlength=len(self._ids))
        self.item_events = counted if contents.item_events is None else contents.item_events
        services = len(contents.services)
        owners = np.repeat(np.arange(users), np.diff(contents.seen_offsets))
        pairs = owners * services + contents.item_service[seen]
        counts = np.bincount(pairs, minlength=users * services).reshape(users, services)
        self.events = counts if contents.user_events is None else contents.user_events
        self._recent: dict[Filter, np.ndarray] = {}
        self._lock = threading.Lock()

    def mask(self, wanted: Filter) -> np.ndarray:
        """Return the mask (n,) of the items or the users that a filter keeps."""
        with self._lock:
            if wanted not in self._recent:
                if len(self._recent) >= MOST_MASKS:
                    del self._recent[next(iter(self._recent))]
                is_users = isinstance(wanted, UserFilter)
                mask = wanted.keeps(self.events) if is_users else self._items(wanted)
                self._recent[wanted] = mask
            return self._recent[wanted]

    def events_of(self, row: int) -> np.ndarray:
        """Return how many events a user has in each service, (S,)."""
        return self.events[row]

    def _items(self, wanted: ItemFilter) -> np.ndarray:
        kept = self.item_events >= wanted.min_events
        if wanted.services:
            kept &= np.isin(self._service, wanted.services)
        if wanted.item_ids:
            kept &= self._named(wanted.item_ids)
        if wanted.exclude_item_ids:
            kept &= ~self._named(wanted.exclude_item_ids)
        if wanted.contains:
            held = compute.match_substring(self._texts, wanted.contains, ignore_case=True)
            kept &= held.to_numpy(zero_copy_only=False)
        return kept

    def _named(self, ids: tuple[str, ...]) -> np.ndarray:
        values = pyarrow.array(ids, self._ids.type)
        return compute.is_in(self._ids, value_set=values).to_numpy(zero_copy_only=False)
