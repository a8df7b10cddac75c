"""The scale is refitted where the truth is known, and chance is ln n."""

import numpy as np
import pytest

from benchmarks.metrics.calibration import SCALES, refit_scale
from clue.evaluation.matching import contrastive_entropy


def planted(scale: float, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Users whose partner b_i is drawn from softmax(scale * a_i . b): its best scale is `scale`."""
    generator = np.random.default_rng(seed)
    a = generator.normal(size=(count, 3))
    b = generator.normal(size=(count, 3))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    # A random matching of weight exp(scale * sum of own scores), by Metropolis swaps: under it the
    # conditional law of each pair is the softmax that the entropy assumes.
    place = generator.permutation(count)
    scores = a @ b.T
    for _ in range(200 * count):
        i, j = generator.integers(0, count, 2)
        gain = scores[i, place[j]] + scores[j, place[i]] - scores[i, place[i]] - scores[j, place[j]]
        if np.log(generator.random()) < scale * gain:
            place[i], place[j] = place[j], place[i]
    return a, b[place]


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_a_planted_scale_is_recovered(scale: float) -> None:
    a, b = planted(scale, 400, seed=0)
    assert refit_scale(a, b) == pytest.approx(scale, rel=0.25)


def test_the_refitted_scale_is_the_best_one() -> None:
    a, b = planted(3.0, 100, seed=1)
    best = refit_scale(a, b)
    losses = [contrastive_entropy(a, b, best * factor).mean() for factor in (0.7, 1.0, 1.4)]
    assert losses[1] == min(losses)


def test_only_the_named_queries_decide() -> None:
    a, b = planted(3.0, 200, seed=2)
    rows = np.arange(100)
    other = b.copy()
    other[100:] = other[100:][::-1]  # The same candidates, other partners for the other queries.
    assert refit_scale(a, b, rows) == pytest.approx(refit_scale(a, other, rows), rel=1e-3)


def test_vectors_that_say_nothing_give_chance_at_every_scale() -> None:
    constant = np.zeros((50, 1))
    scale = refit_scale(constant, constant)
    assert SCALES[0] <= scale <= SCALES[1]
    assert contrastive_entropy(constant, constant, scale) == pytest.approx(np.full(50, np.log(50)))


def test_zero_scale_is_chance() -> None:
    a, b = planted(1.0, 64, seed=3)
    assert contrastive_entropy(a, b, 0.0) == pytest.approx(np.full(64, np.log(64)))
