"""What a task asks of a model: vectors of histories and of items, in one space."""

from typing import Protocol

import numpy as np

from benchmarks.baselines import unit
from clue.data.batches import take
from clue.data.corpus import Corpus, Ragged
from clue.embed import Encoder


class Vectors(Protocol):
    """A model of users and items; `scale` is its own inverse temperature, if it has one."""

    scale: float | None

    def histories(self, service: str, histories: Ragged) -> np.ndarray:
        """Gives unit vectors (rows, E) of histories of catalogue items of one service."""
        ...

    def items(self) -> np.ndarray:
        """Gives unit vectors (num_items, E) of the catalogue."""
        ...


class EncoderVectors:
    """A CLUE encoder on one corpus, whose items it encodes once."""

    def __init__(self, encoder: Encoder, corpus: Corpus) -> None:
        """Encodes the catalogue. ValueError for a corpus of another tokenizer."""
        self._encoder = encoder
        self._corpus = corpus
        self._items = encoder.catalogue_items(corpus)
        self.scale: float | None = encoder.scale

    def histories(self, service: str, histories: Ragged) -> np.ndarray:
        """Gives unit vectors (rows, E); of a history the newest `max_events` are read."""
        return self._encoder.embed_histories(self._corpus, histories, items=self._items)

    def items(self) -> np.ndarray:
        """Gives unit vectors (num_items, E): every item as a history of one event."""
        single = np.arange(len(self._items) + 1)
        return self._encoder.embed_histories(
            self._corpus, Ragged(single[:-1], single), items=self._items
        )


def user_vectors(model: Vectors, corpus: Corpus, users: np.ndarray) -> np.ndarray:
    """Gives vectors (users, E) over all services: the unit mean of the services' unit vectors."""
    total: np.ndarray | None = None
    for number, service in enumerate(corpus.services):
        mine = take(corpus.items_of(number), users)
        part = np.where(mine.lengths[:, None] > 0, model.histories(service, mine), 0)
        total = part if total is None else total + part
    assert total is not None  # A corpus has a service.
    return unit(total)
