"""The frozen representations that every task is given: our encoder, its controls, plain baselines.

All are made from the *learnable* corpus alone (what pretraining may read) and read the corpus that
is evaluated through `Snapshot`.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import CountVectorizer

from benchmarks.baselines.tfidf import PATTERN, Counts, TextSpace, documents, unit
from benchmarks.protocols import one_block
from benchmarks.snapshot import Snapshot
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.inference.encoder import Encoder, load
from clue.inference.hub import name_of
from clue.inference.pooling import pool_histories
from clue.inference.universal_encoder import UniversalEncoder
from clue.run import checkpoint

KEPT = 8  # pasts whose vectors an encoder remembers: the tasks of one shop share their windows
FIT_ON = 20_000  # histories that TF-IDF + SVD is fitted on, drawn from those of the training users


class EncoderVectors:
    """A CLUE encoder on one corpus, whose items it encodes once."""

    def __init__(self, encoder: Encoder, corpus: Corpus) -> None:
        """Encode the catalogue. ValueError for a corpus of another tokenizer or catalogue."""
        self._encoder = encoder
        self._corpus = corpus
        self._items = encoder.item_inputs(corpus)
        self.scale: float | None = encoder.scale
        self.join: Literal["time", "service"] = encoder.join

    def histories(self, service: str, histories: Ragged) -> np.ndarray:
        """Return unit vectors (rows, E); of a history the newest `max_events` are read."""
        return self._encoder.encode_histories(self._corpus, histories, items=self._items)

    def users(self, past: Snapshot) -> np.ndarray:
        """Return the vectors (n, E) of users over all services, as of their moments."""
        return self._encoder.encode_users(
            self._corpus,
            past.parts,
            as_of=past.cutoff,
            amounts=past.amounts,
            items=self._items,
        )

    def items(self) -> np.ndarray:
        """Return vectors (num_items, E), by whose product with a user's the model ranks."""
        return self._encoder.encode_catalogue(self._corpus, items=self._items)


class EncoderModel:
    """A pretrained encoder, or with `untrained` the same one before its first step."""

    def __init__(
        self, name: str, path: Path, corpus: Corpus, *, seed: int, untrained: bool
    ) -> None:
        """Read what the checkpoint at `path` is; its weights when a vector is asked for."""
        self.name, self.seed, self.corpus = name, seed, corpus
        self.source = checkpoint.find(path)
        self.untrained = untrained
        self.fingerprint = name_of(self.source, seed if untrained else None)
        self._remembered: OrderedDict[str, np.ndarray] = OrderedDict()

    @cached_property
    def _encoder(self) -> Encoder:
        return load(self.source.path, seed=self.seed if self.untrained else None)

    @cached_property
    def _vectors(self) -> EncoderVectors:
        return EncoderVectors(self._encoder, self.corpus)

    def users(self, past: Snapshot) -> np.ndarray:
        """Return the unit mean (n, E) of the vectors of the services, or that of all as one."""
        key = past.digest
        if key not in self._remembered:
            self._remembered[key] = self._read(past)
            if len(self._remembered) > KEPT:
                self._remembered.popitem(last=False)
        return self._remembered[key]

    def _read(self, past: Snapshot) -> np.ndarray:
        return self._vectors.users(past)

    def items(self) -> np.ndarray:
        """Return the vectors (num_items, E) by whose product with a user's the items rank."""
        return self._items

    @cached_property
    def whole_items(self) -> np.ndarray:
        """The items (num_items, E) in all blocks, of which a universal model ranks in one."""
        return self._vectors.items()

    @cached_property
    def _items(self) -> np.ndarray:
        vectors = self.whole_items
        if isinstance(self._encoder, UniversalEncoder):  # whose items rank in one block
            ranking = np.zeros_like(vectors)
            columns = self._encoder.ranking_columns
            ranking[:, columns] = vectors[:, columns]
            return ranking
        return vectors

    @property
    def width(self) -> int:
        """The width E of its vectors, whatever the objective."""
        return self._encoder.width

    @property
    def blocks(self) -> Mapping[str, slice]:
        """Those of a universal model; of another one, the whole vector."""
        if isinstance(self._encoder, UniversalEncoder):
            return self._encoder.blocks
        return one_block(self.width)

    @property
    def similarity(self) -> slice:
        """The contrastive block of a universal model; of another one, all columns."""
        if isinstance(self._encoder, UniversalEncoder):
            return self._encoder.similarity_columns
        return slice(0, self.width)

    def raw_items(self) -> np.ndarray:
        """Return what the item encoder makes of each item, before the user encoder reads it."""
        return self._encoder.item_vectors(self.corpus)


class RandomModel:
    """Unit vectors drawn by the user's and the item's number: what chance looks like."""

    name, similarity = "random", slice(None)

    def __init__(self, corpus: Corpus, *, width: int, seed: int) -> None:
        """`width` E."""
        self.seed, rng = seed, np.random.default_rng(seed)
        self.fingerprint, self.blocks = f"random-{width}", one_block(width)
        self._users = unit(rng.standard_normal((corpus.num_users, width))).astype(np.float32)
        self._items = unit(rng.standard_normal((corpus.num_items, width))).astype(np.float32)

    def users(self, past: Snapshot) -> np.ndarray:
        """Return the users' vectors, whatever they did."""
        return self._users[past.users]

    def items(self) -> np.ndarray:
        """Return the catalogue's vectors."""
        return self._items


