"""Features of a user and an item by hand, with an item space narrower than the user's vector."""

import numpy as np

from benchmarks.baselines.interactions import interactions


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
