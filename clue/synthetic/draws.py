"""Draws that the laws of a synthetic world share: columns by rows of shares, items of topics."""

import numpy as np


def draw_rows(rng: np.random.Generator, shares: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return for each of `rows` a column of `shares`, drawn by the shares of that row."""
    ends = np.cumsum(shares, axis=1)
    ends /= ends[:, -1:]
    # Row r occupies (r, r + 1], so that one binary search over the flat array serves all rows.
    flat = (ends + np.arange(len(ends))[:, None]).ravel()
    drawn = np.searchsorted(flat, rows + rng.random(len(rows)), side="right")
    return np.minimum(drawn - rows * shares.shape[1], shares.shape[1] - 1)


def draw_items(
    rng: np.random.Generator,
    weights: np.ndarray,
    item_topic: np.ndarray,
    topic: np.ndarray,
    noise: float,
) -> np.ndarray:
    """Return an item of one service for each event, by the weights (I,) of those of its topic.

    `item_topic` (I,) ascends, `topic` (E,) is the events'; a share `noise` of them follows the
    weights alone.
    """
    ends = np.cumsum(weights)
    borders = np.concatenate([[0.0], ends])[
        np.searchsorted(item_topic, np.arange(item_topic[-1] + 2))
    ]
    low, high = borders[topic], borders[topic + 1]
    is_noise = rng.random(len(topic)) < noise
    low, high = np.where(is_noise, 0.0, low), np.where(is_noise, ends[-1], high)
    drawn = np.searchsorted(ends, low + rng.random(len(topic)) * (high - low), side="right")
    return np.minimum(drawn, len(item_topic) - 1)
