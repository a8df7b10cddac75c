"""Other choices, groups left out, and the ladder of cut-offs."""

import numpy as np
import pytest

from benchmarks.scaling.fit.run_table import fit_rows
from benchmarks.scaling.fit.selection import Sample, budgets
from benchmarks.scaling.fit.sensitivity import choices, fitted, ladder
from tests.benchmarks.scaling.tables import rows, runs


def test_the_ladder_predicts_all_that_is_above_each_cut() -> None:
    flops = np.logspace(0, 3, 10)
    losses = 1.5 + 2 * flops**-0.2
    sample = Sample(("C",), flops[:, None], losses, np.arange(10), flops)
    rungs = ladder(sample, most=3)
    # four runs are needed for three parameters: cuts after the fourth to the ninth
    assert len(rungs) == 6 + 5 + 4 + 3 + 2 + 1
    assert {rung.runs for rung in rungs} == {4, 5, 6, 7, 8, 9}
    for rung in rungs:
        assert rung.factor == pytest.approx(rung.flops / rung.cut) and rung.factor > 1
        assert abs(rung.error) < 1e-6
        assert rung.pure < -1e-3 and rung.last > 1e-3
        true = losses[np.argmin(np.abs(flops - rung.flops))]
        assert rung.last == pytest.approx(losses[rung.runs - 1] / true - 1)
    far = [rung for rung in rungs if rung.runs == 4]
    assert (np.diff([abs(rung.pure) for rung in far]) > 0).all()


def test_every_choice_has_its_law() -> None:
    found = [x for x in rows() if x["width"] in (16, 32, 64, 96)]
    mine = fit_rows(runs(found))
    sample = Sample.of(mine, ("params", "pairs"))
    at = np.array([[1e5, 1e6]])
    made = choices(mine, ("params", "pairs"), fitted(sample), at, most=1)
    by_name = {one.name: one for one in made}
    assert len(by_name) == len(made) == 10 + 4 + budgets(mine["flops"]).max()
    base = by_name["as reported"]
    assert base.refused == "" and base.runs == len(mine) and base.reference > 3
    assert by_name["without the 5 worst"].runs == len(mine) - 5
    hidden = by_name["hidden parameters"]
    assert "a_params_hidden" in hidden.coefficients
    assert hidden.reference == pytest.approx(base.reference, rel=0.01)
    whole = by_name["delta 1"].coefficients
    assert whole["E"] == pytest.approx(1.8, rel=0.1)
    without = [one for one in made if one.name.endswith("parameters") and "without" in one.name]
    assert len(without) == 4 and sum(len(mine) - one.runs for one in without) == len(mine)


def test_a_choice_that_leaves_too_little_says_so() -> None:
    found = [x for x in rows(noise=0) if x["width"] in (16, 96) and x["seed"] == 0]
    mine = fit_rows(runs(found))
    sample = Sample.of(mine, ("params", "pairs"))
    made = choices(mine, ("params", "pairs"), fitted(sample), sample.x[-1:], most=1)
    gone = next(one for one in made if one.name == "without 7,744 parameters")
    assert "params is 230784 in all runs" in gone.refused and np.isnan(gone.reference)
