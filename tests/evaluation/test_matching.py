"""Held-out matching: ranks and entropies by hand, chance and oracle, the pairs of a corpus."""

import math

import numpy as np
import pytest

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.evaluation.matching import (
    contrastive_entropy,
    fit_scale,
    matching_pairs,
    pair_ranks,
    summarise,
)
from tests.conftest import TinyRun


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_ranks_by_hand_with_a_tie() -> None:
    a = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    b = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    forward, back = (ranks.expected() for ranks in pair_ranks(a, b))
    assert forward.tolist() == [1.5, 2.5, 3.0]  # the own score ties with one other; loses to one
    assert back.tolist() == [1.5, 3.0, 2.5]


def test_entropy_equals_the_definition() -> None:
    rng = np.random.default_rng(0)
    a, b = unit(rng.normal(size=(30, 5))), unit(rng.normal(size=(30, 5)))
    for user in range(30):
        forward, back = 4.0 * a[user] @ b.T, 4.0 * a @ b[user]
        expected = [-x[user] + math.log(np.exp(x).sum()) for x in (forward, back)]
        assert contrastive_entropy(a, b, 4.0)[user] == pytest.approx(np.mean(expected))


def test_chance_oracle_and_constant_vectors() -> None:
    rng = np.random.default_rng(0)
    a, b = unit(rng.normal(size=(2000, 16))), unit(rng.normal(size=(2000, 16)))
    assert contrastive_entropy(a, b, 1e-9).mean() == pytest.approx(math.log(2000))
    random = summarise(a, b, 1.0)
    assert random.recall_at_10 == pytest.approx(10 / 2000, abs=0.004)
    assert random.median_rank == pytest.approx(0.5, abs=0.03)
    assert (random.negatives, random.gallery) == (1999, 2000)
    oracle = summarise(a, a, 50.0)
    assert (oracle.recall_at_1, oracle.mrr) == (1.0, 1.0)
    constant = summarise(np.ones((100, 1)), np.ones((100, 1)), 1.0)
    assert constant.recall_at_10 == pytest.approx(0.1)  # chance, as any figure of ties
    assert constant.mrr == pytest.approx(np.mean(1 / np.arange(1, 101)))
    assert constant.contrastive_entropy == pytest.approx(math.log(100))


def test_the_refitted_scale_is_the_best_on_a_fine_grid() -> None:
    rng = np.random.default_rng(0)
    a = unit(rng.normal(size=(300, 8)))
    b = unit(a + 0.5 * rng.normal(size=(300, 8)))
    grid = np.exp(np.linspace(math.log(0.5), math.log(200), 200))
    best = min(contrastive_entropy(a, b, scale).mean() for scale in grid)
    found = contrastive_entropy(a, b, fit_scale(a, b)).mean()
    assert found == pytest.approx(best, abs=1e-3)


def test_newest_by_hand() -> None:
    rows = Ragged.slices(np.array([0, 10, 20]), np.array([3, 1, 0])).last(2)
    assert rows.values.tolist() == [1, 2, 10]
    assert rows.offsets.tolist() == [0, 2, 3, 3]


def test_pairs_are_held_out_users_with_both_services(tiny_run: TinyRun) -> None:
    corpus = Corpus.open(tiny_run.corpus)
    users = corpus.users_in("valid")
    pairs = matching_pairs(corpus, users, max_events=5)
    assert [p.name for p in pairs] == ["shop-news", "shop-films", "news-films"]
    checked = 0
    for pair in pairs:
        assert set(pair.users) <= set(users)
        services = [corpus.services.index(s) for s in (pair.service_a, pair.service_b)]
        for row, user in enumerate(pair.users):
            for view, service in zip((pair.a, pair.b), services, strict=True):
                whole = corpus.items_of(service)[user]
                assert view[row].tolist() == whole[-5:].tolist()
                assert len(whole)
                checked += 1
    assert checked > 50