class TextModel:
    """TF-IDF + SVD of the texts of what a user did, learnt where pretraining learns."""

    name, similarity = "TF-IDF + SVD", slice(None)

    def __init__(self, learn: Corpus, corpus: Corpus, *, dims: int, seed: int) -> None:
        """`dims` is the width of the SVD."""
        self.learn, self.corpus, self.dims, self.seed = learn, corpus, dims, seed
        identity = f"{learn.fingerprint} {corpus.fingerprint} {dims} {seed} {FIT_ON}"
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()[:16]

    @cached_property
    def _counted(self) -> tuple[CountVectorizer, Counts] | None:
        """The terms that two items share and their counts (items, terms), None without such terms.

        Items that have ids alone share none.
        """
        counter = CountVectorizer(token_pattern=PATTERN, min_df=2)
        try:
            counts = counter.fit_transform(self.learn.item_texts.to_pylist())
        except ValueError:  # scikit-learn's "After pruning, no terms remain", "empty vocabulary"
            return None
        return counter, csr_matrix(counts, dtype=float)

    @property
    def has_terms(self) -> bool:
        """Whether any term stands in two items' texts; without, there is no space of texts."""
        return self._counted is not None

    @cached_property
    def _fitted(self) -> tuple[TextSpace, Counts]:
        """The space and the term counts of the catalogue that is evaluated."""
        assert self._counted is not None  # asked of a model with terms alone
        counter, learnt = self._counted
        users = self.learn.users_in("train")
        rng = np.random.default_rng(self.seed)
        users = np.sort(rng.permutation(users)[:FIT_ON])
        rows = [self.learn.items_of(s).take(users) for s in range(len(self.learn.services))]
        filled = [documents(r, learnt)[np.flatnonzero(r.lengths > 0)] for r in rows]
        space = TextSpace(vstack(filled).tocsr(), self.dims, self.seed)
        terms = csr_matrix(counter.transform(self.corpus.item_texts.to_pylist()), dtype=float)
        return space, terms

    @property
    def blocks(self) -> Mapping[str, slice]:
        """One, the whole vector."""
        return one_block(self._items.shape[1])

    def users(self, past: Snapshot) -> np.ndarray:
        """Return the unit mean (n, dims) over services of the vectors of their documents."""
        space, terms = self._fitted

        def histories(_: int | None, items: Ragged) -> np.ndarray:
            return unit(space(documents(items, terms))).astype(np.float32)

        return pool_histories(past.parts, histories, "service")

    def items(self) -> np.ndarray:
        """Return unit vectors (num_items, dims)."""
        return self._items

    @cached_property
    def _items(self) -> np.ndarray:
        space, terms = self._fitted
        return unit(space(terms)).astype(np.float32)


class ItemMeanModel:
    """The recency-weighted mean of our item encoder's vectors: what the user encoder must add to.

    The event before the last weighs 2^(-1 / half_life) of it, and so on.
    """

    name, similarity = "item mean", slice(None)

    def __init__(self, encoder: EncoderModel, *, half_life: float) -> None:
        """`half_life` is in events."""
        self.encoder, self.half_life, self.seed = encoder, half_life, encoder.seed
        self.fingerprint = f"item-mean-{half_life:g}-{encoder.fingerprint}"

    @cached_property
    def _items(self) -> np.ndarray:
        raw = self.encoder.raw_items()
        return unit(raw - raw.mean(0)).astype(np.float32)

    @property
    def blocks(self) -> Mapping[str, slice]:
        """One, the whole vector."""
        return one_block(self._items.shape[1])

    def users(self, past: Snapshot) -> np.ndarray:
        """Return the unit mean (n, D) over services."""

        def histories(_: int | None, items: Ragged) -> np.ndarray:
            age = items.offsets[1:].repeat(items.lengths) - 1 - np.arange(len(items.values))
            weight = 0.5 ** (age / self.half_life)
            shape = (len(items), len(self._items))
            return unit(csr_matrix((weight, items.values, items.offsets), shape) @ self._items)

        return pool_histories(past.parts, histories, "service")

    def items(self) -> np.ndarray:
        """Return unit vectors (num_items, D)."""
        return self._items


class FixedScores:
    """A row whose answers are given: true probabilities, or each class' share of training users.

    `answers` (Q, C) are the class probabilities of all queries of its task; `source` names what
    they were read from.
    """

    seed = 0

    def __init__(self, name: str, answers: np.ndarray, source: str) -> None:
        """Keep them."""
        self.name, self.answers = name, answers
        self.fingerprint = f"{name}-{source}"


def class_shares(labels: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Return each class's share among the rows of the training split, for every row, (Q, C)."""
    count = np.bincount(labels[split == 0], minlength=int(labels.max()) + 1)
    return np.tile(count / count.sum(), (len(labels), 1))
