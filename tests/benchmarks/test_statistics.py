"""Intervals cover what they claim, and the statistics equal their textbook forms."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.statistics import (
    auroc_of,
    bootstrap,
    interval,
    macro_auroc_of,
    mean_of,
    median_of,
    summary,
)


def ones(count: int) -> np.ndarray:
    return np.ones((1, count))


@pytest.mark.parametrize("count", [1, 2, 7, 10])
def test_median_equals_numpy(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    assert median_of(values)(ones(count))[0] == pytest.approx(np.median(values))


def test_weights_mean_the_same_as_repeated_queries() -> None:
    generator = np.random.default_rng(1)
    scores = generator.integers(0, 5, 40).astype(float)
    positive = generator.random(40) < 0.4
    weights = generator.integers(0, 4, 40)
    again = np.repeat(np.arange(40), weights)
    for statistic, expected in (
        (mean_of(scores), scores[again].mean()),
        (median_of(scores), np.median(scores[again])),
        (auroc_of(scores, positive), roc_auc_score(positive[again], scores[again])),
    ):
        assert statistic(weights[None].astype(float))[0] == pytest.approx(expected)


def test_auroc_equals_sklearn_with_ties_and_classes() -> None:
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 4, 200)
    scores = np.round(generator.random((200, 4)), 1)
    scores /= scores.sum(1, keepdims=True)
    expected = roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    assert macro_auroc_of(scores, labels)(ones(200))[0] == pytest.approx(expected)


def test_auroc_of_one_class_is_undefined_and_left_out_of_the_mean() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    assert np.isnan(auroc_of(scores[:, 0], np.array([True, True]))(ones(2))[0])
    # Class 2 occurs nowhere: the mean is over classes 0 and 1, which are ranked perfectly.
    assert macro_auroc_of(scores, np.array([0, 1]))(ones(2))[0] == 1


def test_intervals_of_95_percent_cover_the_truth_in_90_to_98_percent_of_sets() -> None:
    covered = 0
    sets = 300
    for seed in range(sets):
        generator = np.random.default_rng(seed)
        found = interval(mean_of(generator.exponential(size=120)), np.arange(120), resamples=400)
        covered += found.low <= 1.0 <= found.high
    assert 0.90 <= covered / sets <= 0.98


def test_users_are_drawn_and_not_their_queries() -> None:
    # 50 users of 20 equal queries each: the mean varies as that of 50 values, not of 1,000.
    values = np.random.default_rng(3).normal(size=50)
    users = np.repeat(np.arange(50), 20)
    drawn_users = interval(mean_of(np.repeat(values, 20)), users, resamples=4000)
    width = drawn_users.high - drawn_users.low
    assert width == pytest.approx(2 * 1.96 * values.std() / np.sqrt(50), rel=0.1)


def test_differences_of_two_rows_are_paired() -> None:
    values = np.random.default_rng(4).normal(size=100)
    two = bootstrap([mean_of(values), mean_of(values - 0.1)], np.arange(100), resamples=200, seed=0)
    gap = summary((two[0][0] - two[0][1])[None], (two[1][0] - two[1][1])[None])[0]
    assert (gap.low, gap.value, gap.high) == pytest.approx((0.1, 0.1, 0.1))


def test_the_same_seed_draws_the_same_interval() -> None:
    values = np.random.default_rng(5).normal(size=30)
    one = interval(mean_of(values), np.arange(30), resamples=50, seed=1)
    assert one == interval(mean_of(values), np.arange(30), resamples=50, seed=1)
    assert one != interval(mean_of(values), np.arange(30), resamples=50, seed=2)


def test_no_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="no queries"):
        interval(mean_of(np.empty(0)), np.empty(0))
