"""The network probe reads what is there, a curve too, and is a function of its seed alone."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.baselines.network_probe import mlp
from benchmarks.baselines.probes import predict

WIDTH = 32


def users(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 1,200 users of 8 features: their class is whether the first two have one sign."""
    x = np.random.default_rng(seed).normal(size=(1200, 8))
    return x, (x[:, 0] * x[:, 1] > 0).astype(int)


def test_what_bends_is_read_by_the_network_and_not_by_a_line_and_shuffled_it_is_chance() -> None:
    x, y = users(0)
    train = x[:800], y[:800]
    curved = mlp(train, x[800:], "class", width=WIDTH, epochs=20)
    straight = predict("linear", "class", train, train, x[800:]).values
    shuffled = np.random.default_rng(1).permutation(y)
    chance = mlp((x[:800], shuffled[:800]), x[800:], "class", width=WIDTH, epochs=20)
    assert roc_auc_score(y[800:], curved[:, 1]) > 0.9
    assert abs(roc_auc_score(y[800:], straight[:, 1]) - 0.5) < 0.1
    assert abs(roc_auc_score(shuffled[800:], chance[:, 1]) - 0.5) < 0.1
    assert curved.sum(1) == pytest.approx(np.ones(400), abs=1e-5)


def test_labels_and_numbers_are_on_their_own_scale() -> None:
    x, y = users(2)
    both = np.stack([x[:, 0] > 0, y > 0], 1).astype(int)
    labels = mlp((x[:800], both[:800]), x[800:], "labels", width=WIDTH, epochs=20)
    assert labels.shape == (400, 2) and roc_auc_score(both[800:, 0], labels[:, 0]) > 0.95
    number = 1000 + 50 * x[:, 0]
    found = mlp((x[:800], number[:800]), x[800:], "number", width=WIDTH, epochs=20)
    assert found.shape == (400,) and np.corrcoef(found, number[800:])[0, 1] > 0.95
    assert np.abs(found - number[800:]).mean() < 15


def test_the_probe_is_as_wide_as_its_name_says_and_256_without() -> None:
    x, y = users(3)
    train = x[:400], y[:400]
    named, plain, narrow = (
        predict(probe, "class", train, train, x[800:]).values
        for probe in ("mlp-256", "mlp", "mlp-32")
    )
    assert np.array_equal(named, plain) and not np.array_equal(narrow, plain)
    assert np.array_equal(narrow, mlp(train, x[800:], "class", width=32))


def test_the_network_is_a_function_of_its_seed_and_leaves_the_others_alone() -> None:
    x, y = users(8)
    state = torch.random.get_rng_state()
    made: list[Any] = [
        mlp((x[:400], y[:400]), x[800:], "class", width=WIDTH, seed=seed) for seed in (0, 0, 1)
    ]
    assert np.array_equal(made[0], made[1]) and not np.array_equal(made[0], made[2])
    assert torch.equal(state, torch.random.get_rng_state())
