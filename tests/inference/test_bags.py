"""Bags of items: by hand, and two bags of one user as one."""

import numpy as np

from clue.data.ragged import Ragged
from clue.inference.bags import Bag, recent_bag, uniform_bag


def test_bags_by_hand() -> None:
    first, second = Ragged.from_lists([[3, 1, 3], []]), Ragged.from_lists([[2], []])

    def joined(one: Bag, other: Bag) -> np.ndarray:
        total = sum(bag.weights.toarray()[0] * bag.norm[0] for bag in (one, other))
        return np.asarray(total / np.hypot(one.norm[0], other.norm[0]))

    uniform = joined(uniform_bag(first, 4), uniform_bag(second, 4))
    np.testing.assert_allclose(uniform, np.array([0, 1, 1, 1 + np.log(2)]) / np.sqrt(3), rtol=1e-6)
    recent = joined(recent_bag(first, 4), recent_bag(second, 4))
    weights = np.array([0, 1 / 2, 1, 1 + 1 / 3])
    np.testing.assert_allclose(recent, weights / np.linalg.norm(weights), rtol=1e-6)
    for bag in (uniform_bag(first, 4), recent_bag(first, 4)):
        assert bag.norm[1] == 0
        assert not bag.weights.toarray()[1].any()
    assert first.values.tolist() == [3, 1, 3]  # what is read is not sorted where it lies
