"""Services in one space: linear maps of words and of items under which a user's services agree.

A user's document in a service are the tokens of all that was met there, and beside them the items
themselves, each half weighted and of length one. For services that share users, generalised
canonical correlations (SUMCOR: Kettenring 1971, "Canonical analysis of several sets of variables")
give each service a map into a common space. With Z_s (n, p) the whitened documents of service s,
zero where a user has none, the directions are the leading eigenvectors of the matrix of blocks
Z_s^T Z_t for s other than t, zero for s = t; of two services they are the canonical directions, and
the eigenvalues the correlations.

R@10 and entropy of valid users, ten services at once: food and kitchen (960) by words alone .100,
6.23, with items .106, 6.13 at width 128 and .113, 6.14 at 256; arts and office (974) .140, 6.13,
then .149, 6.06 and .154, 6.04. A baseline of words and correlations of each pair by itself has
.095, 6.28; .141, 6.07. Factors of the items over all services together are no substitute for those
of one service (.083, 6.22; .149, 6.19): they hold what the same users did in the other. Blocks
divided by the share of common users are worse (arts and office .062 by words), and so are diagonal
blocks of the whitened documents' own scatter, which a ridge leaves below 1 (food and kitchen .056).

Trained as part of the contrastive logits, the sum of both cosines, even where each user's alignment
was fitted on the other half of the users, it did not pay: food and kitchen .102, 6.15 after 300
steps, against .101, 6.10 of the sum of two that learnt apart.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from scipy.sparse import csr_matrix
from torch import Tensor

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.train.factors import Matrix, populations, right_factors

WORD_BASIS, ITEM_BASIS = 512, 128  # directions of a service's words and items
RIDGE = 10.0  # of the scatter matrices; 3 to 10 suit all pairs of ten services
POWER = 1.5  # of the correlations, as weights of the directions; 1 to 3 do


@dataclass(frozen=True)
class Documents:
    """A history's document: its tokens' counts (n, V) and its items' (n, I), as sparse matrices."""

    words: Matrix
    items: Matrix


@dataclass(frozen=True)
class Alignment:
    """How the documents of S services become aligned vectors of one width.

    A document's words have the inverse document frequencies `word_weights` (S, V) and the maps
    `word_maps` (S, V, width); its items, each of one service, `item_weights` (I,) and `item_maps`
    (I, width). `offsets` (S, 2, width) are the means of both halves. All is zero for a service that
    shares no user, and for an item that its users did not meet.
    """

    word_maps: Float[Tensor, "S V width"]
    word_weights: Float[Tensor, "S V"]
    item_maps: Float[Tensor, "I width"]
    item_weights: Float[Tensor, " I"]
    offsets: Float[Tensor, "S 2 width"]

    def vectors(self, documents: Documents, service: int) -> Float32[np.ndarray, "n width"]:
        """Return the vectors of documents of a service, not at unit length.

        A half that nothing is known of adds nothing: the mean of it is then no offset.
        """
        total = np.zeros((documents.words.shape[0], self.item_maps.shape[1]), np.float32)
        for counts, weights, maps, mean in (
            (documents.words, self.word_weights[service], self.word_maps[service], 0),
            (documents.items, self.item_weights, self.item_maps, 1),
        ):
            half = weighted(counts, weights.numpy())
            known = np.asarray(half.multiply(half).sum(1)).ravel() > 0
            total[known] += half[known] @ maps.numpy() - self.offsets[service, mean].numpy()
        return total


def align(corpus: Corpus, users: np.ndarray, width: int, seed: int) -> Alignment:
    """Return the alignment of a corpus's services by those of `users` (n,) who are in several."""
    services, vocab = len(corpus.services), corpus.manifest.vocab_size
    alignment = Alignment(
        torch.zeros(services, vocab, width),
        torch.zeros(services, vocab),
        torch.zeros(corpus.num_items, width),
        torch.zeros(corpus.num_items),
        torch.zeros(services, 2, width),
    )
    for group in populations(corpus, users):
        present = np.stack([corpus.items_of(s).lengths[users] > 0 for s in group])
        several = present.sum(0) >= 2
        linked = [s for s, row in zip(group, present, strict=True) if (row & several).any()]
        if len(linked) >= 2:
            _align_group(corpus, users[several], linked, alignment, seed)
    return alignment


@dataclass(frozen=True)
class _Half:
    """The words or the items of a service's documents: `basis` (m, k) of `columns` (m,)."""

    columns: np.ndarray
    weights: np.ndarray
    basis: np.ndarray
    scores: np.ndarray  # (n, k) of the documents

    @classmethod
    def of(cls, counts: Matrix, rank: int, seed: int) -> "_Half":
        columns = np.unique(counts.indices)
        counts = counts[:, columns]
        weights = document_weights(counts)
        half = weighted(counts, weights)
        basis = right_factors(half, rank, seed).numpy() / half.shape[1] ** 0.5
        return cls(columns, weights, basis, half @ basis)


