"""Counts and rates before a moment by hand, against a loop, and blind to what comes at it."""

# pyright: standard

import numpy as np
import pytest

from benchmarks.baselines.rates import SMOOTHING, Rates, Timeline


def test_counts_and_sums_before_a_moment_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    keys, times, values = rng.integers(0, 7, 200), rng.integers(0, 30, 200), rng.random(200)
    asked, start = rng.integers(0, 9, 300), rng.integers(-2, 33, 300)
    end = start + rng.integers(0, 5, 300)
    timeline, compared = Timeline(keys, times, values), 0
    before, between = timeline.before(asked, end), timeline.between(asked, start, end)
    for row, key in enumerate(asked):
        early = (keys == key) & (times < end[row])
        near = early & (times >= start[row])
        assert [before[0][row], between[0][row]] == [early.sum(), near.sum()]
        assert before[1][row] == pytest.approx(values[early].sum())
        assert between[1][row] == pytest.approx(values[near].sum())
        compared += 1
    assert compared == 300


def test_a_rate_by_hand_and_what_comes_at_the_moment_is_no_part_of_it() -> None:
    keys, times = np.array([0, 0, 1, 0]), np.array([1.0, 2.0, 2.0, 3.0])
    for last in (0, 1):  # the row at the moment, whatever it says
        rates = Rates(keys, times, np.array([1, 1, 0, last]))
        found = 1 / (1 + np.exp(-rates.log_odds(np.array([0, 1, 5]), 3.0, 2.0)))
        mean = 2.5 / 4
        assert found == pytest.approx([(2 + 2 * mean) / 4, 2 * mean / 3, mean])
    later = Rates(keys, times, np.array([1, 1, 0, 1])).log_odds(np.array([0]), 3.5, 2.0)
    other = Rates(keys, times, np.array([1, 1, 0, 0])).log_odds(np.array([0]), 3.5, 2.0)
    assert later[0] > other[0]


def test_smoothing_is_what_the_valid_labels_call_for() -> None:
    keys, times = np.array([0, 0, 1, 1]), np.zeros(4)
    rates = Rates(keys, times, np.array([1, 1, 0, 0]))
    assert rates.tuned(np.array([0, 1]), 1.0, np.array([1, 0])) == SMOOTHING[0]
    assert rates.tuned(np.array([0, 1]), 1.0, np.array([0, 1])) == SMOOTHING[-1]
