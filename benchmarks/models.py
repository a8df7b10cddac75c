"""What a task asks of a model: vectors of histories and of items, in one space."""

from typing import Literal, Protocol

import numpy as np

from benchmarks.baselines.tfidf import unit
from clue.data.batches import take
from clue.data.corpus import Corpus, Ragged
from clue.data.sequences import joined
from clue.embed import ALL, AnyEncoder


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

    def __init__(self, encoder: AnyEncoder, corpus: Corpus) -> None:
        """Encodes the catalogue. ValueError for a corpus of another tokenizer or catalogue."""
        self._encoder = encoder
        self._corpus = corpus
        self._items = encoder.catalogue_items(corpus)
        self.scale: float | None = encoder.scale
        self.join: Literal["time", "service"] = encoder.join

    def histories(self, service: str, histories: Ragged) -> np.ndarray:
        """Return unit vectors (rows, E); of a history the newest `max_events` are read."""
        return self._encoder.embed_histories(self._corpus, histories, items=self._items)

    def items(self) -> np.ndarray:
        """Return unit vectors (num_items, E), by whose cosine the model ranks."""
        return self._encoder.catalogue(self._corpus, items=self._items)


def user_vectors(model: Vectors, corpus: Corpus, users: np.ndarray) -> np.ndarray:
    """Return vectors (users, E) over all services: the unit mean of the services' unit vectors.

    A model that reads all services as one history gives its vector of that.
    """
    if model.join == "time" and len(corpus.services) > 1:
        parts = [
            (take(corpus.items_of(number), users), take(corpus.timestamps_of(number), users))
            for number in range(len(corpus.services))
        ]
        return model.histories(ALL, joined(parts)[0])
    total: np.ndarray | None = None
    for number, service in enumerate(corpus.services):
        mine = take(corpus.items_of(number), users)
        part = np.where(mine.lengths[:, None] > 0, model.histories(service, mine), 0)
        total = part if total is None else total + part
    assert total is not None  # A corpus has a service.
    return unit(total)
