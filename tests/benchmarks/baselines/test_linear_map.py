"""The linear probe of retrieval: a planted turn is found, and infinite strength is zero-shot."""

import numpy as np
import pytest

from benchmarks.baselines.linear_map import STRENGTHS, linear_maps, tuned_map
from benchmarks.baselines.tfidf import unit


def planted(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return users (600, 8), and items that are the users turned by one rotation, with noise."""
    users = unit(rng.standard_normal((600, 8)))
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    return users, unit(users @ turn + 0.05 * rng.standard_normal((600, 8)))


def recall(found: np.ndarray, items: np.ndarray) -> float:
    return float(((found @ items.T).argmax(1) == np.arange(len(items))).mean())


def test_a_planted_turn_is_found_on_other_users() -> None:
    users, items = planted(np.random.default_rng(0))
    found, strength = tuned_map(
        linear_maps(users[:400], items[:400]),
        lambda one: -recall(one(users[400:500]), items[400:500]),
    )
    assert strength < 1
    assert recall(users[500:], items[500:]) < 0.1
    assert recall(found(users[500:]), items[500:]) > 0.8


def test_infinite_strength_is_the_users_own_vector() -> None:
    users, items = planted(np.random.default_rng(1))
    np.testing.assert_allclose(linear_maps(users, items)(float("inf"))(users), users, atol=1e-12)
    shuffled = np.random.default_rng(2).permutation(items)  # nothing to learn: no worse than chosen
    _, strength = tuned_map(
        linear_maps(users, shuffled), lambda one: float(np.square(one(users) - users).sum())
    )
    assert strength == STRENGTHS[-1]


def test_each_strength_equals_the_normal_equations() -> None:
    users, items = planted(np.random.default_rng(3))
    fitted, gram = linear_maps(users, items), users.T @ users
    for strength in STRENGTHS[:-1]:
        ridge = gram + strength * np.linalg.eigvalsh(gram).mean() * np.eye(8)
        expected = np.linalg.solve(ridge, users.T @ (items - users))
        np.testing.assert_allclose(fitted(strength).weights, expected, atol=1e-10)


def test_nobody_to_learn_from_is_refused() -> None:
    with pytest.raises(ValueError, match="no user to fit a linear map on"):
        linear_maps(np.zeros((0, 8)), np.zeros((0, 8)))
