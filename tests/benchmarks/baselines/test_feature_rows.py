"""Tuned trees find an exclusive or, which no line finds, and say of noise what its mean says."""

# pyright: standard

import numpy as np
import pytest

from benchmarks.baselines.feature_rows import LEAVES, tuned_trees
from benchmarks.metrics.bootstrap import auroc_of


def test_trees_find_an_exclusive_or_and_stop_on_noise() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 2))
    planted = (x[:, 0] > 0) ^ (x[:, 1] > 0)
    parts, found = (slice(0, 1000), slice(1000, 1250), slice(1250, 1500)), list[float]()
    for labels in (planted.astype(int), rng.permutation(planted).astype(int)):
        each = [(x[part], labels[part]) for part in parts]
        made = tuned_trees(each[0], each[1], each[2][0])
        assert made.values.sum(1) == pytest.approx(np.ones(250))
        assert made.chosen["leaves"] in LEAVES and made.chosen["trees"] >= 1
        area = auroc_of(made.values[:, 1], each[2][1] > 0)
        found.append(float(area(np.ones((1, 250)))[0]))
    assert found[0] > 0.97 and 0.38 < found[1] < 0.62
