"""What a task asks of a model: vectors of histories and of items, in one space."""

from typing import Literal, Protocol

import numpy as np

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.inference.encoder import Encoder
from clue.inference.pooling import ALL, pool_histories


class Vectors(Protocol):
    """A model of users and items; `scale` is its own inverse temperature, if it has one.

    `join`: whether a user's services are one history, by time, or each `service` has a vector.
    """

    scale: float | None
    join: Literal["time", "service"]

    def histories(self, service: str, histories: Ragged) -> np.ndarray:
        """Return unit vectors (rows, E) of histories of catalogue items of one service."""
        ...

    def items(self) -> np.ndarray:
        """Return unit vectors (num_items, E) of the catalogue."""
        ...


class EncoderVectors:
    """A CLUE encoder on one corpus, whose items it encodes once."""

    def __init__(self, encoder: Encoder, corpus: Corpus) -> None:
        """Encodes the catalogue. ValueError for a corpus of another tokenizer or catalogue."""
        self._encoder = encoder
        self._corpus = corpus
        self._items = encoder.item_inputs(corpus)
        self.scale: float | None = encoder.scale
        self.join: Literal["time", "service"] = encoder.join

    def histories(self, service: str, histories: Ragged) -> np.ndarray:
        """Return unit vectors (rows, E); of a history the newest `max_events` are read."""
        return self._encoder.encode_histories(self._corpus, histories, items=self._items)

    def items(self) -> np.ndarray:
        """Return unit vectors (num_items, E), by whose cosine the model ranks."""
        return self._encoder.encode_catalogue(self._corpus, items=self._items)


def user_vectors(model: Vectors, corpus: Corpus, users: np.ndarray) -> np.ndarray:
    """Return vectors (users, E) over all services: the unit mean of the services' unit vectors.

    A model that reads all services as one history gives its vector of that.
    """
    parts = [
        (corpus.items_of(number).take(users), corpus.timestamps_of(number).take(users))
        for number in range(len(corpus.services))
    ]

    def encode(number: int | None, histories: Ragged) -> np.ndarray:
        return model.histories(ALL if number is None else corpus.services[number], histories)

    return pool_histories(parts, encode, model.join)
