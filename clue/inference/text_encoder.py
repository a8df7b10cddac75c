"""The model that reads text, as a function: behaviours in, unit vectors out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tokenizers import Tokenizer

from clue.data.corpus import Corpus, Ragged
from clue.evaluation.encode import (
    by_service,
    item_vectors,
    normalised,
    packed,
    user_vectors,
)
from clue.evaluation.matching import newest
from clue.nn.dual_encoder import DualEncoder
from clue.run import checkpoint
from clue.run.checkpoint import Checkpoint


class TextEncoder:
    """A trained model as a function: behaviours in, unit vectors out.

    `width` is E, `services` those seen in pretraining (others work too: the model reads text),
    `fingerprint` names the weights and the tokenizer, `scale` is the inverse temperature of a
    cosine. An event `reads` as its text; a user's services `join` as the mean of their vectors.
    """

    reads: Literal["text"] = "text"
    join: Literal["service"] = "service"

    def __init__(self, source: Checkpoint, model: DualEncoder, fingerprint: str) -> None:
        """Use `TextEncoder.load` or `TextEncoder.untrained`."""
        self.model, self.fingerprint = model, fingerprint
        self.width = model.config.user.embedding
        self.max_events = model.config.user.max_events
        self.max_item_tokens = int(source.corpus["max_item_tokens"])
        self.services = tuple(source.corpus["services"])
        self.tokenizer_sha256 = source.corpus["tokenizer_sha256"]
        self.tokenizer_path = source.path / "tokenizer.json"
        self.scale = model.scale().item()
        self._tokenizer = Tokenizer.from_file(str(self.tokenizer_path))

    @classmethod
    def load(cls, path: Path | str, device: str = "cpu") -> "TextEncoder":
        """Return the model of a run directory (its best checkpoint) or of a checkpoint directory.

        Raises FileNotFoundError where there is none, ValueError where a file is damaged or the
        model is of another kind.
        """
        return cls.of(checkpoint.find(Path(path)), device)

    @classmethod
    def untrained(cls, path: Path | str, seed: int = 0, device: str = "cpu") -> "TextEncoder":
        """Return the same architecture and tokenizer, fresh weights: the control of any claim."""
        return cls.of(checkpoint.find(Path(path)), device, seed)

    @classmethod
    def of(cls, source: Checkpoint, device: str = "cpu", seed: int | None = None) -> "TextEncoder":
        """Return the model of a checkpoint; with a `seed`, fresh weights drawn by it instead."""
        config = source.config
        if config.objective != "contrastive":
            raise ValueError(
                f"{source.path} is of objective: {config.objective}, whose model reads no text; "
                "give a run of objective: contrastive, or use clue.inference.item_id_encoder"
            )
        fingerprint = source.fingerprint
        if seed is not None:
            torch.manual_seed(seed)
            fingerprint = f"untrained-{seed}-{fingerprint}"
        model = DualEncoder(config.model, source.corpus["vocab_size"])
        if seed is None:
            model.load_state_dict(source.weights())
        return cls(source, model.eval().to(device), fingerprint)

    def embed(self, user: Mapping[str, Sequence[str]]) -> np.ndarray:
        """Return the vector (E,) of one user: texts of behaviours by service, oldest first."""
        return self.embed_users([user])[0]

    def embed_users(self, users: Sequence[Mapping[str, Sequence[str]]]) -> np.ndarray:
        """Return the vectors (n, E): the normalised mean of each user's vectors of single services.

        Of a service the newest `max_events` are read. Raises ValueError for a user without events
        and for an empty text, naming which.
        """
        histories = [texts for user in users for texts in user.values() if len(texts)]
        owners = np.repeat(
            np.arange(len(users)), [sum(len(t) > 0 for t in user.values()) for user in users]
        )
        missing = np.setdiff1d(np.arange(len(users)), owners)
        if len(missing):
            raise ValueError(f"user {missing[0]} has no events; leave such users out")
        cut = [texts[-self.max_events :] for texts in histories]
        rows = {text: row for row, text in enumerate(dict.fromkeys(t for c in cut for t in c))}
        items = item_vectors(self.model, self._tokens(list(rows)))
        events = packed([[rows[text] for text in texts] for texts in cut])
        vectors = user_vectors(self.model, items, events)
        total = np.zeros((len(users), self.width), np.float32)
        np.add.at(total, owners, vectors.numpy())
        return normalised(total)

    def embed_events(self, users: Sequence[Sequence[tuple[str, str]]]) -> np.ndarray:
        """Return `embed_users` of users whose events are (service, text), oldest first."""
        return self.embed_users([by_service(events) for events in users])

    def embed_items(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors (n, E) of items: each the vector of a user who did just that."""
        return self._as_histories(item_vectors(self.model, self._tokens(texts)))

    def catalogue(self, corpus: Corpus, *, items: torch.Tensor | None = None) -> np.ndarray:
        """Return `embed_items` of every item of the corpus, in its order; `items` as below."""
        return self._as_histories(self.catalogue_items(corpus) if items is None else items)

    def embed_histories(
        self, corpus: Corpus, histories: Ragged, *, items: torch.Tensor | None = None
    ) -> np.ndarray:
        """Return the vectors (n, E) of rows of catalogue items, oldest first; empty rows are zero.

        `items` are `catalogue_items(corpus)`, for callers who come more than once.
        """
        if items is None:
            items = self.catalogue_items(corpus)
        return user_vectors(self.model, items, newest(histories, self.max_events)).numpy()

    def catalogue_items(self, corpus: Corpus) -> torch.Tensor:
        """Return the item encoder's vectors (I, D) of every item of the corpus."""
        self.check(corpus)
        return item_vectors(self.model, corpus.item_tokens)

    def check(self, corpus: Corpus) -> None:
        """Raises ValueError where the corpus was written with another tokenizer."""
        if corpus.manifest.tokenizer_sha256 != self.tokenizer_sha256:
            raise ValueError(
                f"{corpus.path} was prepared with another tokenizer than the checkpoint's; prepare "
                f"it again with tokenizer.path={self.tokenizer_path}"
            )

    def _tokens(self, texts: Sequence[str]) -> Ragged:
        encoded = self._tokenizer.encode_batch(list(texts))
        ids = [one.ids[: self.max_item_tokens] for one in encoded]
        for number, tokens in enumerate(ids):
            if not tokens:
                raise ValueError(f"text {number} is empty; an event needs words to be read")
        return packed(ids)

    def _as_histories(self, items: torch.Tensor) -> np.ndarray:
        single = Ragged(np.arange(len(items)), np.arange(len(items) + 1))
        return user_vectors(self.model, items, single).numpy()
