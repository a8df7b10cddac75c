"""Figures place things where they are, keep names as text, and are the same bytes each time."""

import html.parser
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from benchmarks.metrics.bootstrap import Interval
from benchmarks.report.charts import (
    COLOURS,
    GLYPHS,
    INK,
    MARKS,
    NAME,
    SOFT,
    Line,
    Panel,
    inline,
    line_panels,
    plain,
    save,
    scatter,
    spread,
    tick_values,
)

EVIL = "<script>alert('x')</script>&\"$x$"


def contrast(one: str, other: str) -> float:
    """Return the ratio of WCAG 2.1 of two colours."""

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((light(one), light(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def ladder(at: float) -> dict[str, Interval]:
    return {f"G{n}": Interval(at * n, at * n - 0.1, at * n + 0.2) for n in (1, 2, 3)}


def lines() -> Figure:
    names = (EVIL, "_hidden", "漢字", "x" * 60)
    drawn = [Line.of(name, ladder(1 + n)) for n, name in enumerate(names)]
    return line_panels([Panel(drawn, EVIL, EVIL, EVIL, level=(f"level {EVIL}", 0.5))])


def users() -> Figure:
    points = np.random.default_rng(0).normal(size=(40, 2))
    return scatter(points, [n % 4 for n in range(40)], [EVIL, "_b", "漢字", "y" * 60])


def test_lines_go_through_their_values_with_their_intervals() -> None:
    figure = line_panels([Panel([Line.of("a", ladder(1)), Line.of("b", ladder(2), "control")])])
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["G1", "G2", "G3"]
    for at, (data, (_, _, bars)) in enumerate(
        [(c.lines[0], c.lines) for c in axis.containers]  # pyright: ignore[reportAttributeAccessIssue]
    ):
        assert data.get_ydata().tolist() == [(at + 1) * n for n in (1, 2, 3)]
        ends = [sorted(part[:, 1].tolist()) for part in bars[0].get_segments()]
        assert np.allclose(ends, [((at + 1) * n - 0.1, (at + 1) * n + 0.2) for n in (1, 2, 3)])
        # side by side about the place of each name, so that no interval hides another
        assert np.allclose(data.get_xdata(), np.arange(3) + (at - 0.5) * 0.06)
    assert len(axis.containers) == 2
    assert axis.containers[1].lines[0].get_color() == SOFT  # pyright: ignore


def test_a_name_keeps_its_style_over_the_panels_and_stands_once_in_the_legend() -> None:
    panels = [
        Panel([Line(name, [1.0, 2.0], [1.0, 2.0]) for name in names], level=("chance", 1.5))
        for names in (("a", "b", "c"), ("c", "a"))
    ]
    figure = line_panels(panels)
    styles: dict[str, set[tuple[str, str, str]]] = {}
    for axis, panel in zip(figure.axes, panels, strict=True):
        for line, drawn in zip(panel.lines, axis.containers, strict=True):
            one = drawn.lines[0]  # pyright: ignore
            styles.setdefault(line.name, set()).add(
                (one.get_color(), one.get_marker(), one.get_linestyle())
            )
    assert {name: len(seen) for name, seen in styles.items()} == {"a": 1, "b": 1, "c": 1}
    for part in range(3):  # each of colour, mark and dashes tells all three apart
        assert len({list(seen)[0][part] for seen in styles.values()}) == 3
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["a", "b", "c", "chance"]


def test_a_background_line_has_no_name_and_a_line_of_one_point_is_drawn() -> None:
    drawn = [Line("mean", [5], [0.3]), Line("pair", [5], [0.4], role="background")]
    figure = line_panels([Panel(drawn, level=("chance", 0.1))])
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["mean", "chance"]
    assert "nan" not in inline(figure, "one")


def test_a_logarithmic_axis_names_the_places_that_there_are() -> None:
    points = {float(x): Interval(1, 0.9, 1.2) for x in (256, 1024, 16384)}
    figure = line_panels([Panel([Line.of("a", points)], log=2)])
    figure.draw_without_rendering()
    texts = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert texts == ["256", "1,024", "16,384"]


def test_intervals_that_are_unknown_leave_the_point() -> None:
    nan = float("nan")
    figure = line_panels([Panel([Line("a", [1.0, 2.0], [1.0, 2.0], [nan, 1.5], [nan, 2.5])])])
    bars = figure.axes[0].containers[0].lines[2][0]  # pyright: ignore
    assert [np.ptp(part[:, 1]) for part in bars.get_segments()] == [0, 1]


def test_groups_differ_in_shape_and_carry_their_name_inside_the_figure() -> None:
    figure = users()
    inline(figure, "laid out")
    axis = figure.axes[0]
    outlines = {np.array(part.get_paths()[0].vertices).tobytes() for part in axis.collections}
    assert len(axis.collections) == len(outlines) == 4
    assert sum(len(np.array(part.get_offsets())) for part in axis.collections) == 40
    for text in axis.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width, text
    assert len(axis.texts) == 4 and len({len(MARKS), len(GLYPHS), len(COLOURS)}) == 1


def test_the_middle_of_a_group_has_its_name() -> None:
    rng, middles = np.random.default_rng(0), np.array([[0, 0], [50, 0], [0, 50.0]])
    points = np.repeat(middles, 31, axis=0) + rng.normal(size=(93, 2))
    figure = scatter(points, np.repeat([0, 1, 2], 31).tolist(), ["a", "b", "c"])
    for text, middle in zip(figure.axes[0].texts, middles, strict=True):
        assert np.abs(np.array(text.get_position()) - middle).max() < 2


def test_equal_points_and_one_group_are_drawn() -> None:
    assert "nan" not in inline(scatter(np.ones((3, 2)), [0, 0, 0], ["all"]), "map")


def test_names_keep_their_distance_and_stay_where_there_is_room() -> None:
    places = np.array([[0, 10.0], [5, 9.0], [400, 9.5], [0, 50.0]])
    moved = spread(places, gap=(70, 17))
    assert moved.tolist() == [[0, 26], [5, 9], [400, 9.5], [0, 50]]


@pytest.mark.parametrize("make", [lines, users])
def test_a_figure_inside_a_page_holds_text_alone_and_asks_for_nothing(
    make: Callable[[], Figure],
) -> None:
    svg = str(inline(make(), EVIL))
    seen: list[tuple[str, str | None]] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "style", "image", "metadata"), tag
            seen.extend(attrs)

    Reader().feed(svg)
    assert len(seen) > 50
    assert not re.search(r"https?:|@import", svg)
    assert all(value in svg for value in re.findall(r"url\(#(\w+)\)", svg))
    links = [value for key, value in seen if key in ("href", "xlink:href", "src")]
    assert all(str(link).startswith("#") for link in links)
    assert "&lt;script&gt;" in svg and "$x" in svg and "漢字" in svg


def test_ids_of_two_figures_of_a_page_differ() -> None:
    ids = [set(re.findall(r'id="([^"]+)"', inline(users(), label))) for label in ("one", "two")]
    assert ids[0] and ids[1] and not ids[0] & ids[1]


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_a_figure_is_the_same_bytes_whenever_it_is_drawn(tmp_path: Path, suffix: str) -> None:
    for make in (lines, users):
        files = [tmp_path / f"{make.__name__}{n}{suffix}" for n in (0, 1)]
        for file in files:
            save(make(), file)
        assert files[0].read_bytes() == files[1].read_bytes()
        assert b"Matplotlib v" not in files[0].read_bytes()


def test_no_panel_and_another_kind_of_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no panel"):
        line_panels([])
    with pytest.raises(ValueError, match=r"figure is \.svg or \.png, not '\.pdf'"):
        save(users(), tmp_path / "a.pdf")


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.031, 0.059), (-3, 17), (6.2, 7.55), (0, 123456)]
)
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    ticks = tick_values(low, high)
    assert 2 <= len(ticks) <= 6 and ticks == sorted(set(ticks))
    assert low <= ticks[0] and ticks[-1] <= high


def test_names_are_cut_and_texts_can_be_read() -> None:
    assert plain("x" * 60) == "x" * (NAME - 1) + "…"
    assert all(contrast(colour, "#ffffff") >= 4 for colour in (*COLOURS, INK, SOFT))
