"""Figures place things where they are, escape what they show, and need no colour."""

import re

import numpy as np
import pytest

from benchmarks.figures import BOTTOM, HEIGHT, TOP, WIDTH, Line, line_chart, scatter, spread, ticks


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.031, 0.059), (-3, 17), (6.2, 7.55), (5, 5), (0, 0), (0, 123456)]
)
def test_ticks_are_few_and_span_the_values(low: float, high: float) -> None:
    found = ticks(low, high, 5)
    assert 2 <= len(found) <= 9
    assert found[0] <= low and found[-1] >= high or low == high
    assert found == sorted(set(found))


def test_lines_end_where_their_values_say() -> None:
    chart = line_chart([Line("up", [0, 10], [0.0, 1.0])], x_label="step", level=("chance", 0.5))
    points = re.search(r'points="([^"]*)"', chart)
    assert points is not None
    first, last = (tuple(map(float, p.split(","))) for p in points[1].split())
    assert first[1] == HEIGHT - BOTTOM and last[1] == TOP and first[0] < last[0]
    level = re.search(r'class="level" d="M\d+ ([\d.]+)H', chart)
    assert level is not None and float(level[1]) == (TOP + HEIGHT - BOTTOM) / 2
    assert ">up</text>" in chart and ">chance</text>" in chart


def test_a_line_of_one_point_is_drawn() -> None:
    chart = line_chart([Line("one", [5], [0.3])], x_label="step", level=None)
    assert "nan" not in chart and chart.count("<circle") == 1


def test_long_names_end_inside_the_figure() -> None:
    chart = line_chart([Line("x" * 60, [0, 1], [0, 1])], x_label="step", level=None)
    place = re.search(r'<text x="([\d.]+)"[^>]*>(x+…)</text>', chart)
    assert place is not None
    assert float(place[1]) + 7 * len(place[2]) <= WIDTH


def test_groups_differ_in_shape_and_carry_their_name() -> None:
    points = np.random.default_rng(0).normal(size=(40, 2))
    groups = [number % 4 for number in range(40)]
    chart = scatter(points, groups, ["north", "east", "south", "<west>"])
    marks = re.findall(r'<g transform="[^"]*" class="p k(\d)">(<[^>]*>)</g>', chart)
    assert len(marks) == 40
    assert len({shape for _, shape in marks}) == len(set(marks)) == 4
    for name in ("north", "east", "south", "&lt;west&gt;"):
        assert f">{name}</text>" in chart
    assert "<west>" not in chart


def test_equal_points_are_drawn() -> None:
    assert "nan" not in scatter(np.ones((3, 2)), [0, 0, 0], ["all"])


def test_labels_keep_their_distance() -> None:
    placed = spread([(10.0, "b", ""), (9.0, "a", ""), (50.0, "c", "")], gap=15)
    assert [(height, text) for height, text, _ in placed] == [(9, "a"), (24, "b"), (50, "c")]
