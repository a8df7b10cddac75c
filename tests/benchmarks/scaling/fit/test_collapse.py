"""Sizes of one curve collapse, as often as the level says; a size of another curve is named."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.scaling.fit.collapse import SHARES, CollapseConfig, collapse, judge, table
from tests.benchmarks.scaling.tables import row, write

WIDTHS = (16, 24, 32, 48, 64)


def curves(draw: np.random.Generator, odd: float = 0.0, seeds: int = 3) -> dict[str, np.ndarray]:
    """One falling curve, noise of 1 % early that is 0 at the end, and `odd` more at the last size.

    The curve of a run is off in one direction all along, as a seed is.
    """
    common = 0.4 * (SHARES**-0.3 - 1)
    made: dict[str, np.ndarray] = {}
    for width in WIDTHS:
        noise = 0.01 * draw.normal(size=(seeds, 1)) + 0.003 * draw.normal(size=(seeds, len(SHARES)))
        more = odd if width == WIDTHS[-1] else 0.0
        made[f"{width}x2"] = common * (1 + more) + noise * (1 - SHARES)
    return made


PAIRS = {f"{width}x2": 20.0 for width in WIDTHS}


def test_one_curve_collapses_and_false_alarms_are_as_rare_as_they_should_be() -> None:
    trees = [judge(curves(np.random.default_rng(number)), PAIRS) for number in range(100)]
    assert np.mean([tree["passes"] for tree in trees]) >= 0.93
    assert all(tree["freedom"] == 10 for tree in trees)


def test_the_size_of_another_curve_is_named_and_no_other() -> None:
    named: list[list[str]] = []
    trees = [judge(curves(np.random.default_rng(number), odd=0.3), PAIRS) for number in range(20)]
    for tree in trees:
        named.append([one["size"] for one in tree["sizes"] if not one["inside"]])
        assert not tree["passes"]
    assert len(named) == 20 and named.count(["64x2"]) >= 18
    assert "64x2 learn unlike the rest" in table(trees[0])


def test_another_recipe_is_said() -> None:
    tree = judge(curves(np.random.default_rng(0)), {**PAIRS, "16x2": 30.0})
    assert tree["collapses"] and not tree["one_recipe"] and not tree["passes"]
    assert "differ by 1.5 x" in table(tree)


def test_without_a_second_seed_there_is_no_band() -> None:
    with pytest.raises(ValueError, match="0 of them a second seed"):
        judge(curves(np.random.default_rng(0), seeds=1), PAIRS)


def test_the_command_reads_the_longest_run_of_each_size_and_seed(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = [
        row(width, pairs, seed=seed, size=f"{width}x2")
        for width in WIDTHS
        for seed in range(3)
        for pairs in (2**14, 20 * row(width, 1)["params"] // 256 * 256)
    ]
    lines = []
    for one in rows:
        short = one["pairs"] == 2**14
        noise = 0.01 * draw.normal()
        for share in (0.125, 0.25, 0.5, 0.75, 1.0):
            off = (0.4 + 5 * short) * (share**-0.3 - 1) + noise * (1 - share)
            steps = round(share * 1000 * one["steps"])
            lines.append({"point": one["point"], "steps": steps, "loss": 3 * np.exp(off)})
    write(rows, tmp_path / "runs.parquet")
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "curves.parquet")
    files = {"table": tmp_path / "runs.parquet", "curves": tmp_path / "curves.parquet"}
    tree = collapse(CollapseConfig(**files, out=tmp_path))
    assert tree["passes"] and len(tree["sizes"]) == 5 and (tmp_path / "collapse.json").is_file()
    assert {one["seeds"] for one in tree["sizes"]} == {3}
    assert all(abs(one["pairs_a_parameter"] / 20 - 1) < 0.01 for one in tree["sizes"])
