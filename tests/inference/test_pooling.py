"""One user's vector of several services: the unit mean, whatever the order and type of the rows."""

import numpy as np

from clue.inference.pooling import pool_services


def test_a_user_is_the_unit_mean_of_their_rows() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((7, 5)).astype(np.float32)
    user_index = np.array([2, 0, 2, 1, 0, 2, 0])
    found = pool_services([(user_index[:4], rows[:4]), (user_index[4:], rows[4:])], 4)
    assert found.shape == (4, 5) and found.dtype == np.float32
    for user in range(3):
        mean = rows[user_index == user].mean(0)
        assert np.allclose(found[user], mean / np.linalg.norm(mean), atol=1e-6)
    assert not found[3].any()


def test_float64_rows_are_rounded_once() -> None:
    """A sum of rows that were rounded before moved an AUROC of the suite `mini` by 5e-6."""
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((2, 1000, 8))
    users = np.arange(1000)
    found = pool_services([(users, first), (users, second)], 1000)
    total = first.astype(np.float32)
    once = (total + second).astype(np.float32)
    twice = total + second.astype(np.float32)
    assert (once != twice).any()
    assert np.array_equal(found, once / np.linalg.norm(once, axis=1, keepdims=True))
