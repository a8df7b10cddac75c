"""`clue.load`: a trained model as a function, whichever its objective made."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.inference.blocks import BLOCKS
from clue.inference.item_id_encoder import ItemIdEncoder
from clue.inference.pooling import BATCH, Amounts, Event, Join, Part, User
from clue.inference.source import find_source
from clue.inference.text_encoder import TextEncoder
from clue.inference.universal_encoder import UniversalEncoder


class Encoder(Protocol):
    """A trained model: behaviours in, vectors out.

    A user is a mapping from services to what was done there, oldest first: texts where the model
    `reads` "text", item ids where it reads "item_id". `width` is E; of a history the newest
    `max_events` are read. `services` are those of pretraining, and a user's services `join` "time",
    as one history, or "service", as the mean of their vectors. `scale` is the inverse temperature
    of a cosine, where the model has one for all users. `blocks` are the columns of the parts of a
    universal model's vector by name, and none of others, whose vectors have length one. The cosine
    of two users over `similarity_columns` says how alike they are, and the inner product of a
    user's and an item's `ranking_columns` how the item fits. `fingerprint` names the weights and
    what they read; `tokenizer_path` and `max_item_tokens` say how a corpus for it is prepared.
    """

    @property
    def reads(self) -> Literal["text", "item_id"]: ...  # noqa: D102
    @property
    def join(self) -> Join: ...  # noqa: D102
    @property
    def scale(self) -> float | None: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def blocks(self) -> Mapping[str, slice]: ...  # noqa: D102
    @property
    def similarity_columns(self) -> slice: ...  # noqa: D102
    @property
    def ranking_columns(self) -> slice: ...  # noqa: D102
    @property
    def max_events(self) -> int: ...  # noqa: D102
    @property
    def max_item_tokens(self) -> int: ...  # noqa: D102
    @property
    def services(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def tokenizer_path(self) -> Path: ...  # noqa: D102

    def encode(
        self,
        users: User | Sequence[User],
        *,
        as_of: float | Sequence[float] | None = None,
        batch_size: int = BATCH,
        show_progress_bar: bool = False,
    ) -> np.ndarray:
        """Return the vectors (n, E) of `users` over all services, or (E,) of a single one.

        `as_of` is the moment, of all or of each, by default that of the last event; a model
        without time does not read it. `batch_size` users are in memory at a time. Raises ValueError
        for a user without events and for what the model cannot read, naming it.
        """
        ...

    def encode_events(
        self,
        users: Sequence[Sequence[tuple[str, Any]]],
        *,
        as_of: float | Sequence[float] | None = None,
    ) -> np.ndarray:
        """Return the vectors (n, E) of users whose events are in order, oldest first.

        An event is its service and what `encode` takes of it.
        """
        ...

    def keep_items(self, max_bytes: int, observe: Callable[[int, int], None] | None = None) -> None:
        """Have `encode` read a text once, while what was made of it is among the last `max_bytes`.

        `observe` is told of the hits and misses of each batch. The weights must not change then.
        """
        ...

    def unread(self, events: Sequence[Event]) -> list[int]:
        """Return the numbers of the events of which the model reads nothing."""
        ...

    def input_keys(self, events: Sequence[Event]) -> list[str]:
        """Return what the model reads of each event, as a key; "" where it reads nothing.

        Events of one service with equal keys are one item to the model.
        """
        ...

    def encode_items(self, items: Sequence[str], *, service: str | None = None) -> np.ndarray:
        """Return the vectors (n, E) of items, texts or item ids, to be compared with users'."""
        ...

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the cosine (n, m) of each vector of `a` (n, E) with each of `b` (m, E)."""
        ...

    def item_arrays(self, corpus: Corpus, items: range) -> dict[str, np.ndarray]:
        """Return what takes time to make of these items of the corpus, each array (n, ...).

        Raises ValueError for a corpus of another tokenizer.
        """
        ...

    def item_inputs(self, corpus: Corpus, arrays: Mapping[str, np.ndarray] | None = None) -> Any:
        """Return what the model reads of each item of the corpus: vectors, rows, or more.

        `arrays` are `item_arrays` of all items, for callers who have them. Raises ValueError for a
        corpus of another tokenizer or catalogue.
        """
        ...

    def item_vectors(self, corpus: Corpus) -> np.ndarray:
        """Return the vector (I, D) of each item of the corpus that the user model reads."""
        ...

    def encode_users(
        self,
        corpus: Corpus,
        parts: Sequence[Part],
        *,
        as_of: np.ndarray | None = None,
        amounts: Sequence[Amounts] = (),
        items: Any = None,
    ) -> np.ndarray:
        """Return the vectors (n, E) of users over all services; those without any event are zero.

        `parts` are their (items, times) in each service of the corpus, n rows each. `as_of` (n,) is
        the moment of each, by default that of the last event, and `amounts` are the numeric
        fields of each service, in rows like its items'; a model without time ignores both.
        `items` are `item_inputs(corpus)`, for callers who come more than once.
        """
        ...

    def encode_services(
        self,
        corpus: Corpus,
        parts: Sequence[Part],
        *,
        as_of: np.ndarray | None = None,
        amounts: Sequence[Amounts] = (),
        items: Any = None,
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the vectors (n, E) in each service alone, and what `encode_users` does."""
        ...

    def encode_histories(
        self, corpus: Corpus, histories: Ragged, *, items: Any = None
    ) -> np.ndarray:
        """Return the vectors (n, E) of rows of corpus items, oldest first; empty rows are zero.

        `items` are `item_inputs(corpus)`, for callers who come more than once.
        """
        ...

    def encode_catalogue(self, corpus: Corpus, *, items: Any = None) -> np.ndarray:
        """Return `encode_items` of every item of the corpus, in its order."""
        ...

    def save_pretrained(self, folder: Path | str, *, license: str = "unknown") -> Path:
        """Write the model into a folder that `clue.load` and the Hugging Face Hub read."""
        ...

    def push_to_hub(self, name: str, *, private: bool = False, license: str = "unknown") -> str:
        """Upload what `save_pretrained` writes to the Hub as `name`; return the commit."""
        ...


def load(
    path: Path | str,
    device: str = "cpu",
    *,
    seed: int | None = None,
    blocks: Sequence[str] | None = None,
) -> Encoder:
    """Return the model of a run, a checkpoint, an exported folder or a repository of the Hub.

    A run directory stands for its best checkpoint. A text "org/name" that is no path here names a
    repository of the Hugging Face Hub. With a `seed` the model has fresh weights drawn by it: the
    control of any claim. `blocks` are those of a universal model's vector, all by default
    (clue/inference/universal_encoder.py names them). Raises FileNotFoundError where there is no
    model and ValueError where a file is damaged.
    """
    source = find_source(path)
    if source.config.objective == "universal":
        return UniversalEncoder.of(source, device, seed, blocks or BLOCKS)
    if blocks is not None:
        raise ValueError(
            f"blocks={list(blocks)}: {source.path} is of objective: {source.config.objective}, "
            "whose vector is one; leave blocks out"
        )
    if source.config.objective == "next_item":
        return ItemIdEncoder.of(source, device, seed)
    return TextEncoder.of(source, device, seed)
