"""Calibrated probabilities have no error, shifted ones have theirs; the base rate has NE 1."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from benchmarks.metrics.calibration import BINS, class_losses, ece_of, log_losses, ne_of


def simulated(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    probabilities = generator.random(count)
    return probabilities, (generator.random(count) < probabilities).astype(float)


def error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(ece_of(probabilities, labels)(np.ones((1, len(labels))))[0])


def test_ece_equals_a_loop_over_bins() -> None:
    probabilities, labels = simulated(30 * BINS)
    weights = np.random.default_rng(1).integers(0, 3, len(labels))
    total = 0.0
    bins = np.array_split(np.argsort(probabilities), BINS)
    for rows in bins:
        mine = np.repeat(rows, weights[rows])
        total += len(mine) * abs(probabilities[mine].mean() - labels[mine].mean())
    assert {len(rows) for rows in bins} == {30}
    found = ece_of(probabilities, labels)(weights[None].astype(float))[0]
    assert found == pytest.approx(total / weights.sum())


def test_ece_of_calibrated_predictions_goes_to_zero_as_one_over_root_n() -> None:
    few, many = (np.mean([error(*simulated(n, s)) for s in range(10)]) for n in (1_000, 100_000))
    assert many < 0.006
    assert few / many == pytest.approx(10, rel=0.3)


def test_ece_of_shifted_predictions_is_the_shift() -> None:
    probabilities, labels = simulated(100_000)
    assert error(probabilities * 0.5 + 0.5, labels) == pytest.approx(0.25, abs=0.01)
    assert error(np.clip(probabilities + 0.1, 0, 1), labels) > 0.09


def test_equal_probabilities_are_one_bin() -> None:
    labels = np.array([1.0] * 30 + [0.0] * 70)
    assert error(np.full(100, 0.3), labels) == pytest.approx(0)
    assert error(np.full(100, 0.5), labels) == pytest.approx(0.2)


def test_ne_of_the_base_rate_is_one_and_of_an_oracle_zero() -> None:
    labels = np.array([1.0, 0.0, 0.0, 0.0])
    ones = np.ones((1, 4))
    assert ne_of(log_losses(np.full(4, 0.25), labels), labels)(ones)[0] == pytest.approx(1)
    assert ne_of(log_losses(np.full(4, 0.5), labels), labels)(ones)[0] > 1.2
    assert ne_of(log_losses(labels, labels), labels)(ones)[0] < 1e-5
    assert np.isnan(ne_of(log_losses(labels, labels), np.ones(4))(ones)[0])


def test_log_losses_equal_scikit_learn_and_stay_finite() -> None:
    probabilities, labels = simulated(200)
    found = log_losses(probabilities, labels)
    assert found.mean() == pytest.approx(log_loss(labels, probabilities))
    assert np.isfinite(log_losses(np.array([0.0, 1.0]), np.array([1, 0]))).all()


def test_class_losses_equal_scikit_learn_and_stay_finite() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4), 200), rng.integers(0, 4, 200)
    found = class_losses(probabilities, labels)
    assert found.shape == (200,) and found.mean() == pytest.approx(log_loss(labels, probabilities))
    assert class_losses(np.array([[0.0, 1.0]]), np.array([0])) == pytest.approx(-np.log(1e-12))
