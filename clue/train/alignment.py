"""Services' texts in one space: linear maps under which a user's services agree.

A user's document in a service are the tokens of all that was met there. For services that share
users, generalised canonical correlations (SUMCOR: Kettenring 1971, "Canonical analysis of several
sets of variables") give each service a map into a common space. With Z_s (n, p) the whitened
documents of service s, zero where a user has none, the directions are the leading eigenvectors of
the matrix of blocks Z_s^T Z_t for s other than t, zero for s = t; of two services they are the
canonical directions, and the eigenvalues the correlations.

R@10 and entropy of valid users: food and kitchen (960) .100, 6.23; beauty and sports (157) .217,
4.60; arts and office (974) .140, 6.13. A baseline of words and correlations of each pair by itself
has .095, 6.28; .197, 4.61; .141, 6.07. Blocks divided by the share of common users are worse (arts
and office .062), and so are diagonal blocks of the whitened documents' own scatter, which a ridge
leaves below 1 (food and kitchen .056).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from torch import Tensor

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.train.factors import Matrix, populations, right_factors

BASIS = 512  # directions of a service's documents that are correlated
RIDGE = 10.0  # of the scatter matrices; 3 to 10 suit all pairs of ten services
POWER = 1.5  # of the correlations, as weights of the directions; 1 to 3 do


@dataclass(frozen=True)
class Alignment:
    """How documents become aligned vectors: `maps` (S, V, width) of S services and `offsets`.

    A document of weights w (V,), of length one, becomes w maps[s] - offsets[s]; `weights` (S, V)
    are the tokens' inverse document frequencies. A service that shares no user has zeros.
    """

    maps: Float[Tensor, "S V width"]
    offsets: Float[Tensor, "S width"]
    weights: Float[Tensor, "S V"]


def align(corpus: Corpus, users: np.ndarray, width: int, seed: int) -> Alignment:
    """Return the alignment of a corpus's services by those of `users` (n,) who are in several."""
    services, vocab = len(corpus.services), corpus.manifest.vocab_size
    found = Alignment(
        torch.zeros(services, vocab, width),
        torch.zeros(services, width),
        torch.zeros(services, vocab),
    )
    for group in populations(corpus, users):
        present = np.stack([corpus.items_of(s).lengths[users] > 0 for s in group])
        several = present.sum(0) >= 2
        linked = [s for s, row in zip(group, present, strict=True) if (row & several).any()]
        if len(linked) >= 2:
            _align_group(corpus, users[several], linked, found, seed)
    return found


def _align_group(
    corpus: Corpus, users: np.ndarray, services: list[int], found: Alignment, seed: int
) -> None:
    """Fill in the maps of services that share `users`."""
    _, vocab, width = found.maps.shape
    whitened: list[np.ndarray] = []
    inner: list[np.ndarray] = []
    means: list[np.ndarray] = []
    for service in services:
        histories = corpus.items_of(service).take(users)
        here = histories.lengths > 0
        counts = token_counts(corpus.item_tokens, histories.take(np.flatnonzero(here)), vocab)
        weight = document_weights(counts)
        documents = weighted(counts, weight)
        basis = right_factors(documents, BASIS, seed).numpy() / documents.shape[1] ** 0.5
        x = documents @ basis
        mean = x.mean(0)
        root = _inverse_root((x - mean).T @ (x - mean))
        rows = np.zeros((len(users), basis.shape[1]), np.float32)
        rows[here] = (x - mean) @ root
        whitened.append(rows)
        inner.append(basis @ root)
        means.append(mean @ root)
        found.weights[service] = torch.from_numpy(weight)
    ends = np.cumsum([rows.shape[1] for rows in whitened])
    both = np.concatenate(whitened, axis=1).astype(np.float64)
    agreement = both.T @ both
    for start, end in zip(ends - [rows.shape[1] for rows in whitened], ends, strict=True):
        agreement[start:end, start:end] = 0  # a service with itself
    values, vectors = np.linalg.eigh(agreement)
    kept = np.argsort(-values)[:width]
    strength = np.clip(values[kept], 0, None) ** POWER
    for part, service, own, mean in zip(
        np.split(vectors[:, kept] * strength, ends[:-1]), services, inner, means, strict=True
    ):
        found.maps[service, :, : len(kept)] = torch.from_numpy((own @ part).astype(np.float32))
        found.offsets[service, : len(kept)] = torch.from_numpy((mean @ part).astype(np.float32))


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
