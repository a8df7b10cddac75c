"""A gate passes planted parabolas whose best rates agree, and names each planted failure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.json_files import write_json
from benchmarks.scaling.fit.rate_curves import judge, rate_of, table
from tests.benchmarks.scaling.tables import row, runs

RATES = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
SIZES = [(width, layers) for width in (16, 32, 64) for layers in (1, 2, 4)]
SHARED, BEND = 9e-3, 0.02


def planted(
    bests: Sequence[float], *, rates: Sequence[float] = RATES, noise: float = 2e-4, seeds: int = 1
) -> list[dict[str, Any]]:
    """Log losses that are parabolas of one bend over the log rate, lowest at a size's best."""
    draw = np.random.default_rng(0)
    return [
        row(
            width,
            2**16,
            seed=seed,
            lr=rate,
            layers=layers,
            size=f"{width}x{layers}",
            params=width**2 * layers,
            factor=float(np.exp(BEND * np.log(rate / best) ** 2 + draw.normal(0, noise))),
        )
        for (width, layers), best in zip(SIZES, bests, strict=False)
        for rate in rates
        for seed in range(seeds)
    ]


def met(tree: dict[str, Any]) -> list[bool]:
    """Return which of the four criteria are met, in order."""
    return [one["passes"] for one in tree["criteria"].values()]


def test_equal_best_rates_pass_and_the_lowest_points_are_those_planted() -> None:
    bests = [SHARED * 2 ** (0.1 * (number % 3 - 1)) for number in range(9)]
    tree = judge(runs(planted(bests)))
    assert tree["passes"] and met(tree) == [True] * 4
    assert tree["shared"] == pytest.approx(SHARED, rel=0.02)
    by_size = {one["size"]: one for one in tree["sizes"]}
    checked = 0
    for (width, layers), best in zip(SIZES, bests, strict=True):
        one = by_size[f"{width}x{layers}"]
        assert abs(np.log(one["best"] / best)) < 3 * one["best_sd"] < 0.1
        assert one["rate"] == tree["shared"]
        over = BEND * np.log(tree["shared"] / best) ** 2
        assert one["excess"] == pytest.approx(np.expm1(over), abs=5 * one["excess_sd"] + 1e-5)
        checked += 1
    assert checked == 9
    assert "One rate suits all sizes" in table(tree) and "| 64x4 " in table(tree)


def test_the_errors_are_as_large_as_the_lowest_points_scatter() -> None:
    tree = judge(runs(planted([SHARED] * 9, noise=1e-3, seeds=2)))
    off = [np.log(one["best"] / SHARED) / one["best_sd"] for one in tree["sizes"]]
    assert len(off) == 9 and 0.6 < np.sqrt(np.mean(np.square(off))) < 1.5


def test_best_rates_more_than_a_step_apart_fail() -> None:
    bests = [SHARED * (1.5 if number == 8 else 1.0) for number in range(9)]
    tree = judge(runs(planted(bests)))
    # a wide valley: the shared rate would cost little
    assert met(tree) == [True, True, False, True] and not tree["passes"]
    rates = [one["rate"] for one in tree["sizes"]]
    assert rates == pytest.approx(bests, rel=0.05)  # each its own


def test_a_shared_rate_that_costs_more_than_the_limit_fails() -> None:
    narrow = planted([SHARED * 1.15, SHARED / 1.15], noise=0.0)
    tree = judge(runs([{**one, "loss": one["loss"] ** 12} for one in narrow]))
    assert met(tree) == [True, True, True, False]
    assert tree["criteria"]["loss at the shared rate"]["value"] == pytest.approx(
        12 * BEND * np.log(1.15) ** 2, rel=0.01
    )


def test_a_best_rate_at_an_edge_fails_and_has_no_rate(tmp_path: Path) -> None:
    tree = judge(runs(planted([SHARED, SHARED, 6e-2])))
    assert met(tree)[0] is False and not tree["passes"]
    bad = tree["sizes"][-1]
    assert bad["rate"] is None and "greatest tried, 0.032; try higher" in bad["why"]
    file = tmp_path / "gate.json"
    write_json(file, tree)
    assert rate_of(file, "16x1") == pytest.approx(SHARED, rel=0.05)
    with pytest.raises(ValueError, match=r"no rate for 16x4: .*try higher ones"):
        rate_of(file, "16x4")
    with pytest.raises(ValueError, match=r"does not have 128x2; add it to the gate"):
        rate_of(file, "128x2")
    with pytest.raises(FileNotFoundError, match="no gate"):
        rate_of(tmp_path / "none.json", "16x1")
    assert "No rate suits all sizes" in table(tree)


def test_losses_too_noisy_to_say_fail_and_so_do_those_of_no_known_error() -> None:
    noisy = judge(runs(planted([SHARED] * 9, noise=0.02)))
    assert not noisy["passes"] and not met(noisy)[1]
    bare = judge(runs(planted([SHARED] * 9, rates=RATES[1:4], noise=0.0)))
    assert met(bare) == [True, False, True, True]  # three rates, one seed: no residual
    known = judge(runs(planted([SHARED] * 9, rates=RATES[1:4], noise=1e-4, seeds=2)))
    assert met(known) == [True] * 4


def test_a_gate_that_passed_has_a_rate_for_sizes_that_it_did_not_train(tmp_path: Path) -> None:
    write_json(tmp_path / "gate.json", judge(runs(planted([SHARED] * 9))))
    assert rate_of(tmp_path / "gate.json", "128x8") == pytest.approx(SHARED, rel=0.02)


def test_what_does_not_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="size 16x1 alone"):
        judge(runs(planted([SHARED])))
    with pytest.raises(ValueError, match="has 2 rates; a parabola needs 3"):
        judge(runs(planted([SHARED] * 2, rates=RATES[:2])))
    mixed = planted([SHARED] * 2)
    mixed[0] = {**mixed[0], "batch": 64}
    with pytest.raises(ValueError, match="has batch 64 and 256"):
        judge(runs(mixed))
