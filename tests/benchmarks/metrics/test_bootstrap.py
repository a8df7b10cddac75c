"""Intervals cover what they claim, and the statistics equal their textbook forms."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

from benchmarks.metrics.bootstrap import (
    auroc_of,
    average_precision_of,
    bootstrap,
    gauc_of,
    interval,
    macro_auroc_of,
    mean_of,
    median_of,
    r2_of,
    spearman_of,
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
    truth = scores + generator.normal(size=40)
    weights = generator.integers(0, 4, 40)
    again = np.repeat(np.arange(40), weights)
    for statistic, expected in (
        (mean_of(scores), scores[again].mean()),
        (median_of(scores), np.median(scores[again])),
        (auroc_of(scores, positive), roc_auc_score(positive[again], scores[again])),
        (
            average_precision_of(scores, positive),
            average_precision_score(positive[again], scores[again]),
        ),
        (r2_of(scores, truth), r2_score(truth[again], scores[again])),
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


def test_average_precision_of_no_positive_is_undefined() -> None:
    assert np.isnan(average_precision_of(np.array([0.1, 0.2]), np.array([False, False]))(ones(2)))


def test_gauc_of_one_user_is_her_auroc() -> None:
    generator = np.random.default_rng(6)
    scores, positive = generator.integers(0, 6, 30).astype(float), generator.random(30) < 0.5
    found = gauc_of(scores, positive, np.zeros(30, int))(ones(30))[0]
    assert found == pytest.approx(roc_auc_score(positive, scores))


def test_gauc_equals_a_loop_over_users_and_their_weights() -> None:
    generator = np.random.default_rng(7)
    users = generator.integers(0, 25, 300)
    scores, positive = generator.integers(0, 6, 300).astype(float), generator.random(300) < 0.2
    times = generator.integers(0, 3, 25)  # How often a resample has each user.
    total = count = skipped = 0.0
    for user in range(25):
        mine = users == user
        if positive[mine].all() or not positive[mine].any():
            skipped += 1
            continue
        weight = times[user] * mine.sum()
        total += weight * float(roc_auc_score(positive[mine], scores[mine]))
        count += weight
    assert 0 < skipped < 25  # Users of one class are there, and are left out.
    found = gauc_of(scores, positive, users)(times[users][None].astype(float))[0]
    assert found == pytest.approx(total / count)


def test_spearman_equals_scipy_with_ties() -> None:
    generator = np.random.default_rng(8)
    truth = generator.integers(0, 9, 80).astype(float)
    predicted = np.round(truth + 3 * generator.normal(size=80))
    found = spearman_of(predicted, truth)(ones(80))[0]
    assert found == pytest.approx(spearmanr(predicted, truth)[0])
    assert np.isnan(spearman_of(np.ones(80), truth)(ones(80))[0])


def test_r2_of_the_mean_is_zero_and_of_a_constant_truth_undefined() -> None:
    truth = np.array([1.0, 2.0, 6.0])
    assert r2_of(np.full(3, 3.0), truth)(ones(3))[0] == pytest.approx(0)
    assert np.isnan(r2_of(truth, np.ones(3))(ones(3))[0])


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
