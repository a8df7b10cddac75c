"""A plan is held against the run that it asked for, and against no other."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.json_files import plain
from benchmarks.scaling.fit.study import FitConfig
from benchmarks.scaling.predict.check_plan import CheckConfig, check, sentence
from benchmarks.scaling.predict.plan import PlanConfig, plan
from tests.benchmarks.scaling.tables import row, rows, surface, write


@pytest.fixture
def config(tmp_path: Path) -> CheckConfig:
    fit = FitConfig(table=write(rows(seed=1), tmp_path / "r.parquet"), starts=2, few=1)
    found = plan(PlanConfig(fit=fit, budget=4e12, width_step=8))
    (tmp_path / "plan.json").write_text(json.dumps(plain(found)))
    return CheckConfig(table=fit.table, plan=tmp_path / "plan.json", out=tmp_path / "check.json")


def trained(config: CheckConfig, **changes: Any) -> dict[str, Any]:
    build = json.loads(config.plan.read_text())["build"]
    made = row(build["width"], build["pairs"], role="check")
    return {**made, "lr": build["lr"], "steps": build["steps"], **changes}


def test_the_planned_run_is_found_and_held_against_the_plan(config: CheckConfig) -> None:
    made = trained(config)
    write([*rows(seed=1), made], config.table)
    tree = check(config)
    assert tree["observed"] == made["loss"] and tree["spent"] == made["flops"]
    assert made["loss"] == pytest.approx(float(surface(made["params"], made["pairs"])))
    assert tree["inside95"] and tree["error"] == tree["predicted"]["value"] / made["loss"] - 1
    assert json.loads(config.out.read_text()) == tree
    assert "inside the interval" in sentence(tree) and f"{tree['error']:+.2%}" in sentence(tree)
    far = check_of(config, loss=made["loss"] * 1.5)
    assert not far["inside95"] and "outside the interval of 95 %" in sentence(far)


def check_of(config: CheckConfig, **changes: Any) -> dict[str, Any]:
    write([*rows(seed=1), trained(config, **changes)], config.table)
    return check(config)


@pytest.mark.parametrize("change", [{"steps": 3}, {"lr": 0.5}, {"role": "fit"}, {"layers": 7}])
def test_another_run_is_not_the_planned_one(config: CheckConfig, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="has no run of role check of width"):
        check_of(config, **change)


def test_without_a_plan_nothing_is_checked(config: CheckConfig, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no plan"):
        check(CheckConfig(table=config.table, plan=tmp_path / "none.json"))
