"""Item popularity beside the scores of a frozen model: what a supervised rival has learnt anyway.

    score(user, item) + weight * log(1 + training events of the item)

The weight is one of WEIGHTS times what makes both as wide: the mean over users of the deviation of
their scores, over the deviation of the logarithms. It has the best NDCG@10 among the valid users,
the smallest of equals, and may be 0.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.baselines.linear_map import LinearMap, tuned_map
from clue.data.ragged import Ragged
from clue.evaluation.ranking import products, rank_scores

WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
Blocks = Iterator[np.ndarray]  # scores (b, m) of some users at a time


@dataclass(frozen=True)
class PopularityWeight:
    """`share` is that of WEIGHTS, `boost` (m,) is what every user's scores of m items gain."""

    share: float
    boost: np.ndarray

    def __call__(self, blocks: Blocks) -> Blocks:
        """Yield the scores (b, m) with the popularity of the items."""
        for scores in blocks:
            yield scores + self.boost


def weights(blocks: Callable[[], Blocks], counts: np.ndarray) -> list[PopularityWeight]:
    """Return the weight of each of WEIGHTS for scores (n, m) and training `counts` (m,)."""
    popular = np.log1p(counts)
    spread = np.concatenate([scores.std(axis=1) for scores in blocks()])
    ratio = float(spread.mean()) / max(float(popular.std()), 1e-12)
    return [PopularityWeight(share, share * ratio * popular) for share in WEIGHTS]


@dataclass(frozen=True)
class Questions:
    """What the choice is made on: the items (n,) of n users among m, what each has `seen`.

    `targets` (n,) and `seen` are columns of the scores, `counts` (m,) are training events.
    """

    targets: np.ndarray
    seen: Ragged | None
    counts: np.ndarray

    def ndcg(self, blocks: Blocks) -> float:
        """Return the mean NDCG@10 of scores (b, m), block after block."""
        return float(rank_scores(blocks, self.targets, self.seen).ndcg(10).mean())


def tuned_weight(blocks: Callable[[], Blocks], asked: Questions) -> tuple[PopularityWeight, float]:
    """Return the weight of the best NDCG@10, and that; `blocks` makes the users' scores anew."""
    gains = gains_of(blocks, asked)
    best = best_of(gains)
    return weights(blocks, asked.counts)[best], float(gains[best]) / len(asked.targets)


def best_of(gains: np.ndarray) -> int:
    """Return the first of the best of WEIGHTS by their gains (W,)."""
    return int(np.argmax(np.round(gains, 9)))


def gains_of(blocks: Callable[[], Blocks], asked: Questions) -> np.ndarray:
    """Return the sum of NDCG@10 over the users by each of WEIGHTS, (W,)."""
    each = weights(blocks, asked.counts)
    gains = np.zeros(len(each))
    start = 0
    for scores in blocks():
        rows = np.arange(start, start + len(scores))
        start += len(scores)
        seen = None if asked.seen is None else asked.seen.take(rows)
        for number, weight in enumerate(each):
            block = rank_scores(weight(iter([scores])), asked.targets[rows], seen)
            gains[number] += block.ndcg(10).sum()
    return gains


def tuned_map_and_weight(
    maps: Callable[[float], LinearMap], users: np.ndarray, items: np.ndarray, asked: Questions
) -> tuple[LinearMap, PopularityWeight, dict[str, float]]:
    """Return a linear map and the weight of popularity beside it, and what was chosen.

    By NDCG@10 of the vectors of valid `users` (n, E), with the vectors (m, D) of items: the
    strength without popularity, the weight, then the strength again with it where that is better.
    """
    one, strength = tuned_map(
        maps, lambda candidate: -asked.ndcg(products(candidate(users), items))
    )
    weight, gain = tuned_weight(lambda: products(one(users), items), asked)
    if weight.share:
        again, other = tuned_map(
            maps, lambda candidate: -asked.ndcg(weight(products(candidate(users), items)))
        )
        if asked.ndcg(weight(products(again(users), items))) > gain:
            one, strength = again, other
    return one, weight, {"strength": strength, "popularity": weight.share}
