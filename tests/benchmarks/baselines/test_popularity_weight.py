"""The weight of popularity is the best of its grid by a direct count, 0 among them."""

import numpy as np
import pytest

from benchmarks.baselines.popularity_weight import WEIGHTS, Questions, tuned_weight
from clue.data.ragged import Ragged
from clue.evaluation.ranking import products, rank_scores

USERS, ITEMS = 50, 40


@pytest.mark.parametrize("filtered", [False, True])
def test_the_weight_is_the_best_of_the_grid(filtered: bool) -> None:
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(USERS, 4)), rng.normal(size=(ITEMS, 4))
    counts = rng.integers(0, 100, ITEMS)
    taste = users @ items.T
    targets = (taste + 2 * np.log1p(counts) + rng.gumbel(size=taste.shape)).argmax(1)
    seen = Ragged.from_lists([[k % ITEMS, (k + 1) % ITEMS] for k in range(USERS)])
    asked = Questions(targets, seen if filtered else None, counts)
    weight, gain = tuned_weight(lambda: products(users, items), asked)
    ratio = taste.std(axis=1).mean() / np.log1p(counts).std()
    each = [
        rank_scores(iter([taste + share * ratio * np.log1p(counts)]), targets, asked.seen)
        for share in WEIGHTS
    ]
    gains = [ranks.ndcg(10).mean() for ranks in each]
    assert weight.share == WEIGHTS[int(np.argmax(gains))] > 0
    assert gain == pytest.approx(max(gains))
    (scores,) = weight(iter([taste]))
    np.testing.assert_allclose(scores, taste + weight.share * ratio * np.log1p(counts))


def test_equal_counts_have_no_weight() -> None:
    rng = np.random.default_rng(1)
    users, items = rng.normal(size=(USERS, 4)), rng.normal(size=(ITEMS, 4))
    targets = (users @ items.T).argmax(1)
    asked = Questions(targets, None, np.full(ITEMS, 7))
    weight, gain = tuned_weight(lambda: products(users, items), asked)
    assert (weight.share, gain) == (0, 1)
