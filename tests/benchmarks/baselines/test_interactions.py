"""Features of a user and an item by hand, with an item space narrower than the user's vector."""

import numpy as np
import pytest

from benchmarks.baselines.interactions import interactions, pair_features, similarities
from tests.benchmarks.tasks.given import Given, GivenUsers


def test_columns_that_no_item_has_are_left_out_of_items_and_products() -> None:
    users = np.array([[1.0, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    items = np.array([[0.0, 0, 0, 1, 2], [0, 0, 0, 3, 4], [0, 5, 0, 0, 0]])
    blocks = {"a": slice(0, 1), "b": slice(1, 3), "c": slice(3, 5)}
    x, made = interactions(users, items, np.array([1, 2]), blocks)
    assert x.tolist() == [
        [1, 2, 3, 4, 5, 0, 3, 4, 0, 12, 20],
        [6, 7, 8, 9, 10, 5, 0, 0, 35, 0, 0],
    ]
    assert made == {
        **blocks,
        "item": slice(5, 8),
        "b * item": slice(8, 9),
        "c * item": slice(9, 11),
    }


def test_how_near_a_pair_is_stands_once_for_each_block_that_items_have() -> None:
    users = np.array([[9.0, 3, 4, 1, 0], [9, 0, 0, 2, 2]])
    items = np.array([[0.0, 6, 8, 0, 5], [0, 3, 4, 0, 0]])
    blocks = {"none": slice(0, 1), "one": slice(1, 3), "two": slice(3, 5)}
    near = similarities(users, items, np.array([0, 0]), blocks)
    assert near == pytest.approx(np.array([[50, 1, 0, 0], [0, 0, 10, 0.5**0.5]]))


def test_without_the_user_remain_the_item_the_product_and_how_near_they_are() -> None:
    rng = np.random.default_rng(0)
    model = Given(rng.normal(size=(4, 3)), rng.normal(size=(5, 3)))
    rows = np.array([4, 0, 1, 1])
    whole, blocks = pair_features(model, model.vectors, rows)
    some, named = pair_features(model, model.vectors, rows, with_users=False)
    assert np.array_equal(some, whole[:, 3:]) and whole.shape == (4, 11)
    assert named == {"item": slice(0, 3), "vector * item": slice(3, 6), "similarity": slice(6, 8)}
    starts = {"vector": 0, "item": 3, "vector * item": 6, "similarity": 9}
    assert {name: columns.start for name, columns in blocks.items()} == starts
    alone, one = pair_features(GivenUsers(model.vectors), model.vectors, rows)
    assert np.array_equal(alone, model.vectors.astype(np.float32))
    assert one == {"vector": slice(0, 3)}


def test_several_blocks_without_the_user_have_the_item_in_each() -> None:
    rng = np.random.default_rng(1)
    items = np.c_[np.zeros((5, 2)), rng.normal(size=(5, 3)), rng.normal(size=(5, 1))]
    model = Given(rng.normal(size=(4, 6)), items)
    model.blocks = {"none": slice(0, 2), "one": slice(2, 5), "two": slice(5, 6)}
    rows = np.array([4, 0, 1, 1])
    x, blocks = pair_features(model, model.vectors, rows, with_users=False)
    names = {"item: one": 0, "item: two": 3, "one * item": 4, "two * item": 7, "similarity": 8}
    assert {name: columns.start for name, columns in blocks.items()} == names
    assert x[:, :4] == pytest.approx(items[rows, 2:], rel=1e-6) and x.shape == (4, 12)
