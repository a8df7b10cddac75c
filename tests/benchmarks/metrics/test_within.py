"""Measures within an impression by hand, against scikit-learn, and chance for equal scores."""

# pyright: standard

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from benchmarks.metrics.within import within


def test_two_impressions_by_hand() -> None:
    # Clicked at ranks 2 and 4 of five; clicked at rank 1 of two.
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.1, 0.3])
    labels = np.array([0, 1, 0, 1, 0, 0, 1])
    found = within(scores, labels, np.array([0, 5, 7]))
    assert found["auc"] == pytest.approx([3 / 6, 1])
    assert found["mrr"] == pytest.approx([(1 / 2 + 1 / 4) / 2, 1])
    ndcg = (1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3))
    assert found["ndcg_5"] == pytest.approx([ndcg, 1])
    assert found["ndcg_10"] == pytest.approx([ndcg, 1])


def test_ties_count_by_their_expectation() -> None:
    labels = np.array([1, 0, 0, 0, 0, 0])
    found = within(np.ones(6), labels, np.array([0, 6]))
    assert found["auc"] == pytest.approx([0.5])
    assert found["mrr"] == pytest.approx([np.mean(1 / np.arange(1, 7))])
    assert found["ndcg_5"] == pytest.approx([np.sum(1 / np.log2(np.arange(2, 7))) / 6])


def test_random_impressions_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    count = rng.integers(8, 30, 40)
    offsets = np.r_[0, np.cumsum(count)]
    labels = np.concatenate([rng.permutation(n) < rng.integers(1, 7) for n in count]).astype(int)
    scores, compared = rng.random(len(labels)), 0
    found = within(scores, labels, offsets)
    for row in range(40):
        s, y = (each[offsets[row] : offsets[row + 1]] for each in (scores, labels))
        assert found["auc"][row] == pytest.approx(roc_auc_score(y, s))
        for k in (5, 10):
            assert found[f"ndcg_{k}"][row] == pytest.approx(ndcg_score([y], [s], k=k))
        compared += 1
    assert compared == 40


def test_an_impression_of_one_label_is_refused() -> None:
    with pytest.raises(ValueError, match="no clicked item, or no other"):
        within(np.ones(3), np.array([1, 0, 0]), np.array([0, 2, 3]))
