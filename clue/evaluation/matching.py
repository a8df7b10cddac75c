"""Held-out matching: does the vector of one view find the same user's other view among all users?

The gallery is fixed and every candidate ranked. The loss is the contrastive entropy at a fixed
number of negatives, never the training loss: InfoNCE at different batch sizes does not compare.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.evaluation.ranking import Ranks, concatenated, rank

GALLERY = 4096  # the entropy is then CE_4095, or that of a smaller gallery, whose size is named
BLOCK = 2048  # queries whose scores are alive at once


@dataclass(frozen=True)
class MatchingPairs:
    """N held-out users with both views as catalogue items: `a` of one service, `b` of another.

    In a corpus of one service they are the older and the newer half of the history.
    """

    name: str
    service_a: str
    service_b: str
    users: np.ndarray
    a: Ragged
    b: Ragged


@dataclass(frozen=True)
class Matching:
    """Full ranking both ways in a gallery of `gallery` users, averaged over the two directions.

    `contrastive_entropy` in nats over `negatives` = gallery - 1 negatives at the model's own
    temperature, chance ln(gallery); `calibrated_entropy` the same at the one temperature that
    suits this gallery best, `calibrated_scale`, and `entropy_se` its standard error over the users;
    `median_rank` as a share of the gallery.
    """

    contrastive_entropy: float
    calibrated_entropy: float
    entropy_se: float
    calibrated_scale: float
    recall_at_1: float
    recall_at_10: float
    mrr: float
    median_rank: float
    negatives: int
    gallery: int


def matching_pairs(
    corpus: Corpus, users: np.ndarray, *, max_events: int, most: int = GALLERY
) -> list[MatchingPairs]:
    """Return the pairs of every two services that some of `users` share, newest `max_events` each.

    A gallery is at most `most` users, the first of a fixed shuffle.
    """
    users = np.random.default_rng(0).permutation(users)
    if len(corpus.services) == 1:
        return _halves(corpus, users, max_events, most)
    pairs: list[MatchingPairs] = []
    for one, other in combinations(range(len(corpus.services)), 2):
        histories = corpus.items_of(one), corpus.items_of(other)
        both = users[(histories[0].lengths[users] > 0) & (histories[1].lengths[users] > 0)]
        both = np.sort(both[:most])
        if len(both) < 2:
            continue
        a, b = (history.take(both).last(max_events) for history in histories)
        names = corpus.services[one], corpus.services[other]
        pairs.append(MatchingPairs("-".join(names), *names, both, a, b))
    return pairs


def _halves(corpus: Corpus, users: np.ndarray, max_events: int, most: int) -> list[MatchingPairs]:
    history = corpus.items_of(0)
    long = np.sort(users[history.lengths[users] >= 2][:most])
    if len(long) < 2:
        return []
    size = history.lengths[long]
    older, start = size // 2, history.offsets[long]
    parts = Ragged.slices(start, older), Ragged.slices(start + older, size - older)
    a, b = (Ragged(history.values[p.values], p.offsets).last(max_events) for p in parts)
    service = corpus.services[0]
    return [MatchingPairs(f"{service}-halves", service, service, long, a, b)]


def pair_ranks(a: np.ndarray, b: np.ndarray) -> tuple[Ranks, Ranks]:
    """Return the standing of b_i for anchor a_i among all N of `b`, and of a_i for b_i."""
    same = np.arange(len(a))
    return rank(a, b, same), rank(b, a, same)


def contrastive_entropy(a: np.ndarray, b: np.ndarray, scale: float) -> np.ndarray:
    """Return each user's nats over the whole gallery, mean of both directions, shape (N,).

    Every query has N - 1 negatives: -s_ii + log sum_j exp(s_ij), s = scale x cosine.
    """
    total = np.zeros(len(a))
    for queries, candidates in ((a, b), (b, a)):
        for start in range(0, len(a), BLOCK):
            block = slice(start, start + BLOCK)
            scores = scale * (queries[block] @ candidates.T).astype(np.float64)
            top = scores.max(1)
            own = scores[np.arange(len(scores)), start + np.arange(len(scores))]
            total[block] += top + np.log(np.exp(scores - top[:, None]).sum(1)) - own
    return total / 2


def fit_scale(a: np.ndarray, b: np.ndarray) -> float:
    """Return the 1/temperature in [0.1, 1000] that minimises the mean contrastive entropy.

    The entropy is convex in the scale; golden sections of its logarithm find it to 1 %.
    """
    low, high = np.log(0.1), np.log(1000.0)
    golden = (5**0.5 - 1) / 2
    inner = [high - golden * (high - low), low + golden * (high - low)]
    values = [contrastive_entropy(a, b, float(np.exp(x))).mean() for x in inner]
    while high - low > 0.01:
        if values[0] < values[1]:
            high, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = high - golden * (high - low)
            values[0] = contrastive_entropy(a, b, float(np.exp(inner[0]))).mean()
        else:
            low, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = low + golden * (high - low)
            values[1] = contrastive_entropy(a, b, float(np.exp(inner[1]))).mean()
    return float(np.exp((low + high) / 2))


def summarise(a: np.ndarray, b: np.ndarray, scale: float) -> Matching:
    """Return the figures of one gallery of unit vectors (N, E), row i of both the same user."""
    ranks = concatenated(pair_ranks(a, b))
    calibrated = fit_scale(a, b)
    nats = contrastive_entropy(a, b, calibrated)
    return Matching(
        contrastive_entropy=float(contrastive_entropy(a, b, scale).mean()),
        calibrated_entropy=float(nats.mean()),
        entropy_se=float(nats.std() / len(nats) ** 0.5),
        calibrated_scale=calibrated,
        recall_at_1=float(ranks.hit(1).mean()),
        recall_at_10=float(ranks.hit(10).mean()),
        mrr=float(ranks.reciprocal().mean()),
        median_rank=float(np.median(ranks.share())),
        negatives=len(a) - 1,
        gallery=len(a),
    )


def evaluate_matching(
    pairs: list[MatchingPairs], encode: Callable[[Ragged], np.ndarray], scale: float
) -> dict[str, dict[str, float]]:
    """Return the figures of each pair of services; `encode` makes unit vectors of histories."""
    return {p.name: asdict(summarise(encode(p.a), encode(p.b), scale)) for p in pairs}


def selection_score(metrics: dict[str, dict[str, float]], by: Literal["loss", "ndcg"]) -> float:
    """Return what the best checkpoint of a run has least of: held-out loss, or -NDCG@10.

    Infinite where it was not measured.
    """
    if by == "loss":
        return mean_entropy(metrics)
    values = [figures["ndcg_at_10"] for figures in metrics.values() if "ndcg_at_10" in figures]
    return -sum(values) / len(values) if values else math.inf


def mean_entropy(metrics: dict[str, dict[str, float]]) -> float:
    """Return the mean held-out loss in nats, of either objective; infinite where none was measured.

    It is the calibrated contrastive entropy, or the cross-entropy of the next item.
    """
    keys = "calibrated_entropy", "cross_entropy"
    values = [figures[key] for figures in metrics.values() for key in keys if key in figures]
    return sum(values) / len(values) if values else math.inf
