"""Draws follow the shares and the weights that they are drawn by."""

import numpy as np

from clue.synthetic.draws import draw_items, draw_rows


def test_columns_are_drawn_by_the_shares_of_their_row() -> None:
    shares = np.array([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])
    rows = np.repeat([2, 0, 1], 30_000)
    drawn = draw_rows(np.random.default_rng(0), 7 * shares, rows)  # they need not sum to one
    for row in range(3):
        counts = np.bincount(drawn[rows == row], minlength=3) / 30_000
        assert np.abs(counts - shares[row]).max() < 0.012  # 4 standard errors
        assert not counts[shares[row] == 0].any()


def test_items_are_drawn_by_weight_within_their_topic_and_as_noise_within_all() -> None:
    weights, item_topic = np.array([1.0, 3.0, 2.0, 2.0, 4.0]), np.array([0, 0, 1, 1, 1])
    topic = np.repeat([0, 1], 40_000)
    by_topic = np.array([[0.25, 0.75, 0, 0, 0], [0, 0, 0.25, 0.25, 0.5]])
    for noise in (0.0, 0.4):
        drawn = draw_items(np.random.default_rng(1), weights, item_topic, topic, noise)
        expected = (1 - noise) * by_topic + noise * weights / 12
        for number in range(2):
            counts = np.bincount(drawn[topic == number], minlength=5) / 40_000
            assert np.abs(counts - expected[number]).max() < 0.01
