"""What to train for a budget: near the true optimum, buildable, and with its doubts."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scaling.fit.isoflop import Cost
from benchmarks.scaling.fit.study import FitConfig
from benchmarks.scaling.predict.plan import PlanConfig, nearest, plan, text
from tests.benchmarks.scaling.tables import rows, runs, surface, write


@pytest.fixture
def config(tmp_path: Path) -> PlanConfig:
    points = [{"loss": 5.0 - i / 4, "task": "click", "score": 0.6 + i / 50} for i in range(8)]
    (tmp_path / "scores.json").write_text(json.dumps(points))
    fit = FitConfig(
        table=write(rows(seed=1), tmp_path / "r.parquet"), starts=2, few=1, resamples=100
    )
    return PlanConfig(fit=fit, budget=4e12, scores=tmp_path / "scores.json", width_step=8)


def test_the_plan_is_near_the_true_optimum(config: PlanConfig) -> None:
    found = plan(config)
    grid = np.geomspace(1e4, 1e7, 5000)
    losses = surface(grid, config.budget / 6 / grid)
    assert found.size.value == pytest.approx(grid[np.argmin(losses)], rel=0.15)
    assert found.loss.value == pytest.approx(losses.min(), rel=0.02)
    assert found.loss.low95 < losses.min() < found.loss.high95
    build = found.build
    params = 24 * build.width**2 + 100 * build.width
    assert build.layers == 2 and build.params == pytest.approx(params, rel=0.03)
    assert 6 * params * build.pairs == pytest.approx(config.budget, rel=0.05)
    assert build.pairs == build.steps * build.batch and build.batch == 256
    assert build.lr == pytest.approx(0.3 / build.width, rel=0.1)
    assert 0.6 < found.scores["click"].low95 < found.scores["click"].high95 < 1
    doubts = "\n".join(found.doubts)
    assert "earlier cut-offs missed by" in doubts and "outside the runs'" in doubts
    shown = text(found)
    assert f"width {build.width}, 2 layers" in shown and "expected click" in shown


def test_a_budget_far_beyond_is_doubted(config: PlanConfig) -> None:
    found = plan(PlanConfig(fit=config.fit, budget=1e18))
    doubts = "\n".join(found.doubts)
    assert "the ladder tested the law up to" in doubts
    assert "the data would be read" in doubts
    assert found.scores == {}


def test_a_law_whose_best_runs_have_no_data_plans_nothing(config: PlanConfig) -> None:
    """Its optimum lies below all that was trained: a plan of it had one step."""
    with pytest.raises(ValueError, match=r"reads the data 0\.001 times .* than the cheapest run's"):
        plan(PlanConfig(fit=config.fit, budget=4e12, most_epochs=0.001))
    assert plan(PlanConfig(fit=config.fit, budget=4e12, most_epochs=4.0)).budget == 4e12


def test_a_budget_of_nothing_is_refused(config: PlanConfig) -> None:
    with pytest.raises(ValueError, match="budget is 0 FLOPs"):
        plan(PlanConfig(fit=config.fit, budget=0))


def test_depth_follows_the_runs_where_it_varies(config: PlanConfig) -> None:
    made = [{**x, "layers": x["width"] // 8, "params": 12 * x["width"] ** 3 // 8} for x in rows()]
    build = nearest(runs(made), config, 12 * 144**3 / 8, Cost(6, 1, 0))
    assert (build.width, build.layers) == (144, 18)


def test_tables_count_where_they_are_most_of_a_model(config: PlanConfig) -> None:
    made = [{**x, "params": 5000 * x["width"] + 2 * x["width"] ** 2} for x in rows()]
    build = nearest(runs(made), config, 5000 * 160 + 2 * 160**2, Cost(6, 1, 0))
    assert (build.width, build.layers) == (160, 2)
    assert build.params == pytest.approx(5000 * 160 + 2 * 160**2)
