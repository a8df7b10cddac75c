"""The scale of gradient noise of planted gradients is that of their making."""

import numpy as np
import pytest

from benchmarks.law.noise_scale import BATCHES, scale


def test_a_planted_scale_comes_back() -> None:
    draw = np.random.default_rng(0)
    width, batch, true = 20_000, 16, 200.0
    mean = np.full(width, 1 / width**0.5)  # of norm 1, so that the scale is the trace of S
    noise = draw.normal(0, (true / batch / width) ** 0.5, (BATCHES, width))
    gradients = mean + noise
    square = float((gradients**2).sum(1).mean())
    found = scale(square, float((gradients.mean(0) ** 2).sum()), batch)
    assert found == pytest.approx(true, rel=0.1)


def test_a_gradient_lost_in_its_noise_has_none() -> None:
    assert scale(square=BATCHES * 1.0, of_mean=0.9, batch=16) is None
