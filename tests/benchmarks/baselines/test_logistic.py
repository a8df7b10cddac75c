"""The logistic probe reads a label that is there, and none that is not."""

import numpy as np
import pytest

from benchmarks.baselines.probes import linear, logistic
from benchmarks.metrics.bootstrap import interval, macro_auroc_of
from benchmarks.metrics.calibration import class_losses


def users(seed: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(1200, 20)), rng.integers(0, classes, 1200)


def scored(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """The test AUROC of a probe on thirds of the users, with its interval."""
    found = linear((x[:400], y[:400]), (x[400:800], y[400:800]), x[800:], "class")
    assert found.values.sum(1) == pytest.approx(np.ones(400))
    told = interval(macro_auroc_of(found.values, y[800:]), np.arange(400), resamples=500)
    return told.low, told.value, told.high


@pytest.mark.parametrize("classes", [2, 5])
def test_random_vectors_say_nothing(classes: int) -> None:
    low, _, high = scored(*users(0, classes))
    assert low < 0.5 < high


@pytest.mark.parametrize("classes", [2, 5])
def test_a_label_leaked_into_one_dimension_is_read(classes: int) -> None:
    x, y = users(1, classes)
    x[:, 7] = (y == 0) * 10 + x[:, 7]
    if classes > 2:
        x[:, 8:13] += 10 * np.eye(5)[y]
    assert scored(x, y)[1] > 0.99


def test_shuffled_labels_are_chance() -> None:
    x, y = users(2, 2)
    x[:, 0] += 3 * y
    shuffled = y.copy()
    shuffled[:800] = np.random.default_rng(3).permutation(y[:800])
    low, _, high = scored(x, shuffled)
    assert low < 0.6 and high > 0.4


def test_the_choice_is_made_on_valid_users() -> None:
    # 30 training users in 20 dimensions, one of which tells: valid users who follow it ask for a
    # weak regularisation; in which order the test users come must not matter.
    x, y = users(4, 2)
    x[:, 0] += 2 * y
    train, valid = (x[:30], y[:30]), (x[400:800], y[400:800])
    one, other = logistic(train, valid, x[800:]), logistic(train, valid, x[800:][::-1])
    assert one.strength == other.strength
    assert one.valid_loss == other.valid_loss < np.log(2)


def test_scale_and_shift_of_the_features_change_nothing() -> None:
    x, y = users(5, 3)
    x[:, 0] += y
    one = linear((x[:400], y[:400]), (x[400:800], y[400:800]), x[800:], "class")
    moved = x * 100 - 7
    two = linear((moved[:400], y[:400]), (moved[400:800], y[400:800]), moved[800:], "class")
    assert one.values == pytest.approx(two.values, abs=1e-6)


def test_probabilities_are_calibrated_and_not_only_ordered() -> None:
    # Everybody is told apart: the fit chosen must also be sure of it.
    x, y = users(6, 3)
    x[:, :3] += 9 * np.eye(3)[y]
    found = linear((x[:400], y[:400]), (x[400:800], y[400:800]), x[800:], "class")
    assert (found.values.argmax(1) == y[800:]).mean() > 0.99
    assert class_losses(found.values, y[800:]).mean() < 0.1


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="one label"):
        linear(
            (np.ones((3, 2)), np.zeros(3, int)),
            (np.ones((1, 2)), np.zeros(1, int)),
            np.ones((1, 2)),
            "class",
        )
