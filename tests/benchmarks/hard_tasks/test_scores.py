"""Means over what was asked, coverage, ratios, and cells that come back from the disk."""

# pyright: standard

from pathlib import Path

import numpy as np
import pytest

from benchmarks.hard_tasks.scores import Cell, Scores, measure, read_cell, write_cell
from benchmarks.metrics.bootstrap import coverage_of

USERS = np.arange(4)


def scores() -> Scores:
    columns = {
        ("a", "hit"): np.array([1.0, 0.0, np.nan, np.nan]),
        ("b", "hit"): np.array([np.nan, np.nan, 0.5, 0.0]),
        ("all", "coverage"): np.array([[0, 1], [1, 2], [0, 1], [0, 2]]),
        ("whole", "gain"): np.array([1.0, 1.0, 1.0, 1.0]),
        ("half", "gain"): np.array([1.0, 0.0, 1.0, 0.0]),
    }
    ratios = {("half", "retained"): (("half", "gain"), ("whole", "gain"))}
    return Scores(USERS, columns, 6, ratios)


def test_each_measure_is_over_what_it_asks() -> None:
    cell = measure(scores(), resamples=2000, seed=0)
    found = cell.measures()
    values = {key: found[key].value for key in found}
    assert values == {
        ("a", "hit"): 0.5,
        ("b", "hit"): 0.25,
        ("all", "coverage"): 0.5,
        ("whole", "gain"): 1.0,
        ("half", "gain"): 0.5,
        ("half", "retained"): 0.5,
    }
    assert all(x.low <= x.value <= x.high for x in found.values())
    assert cell.drawn[2].mean() == pytest.approx(0.5)  # moved to the value


def test_a_resample_covers_what_its_users_are_shown() -> None:
    covered = coverage_of(np.array([[0, 1], [1, 2], [4, 5]]), 10)
    weights = np.array([[1.0, 1, 1], [3, 0, 0], [0, 2, 1]])
    assert covered(weights).tolist() == [0.5, 0.2, 0.4]


def test_differences_are_paired() -> None:
    cell = measure(scores(), resamples=200, seed=0)
    for gap in cell.minus(cell).values():
        assert (gap.value, gap.low, gap.high) == (0, 0, 0)
    other = Cell(cell.keys, USERS + 1, cell.values, cell.drawn)
    with pytest.raises(ValueError, match="answered different questions"):
        cell.minus(other)


def test_a_cell_comes_back_for_the_same_thing_alone(tmp_path: Path) -> None:
    cell, file = measure(scores(), resamples=20, seed=0), tmp_path / "cells" / "one.json"
    of = {"model": "m", "fingerprints": {"m": "f"}, "settings": {"lengths": [1, 2]}}
    assert read_cell(file, of) is None
    write_cell(cell, file, of)
    back = read_cell(file, of)
    assert back is not None and back.keys == cell.keys
    assert np.array_equal(back.drawn, cell.drawn, equal_nan=True)
    assert np.array_equal(back.values, cell.values)
    assert read_cell(file, {**of, "settings": {"lengths": [1]}}) is None
    assert read_cell(file, {**of, "fingerprints": {"m": "g"}}) is None
