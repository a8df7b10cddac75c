"""Runs at each size's own best rate: planted parabolas give their lowest points, by seed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.scaling.fit.own_rates import NAME, OwnRatesConfig, own_rates, write
from benchmarks.scaling.fit.run_table import read_runs
from tests.benchmarks.scaling import tables
from tests.benchmarks.scaling.tables import row, runs

RATES = (0.01, 0.02, 0.04)
BESTS = {16: 0.03, 32: 0.02, 64: 0.013}
SEEDS = {0: 0.99, 1: 1.0, 2: 1.02}  # what a seed does to every loss


def planted(rates: tuple[float, ...] = RATES, role: str = "fit") -> list[dict[str, Any]]:
    """Log losses that are parabolas over the log rate, lowest at a width's best, times a seed's."""
    return [
        row(
            width,
            2**16,
            seed=seed,
            lr=rate,
            size=f"{width}x2",
            role=role,
            factor=factor * float(np.exp(0.02 * np.log(rate / best) ** 2)),
        )
        for width, best in BESTS.items()
        for rate in rates
        for seed, factor in SEEDS.items()
    ]


def test_a_seed_is_one_row_of_the_loss_that_its_parabola_has_at_the_lowest_point() -> None:
    lone = row(8, 2**16, lr=0.5, size="8x2")
    best, curves = own_rates(runs([*planted(), lone]))
    assert [curve.size for curve in curves] == ["16x2", "32x2", "64x2"] and len(best) == 10
    checked = 0
    for width, rate in BESTS.items():
        for seed, factor in SEEDS.items():
            at = np.flatnonzero((best["width"] == width) & (best["seed"] == seed))
            assert len(at) == 1 and best["lr"][at[0]] == pytest.approx(rate, rel=1e-6)
            lowest = row(width, 2**16, factor=factor)["loss"]
            assert best["loss"][at[0]] == pytest.approx(lowest, rel=1e-9)
            nearest = min(RATES, key=lambda one: abs(np.log(one / rate)))
            assert f"lr{nearest}" in str(best["point"][at[0]])
            checked += 1
    assert checked == 9
    (alone,) = np.flatnonzero(best["width"] == 8)
    assert best["lr"][alone] == 0.5 and best["loss"][alone] == lone["loss"]


def test_four_rates_are_a_least_squares_parabola_and_held_out_runs_are_apart() -> None:
    fitted, held = planted((0.0075, 0.015, 0.03, 0.06)), planted(role="held_out")
    far = planted((1.0,), role="check")  # neither
    best, curves = own_rates(runs([*fitted, *held, *far]))
    assert len(curves) == 6 and len(best) == 18
    assert sorted(best["role"]) == ["fit"] * 9 + ["held_out"] * 9
    same: dict[tuple[int, int], list[float]] = {(w, s): [] for w in BESTS for s in SEEDS}
    for width, seed, loss in zip(best["width"], best["seed"], best["loss"], strict=True):
        same[width, seed].append(loss)
    assert all(np.allclose(*pair, rtol=1e-9) for pair in same.values())


def test_what_has_no_lowest_point_is_refused() -> None:
    with pytest.raises(ValueError, match=r"64x2: the best rate is the least tried, 0\.02; try"):
        own_rates(runs(planted((0.02, 0.03, 0.04))))
    with pytest.raises(ValueError, match="size 16x2 has 2 rates"):
        own_rates(runs(planted((0.02, 0.04))))
    rows = planted()
    with pytest.raises(ValueError, match=r"16x2, seed 2 was trained at the rates \[0.01, 0.02\]"):
        own_rates(runs([one for one in rows if one is not rows[8]]))


def test_the_table_that_is_written_is_that_of_the_rows(tmp_path: Path) -> None:
    file = tables.write(planted(), tmp_path / "runs.parquet")
    said = write(OwnRatesConfig(table=file))
    assert "| 32x2 | 0.01, 0.02, 0.04 | 0.02 | 3 |" in said
    again, expected = read_runs(tmp_path / NAME), own_rates(read_runs(file))[0]
    order = np.lexsort([expected["seed"], expected["width"]])
    back = np.lexsort([again["seed"], again["width"]])
    assert np.array_equal(again["loss"][back], expected["loss"][order])
