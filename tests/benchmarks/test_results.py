"""Results come back as they were written, and are printed so that they can be read."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.metrics.bootstrap import Interval, mean_of
from benchmarks.metrics.format import aligned, show
from benchmarks.results import (
    Slice,
    Table,
    as_text,
    headlines,
    measure_rows,
    read_results,
    write_results,
)


def table() -> Table:
    values = np.random.default_rng(0).random(40)
    statistics = {
        "untrained": {"R@10": mean_of(values)},
        "trained": {"R@10": mean_of(values + 0.2), "contrastive entropy": mean_of(values + 3)},
    }
    rows = measure_rows([Slice(np.arange(40), statistics)], resamples=100, seed=0)
    return Table(
        task="matching",
        part="a-b",
        users="test alone",
        main=True,
        count=40,
        headline=("R@10", "contrastive entropy"),
        chance={"R@10": 0.25},
        note="a note",
        rows=rows,
    )


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write_results(tmp_path / "out" / "results.json", [table()], {"name": "tiny", "seconds": {}})
    tables, about = read_results(tmp_path / "out" / "results.json")
    assert tables == [table()]
    assert about == {"name": "tiny", "seconds": {}}
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["results.json"]


def test_missing_and_foreign_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make them with python -m benchmarks.evaluate"):
        read_results(tmp_path / "results.json")
    (tmp_path / "results.json").write_text('{"format": 99}', encoding="utf-8")
    with pytest.raises(ValueError, match="not of format 1"):
        read_results(tmp_path / "results.json")


def test_a_row_knows_how_far_it_is_behind() -> None:
    gap = table().rows["untrained"].behind["R@10"]
    assert (gap.low, gap.value, gap.high) == pytest.approx((0.2, 0.2, 0.2))
    assert table().rows["trained"].behind == {}


def test_numbers_are_short() -> None:
    assert show("R@10", Interval(0.0574, 0.048, 1.0)) == ".057 [.048 1.000]"
    assert show("contrastive entropy", Interval(7.021, 0.5, 10.0)) == "7.02 [.50 10.00]"


def test_texts_hold_every_measure_of_every_row() -> None:
    lines = as_text(table()).splitlines()
    assert lines[0] == "matching: a-b, test alone (40 users)"
    assert lines[1].endswith("CLUE, untrained   CLUE, trained")
    assert [line.split()[0] for line in lines[2:4]] == ["R@10", "contrastive"]
    assert lines[4] == "a note"
    small = headlines([table()])
    assert small[0] == ["task", "measure", "CLUE, trained", "CLUE, untrained"]
    assert small[2][:2] == ["matching: a-b", "contrastive entropy (lower is better)"]
    assert small[2][3] == "-"
    assert len({len(line) for line in small}) == 1


def test_columns_are_aligned() -> None:
    assert aligned([["a", "b"], ["long", "c"]]) == "a     b\nlong  c"
