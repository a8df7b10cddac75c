"""Services in one space: linear maps of words and of items under which a user's services agree.

A user's document in a service are the tokens of all that was met there, and beside them the items
themselves, each half weighted and of length one, and perhaps the log counts of groups of texts
(text_groups.py). For services that share users, generalised
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
from clue.data.groups import populations
from clue.data.ragged import Ragged
from clue.train.factors import Matrix, right_factors
from clue.train.text_groups import TextGroups, text_groups

RIDGE = 10.0  # of the scatter matrices; 3 to 10 suit all pairs of ten services
POWER = 1.5  # of the correlations, as weights of the directions; 1 to 3 do


@dataclass(frozen=True)
class Documents:
    """A history's document: its tokens' counts (n, V) and its items' (n, I), as sparse matrices.

    `groups` (n, G) are the log counts of groups of texts, if there are any.
    """

    words: Matrix
    items: Matrix
    groups: np.ndarray | None = None


@dataclass(frozen=True)
class Alignment:
    """How the documents of S services become aligned vectors of one width.

    A document's words have the inverse document frequencies `word_weights` (S, V) and the maps
    `word_maps` (S, V, width); its items, each of one service, `item_weights` (I,) and `item_maps`
    (I, width). `offsets` (S, 2, width) are the means of both halves. All is zero for a service that
    shares no user, and for an item that its users did not meet. With groups of texts, by
    `group_words` and `group_centres`, their log counts have `group_maps` and `group_offsets`.
    """

    word_maps: Float[Tensor, "S V width"]
    word_weights: Float[Tensor, "S V"]
    item_maps: Float[Tensor, "I width"]
    item_weights: Float[Tensor, " I"]
    offsets: Float[Tensor, "S 2 width"]
    group_words: Float[Tensor, "V k"] | None = None
    group_centres: Float[Tensor, "G k"] | None = None
    group_maps: Float[Tensor, "S G width"] | None = None
    group_offsets: Float[Tensor, "S width"] | None = None

    @property
    def groups(self) -> TextGroups | None:
        """The groups of texts, if there are any."""
        if self.group_words is None or self.group_centres is None:
            return None
        return TextGroups(self.group_words, self.group_centres)

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
        if documents.groups is not None and self.group_maps is not None:
            assert self.group_offsets is not None  # the four come together
            total += documents.groups @ self.group_maps[service].numpy()
            total -= self.group_offsets[service].numpy()
        return total


def align(
    corpus: Corpus,
    users: np.ndarray,
    width: int,
    seed: int,
    *,
    basis: int = 512,
    groups: int = 0,
) -> Alignment:
    """Return the alignment of a corpus's services by those of `users` (n,) who are in several.

    Of a service's words `basis` directions are read and of its items a quarter as many, and beside
    them the log counts of so many `groups` of texts, of none at 0.
    """
    services, vocab = len(corpus.services), corpus.manifest.vocab_size
    counted = text_groups(corpus, users, groups, seed) if groups else None
    alignment = Alignment(
        torch.zeros(services, vocab, width),
        torch.zeros(services, vocab),
        torch.zeros(corpus.num_items, width),
        torch.zeros(corpus.num_items),
        torch.zeros(services, 2, width),
        *(
            (
                counted.words,
                counted.centres,
                torch.zeros(services, groups, width),
                torch.zeros(services, width),
            )
            if counted
            else ()
        ),
    )
    for group in populations(corpus, users):
        present = np.stack([corpus.items_of(s).lengths[users] > 0 for s in group])
        several = present.sum(0) >= 2
        linked = [s for s, row in zip(group, present, strict=True) if (row & several).any()]
        if len(linked) >= 2:
            _align_group(corpus, users[several], linked, alignment, basis, seed)
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


@dataclass(frozen=True)
class _Whitened:
    """A service's documents, of the users `here` (m,): both halves, log counts, and their `root`.

    The root whitens scores (m, k) of halves and counts side by side, less their means.
    """

    here: np.ndarray
    words: _Half
    items: _Half
    counts: np.ndarray
    root: np.ndarray

    @classmethod
    def of(cls, documents: Documents, here: np.ndarray, basis: int, seed: int) -> "_Whitened":
        words = _Half.of(documents.words, basis, seed)
        items = _Half.of(documents.items, basis // 4, seed)
        none = np.zeros((len(here), 0), np.float32)
        counts = none if documents.groups is None else documents.groups
        scores = np.concatenate([words.scores, items.scores, counts], axis=1)
        scores -= scores.mean(0)
        return cls(here, words, items, counts, _inverse_root(scores.T @ scores))

    def rows(self, users: int) -> np.ndarray:
        """Return the whitened scores (users, k) of so many users, zero where there are none."""
        scores = np.concatenate([self.words.scores, self.items.scores, self.counts], axis=1)
        rows = np.zeros((users, scores.shape[1]), np.float32)
        rows[self.here] = (scores - scores.mean(0)) @ self.root
        return rows

    def write(self, alignment: Alignment, service: int, directions: np.ndarray) -> None:
        """Fill in the maps of a service, by the chosen directions (k, width) of its rows."""
        width = directions.shape[1]
        words, items = self.words, self.items
        ranks = np.cumsum([words.basis.shape[1], items.basis.shape[1]])
        parts = np.split((self.root @ directions).astype(np.float32), ranks)
        of_words, of_items, of_counts = parts
        alignment.word_maps[service, words.columns, :width] = _tensor(words.basis @ of_words)
        alignment.word_weights[service, words.columns] = _tensor(words.weights)
        alignment.item_maps[items.columns, :width] = _tensor(items.basis @ of_items)
        alignment.item_weights[items.columns] = _tensor(items.weights)
        means = np.stack([words.scores.mean(0) @ of_words, items.scores.mean(0) @ of_items])
        alignment.offsets[service, :, :width] = _tensor(means)
        if alignment.group_maps is not None and alignment.group_offsets is not None:
            alignment.group_maps[service, :, :width] = _tensor(of_counts)
            alignment.group_offsets[service, :width] = _tensor(self.counts.mean(0) @ of_counts)


def _align_group(
    corpus: Corpus,
    users: np.ndarray,
    services: list[int],
    alignment: Alignment,
    basis: int,
    seed: int,
) -> None:
    """Fill in the maps of services that share `users`."""
    width = alignment.item_maps.shape[1]
    each: list[_Whitened] = []
    for service in services:
        histories = corpus.items_of(service).take(users)
        here = np.flatnonzero(histories.lengths > 0)
        documents = documents_of(corpus.item_tokens, histories.take(here), alignment)
        each.append(_Whitened.of(documents, here, basis, seed))
    ranks = [len(one.root) for one in each]
    ends = np.cumsum(ranks)
    both = np.concatenate([one.rows(len(users)) for one in each], axis=1).astype(np.float64)
    agreement = both.T @ both
    for start, end in zip(ends - ranks, ends, strict=True):
        agreement[start:end, start:end] = 0  # a service with itself
    values, vectors = np.linalg.eigh(agreement)
    kept = np.argsort(-values)[:width]
    strength = np.clip(values[kept], 0, None) ** POWER
    parts = np.split(vectors[:, kept] * strength, ends[:-1])
    for service, one, part in zip(services, each, parts, strict=True):
        one.write(alignment, service, part)


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
    words = token_counts(item_tokens, histories, alignment.word_maps.shape[1])
    if alignment.groups is None:
        return Documents(words, items)
    return Documents(words, items, alignment.groups.log_counts(item_tokens, histories))


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
