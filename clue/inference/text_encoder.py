"""The model that reads text, as a function: behaviours in, unit vectors out."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.data.text import read_tokenizer
from clue.evaluation.encode import by_service, item_vectors, user_vectors
from clue.inference import hub
from clue.inference.catalogue import check_tokenizer
from clue.inference.hub import ModelSource, name_of
from clue.inference.item_cache import Item, ItemCache, ItemsRead
from clue.inference.pooling import (
    BATCH,
    Amounts,
    Event,
    Part,
    User,
    cosines,
    in_batches,
    pool_services,
    services_and_all,
)
from clue.inference.source import find_source
from clue.inference.text_reader import TextReader
from clue.nn.dual_encoder import DualEncoder


class TextEncoder:
    """A trained model as a function: behaviours in, unit vectors out.

    `width` is E, `services` those seen in pretraining (others work too: the model reads text),
    `fingerprint` names the weights and the tokenizer, `scale` is the inverse temperature of a
    cosine. An event `reads` as its text; a user's services `join` as the mean of their vectors.
    """

    reads: Literal["text"] = "text"
    join: Literal["service"] = "service"

    def __init__(self, source: ModelSource, model: DualEncoder, fingerprint: str) -> None:
        """Use `TextEncoder.load`."""
        self.source, self.model, self.fingerprint = source, model, fingerprint
        self.width = model.config.user.embedding
        self.blocks: Mapping[str, slice] = {}
        self.similarity_columns = self.ranking_columns = slice(0, self.width)
        self.max_events = model.config.user.max_events
        self.max_item_tokens = int(source.corpus["max_item_tokens"])
        self.services = tuple(source.corpus["services"])
        self.tokenizer_sha256 = source.corpus["tokenizer_sha256"]
        self.tokenizer_path = source.path / "tokenizer.json"
        self.scale = model.scale().item()
        self._texts = TextReader(read_tokenizer(self.tokenizer_path), self.max_item_tokens)
        self._cache: ItemCache | None = None

    @classmethod
    def load(
        cls, path: Path | str, device: str = "cpu", *, seed: int | None = None
    ) -> "TextEncoder":
        """Return the model that `clue.load` does, of this kind alone.

        Raises FileNotFoundError where there is none, ValueError where a file is damaged or the
        model is of another kind.
        """
        return cls.of(find_source(path), device, seed)

    @classmethod
    def of(cls, source: ModelSource, device: str = "cpu", seed: int | None = None) -> "TextEncoder":
        """Return the model of `source`; with a `seed`, fresh weights drawn by it instead."""
        config = source.config
        if config.objective != "contrastive":
            raise ValueError(
                f"{source.path} is of objective: {config.objective}, whose model reads no text; "
                "give a run of objective: contrastive, or use clue.inference.item_id_encoder"
            )
        if seed is not None:
            torch.manual_seed(seed)
        model = DualEncoder(config.model, source.corpus["vocab_size"])
        if seed is None:
            model.load_state_dict(source.weights())
        return cls(source, model.eval().to(device), name_of(source, seed))

    def encode(
        self,
        users: User | Sequence[User],
        *,
        as_of: float | Sequence[float] | None = None,
        batch_size: int = BATCH,
        show_progress_bar: bool = False,
    ) -> np.ndarray:
        """Return the vectors (n, E) of `users`, or (E,) of one: texts by service, oldest first.

        It is the mean of their vectors of single services, at unit length; of a service the newest
        `max_events` are read, and `batch_size` users are in memory at a time. `as_of` is not read:
        the model knows no time. Raises ValueError for a user without events and for an empty text,
        naming which.
        """
        if isinstance(users, Mapping):
            return self.encode([users])[0]
        for number, user in enumerate(users):
            if not any(len(texts) for texts in user.values()):
                raise ValueError(f"user {number} has no events; leave such users out")
        return in_batches(
            self._encode, users, batch_size=batch_size, show_progress_bar=show_progress_bar
        )

    def _encode(self, users: Sequence[User]) -> np.ndarray:
        histories = [
            (number, texts[-self.max_events :])
            for number, user in enumerate(users)
            for texts in user.values()
            if len(texts)
        ]
        distinct = dict.fromkeys(text for _, texts in histories for text in texts)
        rows = {text: row for row, text in enumerate(distinct)}
        read = [("", text, None) for text in rows]
        made = self._cache.read(read, self._read) if self._cache is not None else self._read(read)
        items = made.vectors["items"]
        events = Ragged.from_lists([[rows[text] for text in texts] for _, texts in histories])
        vectors = user_vectors(self.model, items, events).numpy()
        user_index = np.array([number for number, _ in histories], np.int64)
        return pool_services([(user_index, vectors)], len(users))

    def keep_items(self, max_bytes: int, observe: Callable[[int, int], None] | None = None) -> None:
        """Have `encode` read a text once, while what was made of it is among the last `max_bytes`.

        `observe` is told of the hits and misses of each batch.
        """
        self._cache = ItemCache(max_bytes, 0, observe)

    def _read(self, items: Sequence[Item]) -> ItemsRead:
        vectors = item_vectors(self.model, self._texts.tokens([text for _, text, _ in items]))
        no_tokens = Ragged(np.zeros(0, np.int32), np.zeros(len(items) + 1, np.int64))
        return ItemsRead(no_tokens, np.full(len(items), -1), {"items": vectors})

    def encode_events(
        self,
        users: Sequence[Sequence[Event]],
        *,
        as_of: float | Sequence[float] | None = None,
    ) -> np.ndarray:
        """Return `encode` of users whose events are (service, text), oldest first.

        `as_of` is not read.
        """
        return self.encode([by_service(events) for events in users])

    def input_keys(self, events: Sequence[Event]) -> list[str]:
        """Return the token ids that the model reads of each event (service, text), joined."""
        return self._texts.keys(events)

    def unread(self, events: Sequence[Event]) -> list[int]:
        """Return the numbers of the events (service, text) of which the model reads nothing."""
        return self._texts.unread(events)

    def encode_items(self, items: Sequence[str], *, service: str | None = None) -> np.ndarray:
        """Return the vectors (n, E) of items by their texts, whatever their `service`.

        Each is the vector of a user who did just that. Raises ValueError for an empty text.
        """
        return self._as_histories(item_vectors(self.model, self._texts.tokens(items)))

    def save_pretrained(self, folder: Path | str, *, license: str = "unknown") -> Path:
        """Write the model into a folder that `clue.load` and the Hugging Face Hub read.

        `license` is an identifier of the Hub. Raises ValueError for fresh weights, and where the
        folder holds something else.
        """
        return hub.write_folder(
            hub.trained(self.source, self.fingerprint), Path(folder), license=license
        )

    def push_to_hub(self, name: str, *, private: bool = False, license: str = "unknown") -> str:
        """Upload what `save_pretrained` writes to the repository `name`; return the commit.

        Raises OSError where the Hub refuses it or cannot be reached.
        """
        return hub.upload(
            hub.trained(self.source, self.fingerprint), name, private=private, license=license
        )

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the cosine (n, m) of each vector of `a` (n, E) with each of `b` (m, E)."""
        return cosines(a, b)

    def encode_catalogue(self, corpus: Corpus, *, items: torch.Tensor | None = None) -> np.ndarray:
        """Return `encode_items` of every item of the corpus, in its order; `items` as below."""
        return self._as_histories(self.item_inputs(corpus) if items is None else items)

    def encode_users(
        self,
        corpus: Corpus,
        parts: Sequence[Part],
        *,
        as_of: np.ndarray | None = None,
        amounts: Sequence[Amounts] = (),
        items: torch.Tensor | None = None,
    ) -> np.ndarray:
        """Return the vectors (n, E) of users whose (items, times) in each service are `parts`.

        Those without any event are zero. `as_of` and `amounts` are not read.
        """
        return self.encode_services(corpus, parts, items=items)[1]

    def encode_services(
        self,
        corpus: Corpus,
        parts: Sequence[Part],
        *,
        as_of: np.ndarray | None = None,
        amounts: Sequence[Amounts] = (),
        items: torch.Tensor | None = None,
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the vectors (n, E) in each service alone, and what `encode_users` does."""
        inputs = self.item_inputs(corpus) if items is None else items

        def encode(_: int | None, histories: Ragged) -> np.ndarray:
            return self.encode_histories(corpus, histories, items=inputs)

        return services_and_all(parts, encode, self.join)

    def encode_histories(
        self, corpus: Corpus, histories: Ragged, *, items: torch.Tensor | None = None
    ) -> np.ndarray:
        """Return the vectors (n, E) of rows of corpus items, oldest first; empty rows are zero.

        `items` are `item_inputs(corpus)`, for callers who come more than once.
        """
        if items is None:
            items = self.item_inputs(corpus)
        return user_vectors(self.model, items, histories.last(self.max_events)).numpy()

    def item_arrays(self, corpus: Corpus, items: range) -> dict[str, np.ndarray]:
        """Return the item encoder's vectors (n, D) of these items of the corpus.

        Raises ValueError for a corpus of another tokenizer.
        """
        check_tokenizer(corpus, self.tokenizer_sha256, self.tokenizer_path)
        tokens = corpus.item_tokens.take(np.arange(items.start, items.stop))
        return {"items": item_vectors(self.model, tokens).numpy()}

    def item_inputs(
        self, corpus: Corpus, arrays: Mapping[str, np.ndarray] | None = None
    ) -> torch.Tensor:
        """Return the item encoder's vector (I, D) of each item of the corpus.

        `arrays` are `item_arrays` of all of them. Raises ValueError as that does.
        """
        if arrays is None:
            arrays = self.item_arrays(corpus, range(corpus.num_items))
        return torch.from_numpy(arrays["items"])

    def item_vectors(self, corpus: Corpus) -> np.ndarray:
        """Return `item_inputs(corpus)`: each item before the user encoder reads it."""
        return self.item_inputs(corpus).numpy()

    def _as_histories(self, items: torch.Tensor) -> np.ndarray:
        single = Ragged(np.arange(len(items)), np.arange(len(items) + 1))
        return user_vectors(self.model, items, single).numpy()
