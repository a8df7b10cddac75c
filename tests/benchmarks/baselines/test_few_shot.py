"""Shots are k users of each class, and each draw is the logistic regression of its own."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks.baselines.few_shot import DRAWS, few_shot, shots


def test_shots_are_k_users_of_each_class_and_no_user_twice() -> None:
    labels = np.random.default_rng(5).integers(0, 3, 300)
    labels[:5] = 3  # A class of five.
    rows = shots(labels, 8, np.random.default_rng(0))
    assert np.bincount(labels[rows]).tolist() == [8, 8, 8, 5]
    assert len(np.unique(rows)) == len(rows)


def test_few_shots_equal_a_logistic_regression_on_each_draw() -> None:
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(1200, 12)), rng.integers(0, 2, 1200)
    x[:, 0] += 2 * y
    found = few_shot((x[:800], y[:800]), x[800:], 16)
    z = (x - x[:800].mean(0)) / x[:800].std(0)
    areas: list[float] = []
    for draw in range(DRAWS):
        rows = shots(y[:800], 16, np.random.default_rng([0, draw]))
        fit = LogisticRegression(C=1.0, max_iter=2000).fit(z[rows], y[rows])
        assert found[draw] == pytest.approx(fit.predict_proba(z[800:]), abs=1e-6)
        areas.append(float(roc_auc_score(y[800:], found[draw][:, 1])))
    assert len(set(areas)) == DRAWS == 10  # Ten draws, and no two alike.
    assert 0.6 < np.mean(areas) < 0.95
    shuffled = np.random.default_rng(7).permutation(y)
    chance = few_shot((x[:800], shuffled[:800]), x[800:], 16)
    drawn = [float(roc_auc_score(shuffled[800:], each[:, 1])) for each in chance]
    assert abs(np.mean(drawn) - 0.5) < 0.05
