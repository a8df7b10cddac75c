"""Representations side by side keep the blocks and the dot products of their parts."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks.baselines.concatenated import Concatenated
from benchmarks.baselines.counts import ItemCounts, LogCounts
from benchmarks.baselines.representations import RandomModel
from benchmarks.protocols import has_items, has_vectors, model_of, one_block
from benchmarks.snapshot import Snapshot, snapshot_at
from clue.data.corpus import Corpus
from tests.benchmarks.worlds import corpus_of, parts, taste_events


class Halves:
    """Random vectors that are read as two blocks."""

    name, seed, fingerprint, similarity = "halves", 0, "halves", slice(0, 2)
    blocks: Mapping[str, slice] = {"left": slice(0, 2), "right": slice(2, 5)}  # noqa: RUF012

    def users(self, past: Snapshot) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(len(past), 5))


def world(directory: Path) -> Corpus:
    split = parts(20)
    return corpus_of(directory, taste_events(split, np.random.default_rng(0)), split)


def test_the_blocks_are_the_columns_of_the_parts(tmp_path: Path) -> None:
    corpus = world(tmp_path)
    past = snapshot_at(corpus, np.arange(20))
    counts = LogCounts(corpus), ItemCounts(corpus, np.arange(10), 4)
    halves = Halves()
    both = Concatenated("both", [halves, *counts])
    vectors = both.users(past)
    names = ["halves: left", "halves: right", "log counts", "item counts"]
    assert list(both.blocks) == names
    each = [halves.users(past)[:, :2], halves.users(past)[:, 2:], *(c.users(past) for c in counts)]
    for columns, part in zip(both.blocks.values(), each, strict=True):
        np.testing.assert_allclose(vectors[:, columns], part, rtol=1e-6)
    assert sum(c.stop - c.start for c in both.blocks.values()) == vectors.shape[1]
    assert both.blocks["halves: left"].start == 0


def test_items_of_a_part_without_any_are_zeros(tmp_path: Path) -> None:
    corpus = world(tmp_path)
    past = snapshot_at(corpus, np.arange(20))
    alone, counts = RandomModel(corpus, width=6, seed=0), LogCounts(corpus)
    both = Concatenated("both", [alone, counts])
    products = both.users(past) @ both.items().T
    np.testing.assert_allclose(products, alone.users(past) @ alone.items().T, rtol=1e-5, atol=1e-6)
    assert has_items(alone) and not has_items(counts)
    with pytest.raises(ValueError, match="counts: none of its parts has vectors of items"):
        Concatenated("counts", [counts, counts]).items()


def test_a_row_is_known_for_a_model_by_its_vectors(tmp_path: Path) -> None:
    corpus = world(tmp_path)
    model = RandomModel(corpus, width=6, seed=0)
    assert has_vectors(model) and model_of(model) is model
    assert model.blocks == one_block(6)
    assert model.fingerprint != RandomModel(corpus, width=7, seed=0).fingerprint  # other vectors