def _align_group(
    corpus: Corpus, users: np.ndarray, services: list[int], alignment: Alignment, seed: int
) -> None:
    """Fill in the maps of services that share `users`."""
    width = alignment.item_maps.shape[1]
    halves: list[tuple[_Half, _Half]] = []
    whitened: list[np.ndarray] = []
    roots: list[np.ndarray] = []
    for service in services:
        histories = corpus.items_of(service).take(users)
        here = np.flatnonzero(histories.lengths > 0)
        documents = documents_of(corpus.item_tokens, histories.take(here), alignment)
        words = _Half.of(documents.words, WORD_BASIS, seed)
        items = _Half.of(documents.items, ITEM_BASIS, seed)
        x = np.concatenate([words.scores, items.scores], axis=1)
        x = x - x.mean(0)
        root = _inverse_root(x.T @ x)
        rows = np.zeros((len(users), x.shape[1]), np.float32)
        rows[here] = x @ root
        halves.append((words, items))
        whitened.append(rows)
        roots.append(root)
    ends = np.cumsum([rows.shape[1] for rows in whitened])
    both = np.concatenate(whitened, axis=1).astype(np.float64)
    agreement = both.T @ both
    for start, end in zip(ends - [rows.shape[1] for rows in whitened], ends, strict=True):
        agreement[start:end, start:end] = 0  # a service with itself
    values, vectors = np.linalg.eigh(agreement)
    kept = np.argsort(-values)[:width]
    strength = np.clip(values[kept], 0, None) ** POWER
    parts = np.split(vectors[:, kept] * strength, ends[:-1])
    for service, (words, items), root, part in zip(services, halves, roots, parts, strict=True):
        of_words, of_items = np.split((root @ part).astype(np.float32), [words.basis.shape[1]])
        alignment.word_maps[service, words.columns, : len(kept)] = _tensor(words.basis @ of_words)
        alignment.word_weights[service, words.columns] = _tensor(words.weights)
        alignment.item_maps[items.columns, : len(kept)] = _tensor(items.basis @ of_items)
        alignment.item_weights[items.columns] = _tensor(items.weights)
        means = np.stack([words.scores.mean(0) @ of_words, items.scores.mean(0) @ of_items])
        alignment.offsets[service, :, : len(kept)] = _tensor(means)


def documents_of(
    item_tokens: Ragged, histories: Ragged, alignment: Alignment, rows: np.ndarray | None = None
) -> Documents:
    """Return the documents of n histories, whose values index `item_tokens`.

    `rows` are those items' rows of the alignment's catalogue, -1 for none; without them they are
    that catalogue.
    """
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    item = histories.values if rows is None else rows[histories.values]
    known = item >= 0
    ones = np.ones(int(known.sum()), np.float32)
    shape = (len(histories), len(alignment.item_maps))
    items = csr_matrix((ones, (owner[known], item[known])), shape)
    return Documents(token_counts(item_tokens, histories, alignment.word_maps.shape[1]), items)


def token_counts(item_tokens: Ragged, histories: Ragged, vocab: int) -> Matrix:
    """Return how often each token stands in the texts of each history, (n, V)."""
    texts = item_tokens.take(histories.values)
    ends = np.concatenate([[0], np.cumsum(texts.lengths)])[histories.offsets]
    row = np.repeat(np.arange(len(histories)), np.diff(ends))
    shape = (len(histories), vocab)
    return csr_matrix((np.ones(len(row), np.float32), (row, texts.values)), shape)


def document_weights(counts: Matrix) -> np.ndarray:
    """Return 1 + log((n + 1) / (documents that hold it + 1)) of each token, float32; 0 for none."""
    frequency = np.bincount(counts.indices, minlength=counts.shape[1])
    weights = 1 + np.log((counts.shape[0] + 1) / (frequency + 1))
    return np.where(frequency > 0, weights, 0).astype(np.float32)


def weighted(counts: Matrix, weights: np.ndarray) -> Matrix:
    """Return (1 + log count) x weight of each entry, each row of length one."""
    made: Matrix = counts.copy()
    made.data = ((1 + np.log(made.data)) * weights[made.indices]).astype(np.float32)
    norms = np.sqrt(np.asarray(made.multiply(made).sum(1)).ravel())
    made.data /= np.repeat(np.maximum(norms, 1e-12), np.diff(made.indptr)).astype(np.float32)
    return made


def _inverse_root(scatter: np.ndarray) -> np.ndarray:
    """Return (scatter + RIDGE)^(-1/2), float32."""
    values, vectors = np.linalg.eigh(scatter.astype(np.float64) + RIDGE * np.eye(len(scatter)))
    inverse: Any = vectors / np.sqrt(values) @ vectors.T
    return inverse.astype(np.float32)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
