# pyright: standard
"""The figures of geometry are those of vectors whose geometry is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.baselines.tfidf import unit
from benchmarks.protocols import WHOLE
from benchmarks.snapshot import Snapshot
from benchmarks.suite import geometry
from benchmarks.suite.geometry import alignment, effective_rank, geometry_of, hubness, uniformity
from tests.benchmarks.worlds import corpus_of, parts, taste_events


def test_identical_vectors_are_aligned_uniform_in_nothing_and_of_rank_one() -> None:
    same = np.tile(unit(np.ones((1, 5))), (7, 1))
    assert alignment(same, same) == 0
    assert uniformity(same) == pytest.approx(0)
    assert effective_rank(same) == pytest.approx(1)


def test_orthonormal_vectors_have_their_number_as_rank() -> None:
    for count in (2, 5, 8):
        assert effective_rank(np.eye(8)[:count]) == pytest.approx(count)
    assert uniformity(np.eye(8)) == pytest.approx(-4)  # every distance squared is 2
    assert alignment(np.eye(8), -np.eye(8)) == pytest.approx(4)


def test_effective_rank_by_hand() -> None:
    # Singular values 3 and 1: shares 3/4 and 1/4.
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert effective_rank(np.diag([3.0, 1.0])) == pytest.approx(expected)


def test_a_planted_hub_raises_hubness() -> None:
    away = np.r_[6.0, np.zeros(99)]
    vectors = unit(np.random.default_rng(0).normal(size=(300, 100)) + away)
    hub = vectors.copy()
    hub[:3] = unit(away[None])  # near to everybody
    assert hubness(hub) > hubness(vectors) + 3


def test_hubness_of_a_ring_is_nothing() -> None:
    angles = np.arange(24) * 2 * np.pi / 24
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert hubness(ring, k=2) == pytest.approx(0, abs=1e-9)


def test_users_without_a_vector_are_left_out() -> None:
    rows = np.vstack([np.random.default_rng(0).normal(size=(30, 6)), np.zeros((3, 6))])
    found = geometry_of(rows, np.zeros((0, 6)), np.zeros((0, 6)))
    assert found.users == 30 and found.width == 6 and found.pairs == 0
    assert np.isnan(found.alignment)


class Taste:
    """The sum of one-hot vectors of the items, moved by a constant so that it is never zero."""

    name, seed = "taste", 0
    blocks, similarity = WHOLE, slice(None)

    def __init__(self, num_items: int, fingerprint: str = "a") -> None:
        self.fingerprint, self.num_items, self.asked = fingerprint, num_items, 0

    def users(self, past: Snapshot) -> np.ndarray:
        self.asked += 1
        total = np.full((len(past), self.num_items), 0.1)
        for items, _ in past.parts:
            np.add.at(total, (np.repeat(np.arange(len(past)), items.lengths), items.values), 1)
        return total


def test_the_suite_writes_a_model_once(tmp_path: Path) -> None:
    split = parts(60)
    corpus = corpus_of(tmp_path / "world", taste_events(split, np.random.default_rng(0)), split)
    model = Taste(corpus.num_items)
    geometry.write(tmp_path, [model], corpus)
    asked = model.asked
    found = json.loads((tmp_path / "geometry.json").read_text())["taste.0"]
    assert found["users"] == 30 and found["pairs"] == 30 and found["width"] == corpus.num_items
    assert 0 < found["alignment"] < 4 and asked > 0
    drawn = json.loads((tmp_path / "map.json").read_text())
    assert len(drawn["points"]) == len(drawn["groups"]) == 30 and drawn["model"] == "taste 0"
    geometry.write(tmp_path, [model], corpus)
    assert model.asked == asked
    other = Taste(corpus.num_items, "b")
    geometry.write(tmp_path, [other], corpus)
    assert other.asked == asked


def test_few_users_have_no_hub() -> None:
    rows = np.random.default_rng(0).normal(size=(9, 4))
    assert hubness(rows / np.linalg.norm(rows, axis=1, keepdims=True)) == 0.0
