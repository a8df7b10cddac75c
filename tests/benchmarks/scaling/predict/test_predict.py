"""A prediction is made once, before the runs; verifying it says how far off and inside or not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.special import expit

from benchmarks.json_files import read_prediction
from benchmarks.scaling.fit.study import FitConfig
from benchmarks.scaling.predict.predict import PredictConfig, Target, predict
from benchmarks.scaling.predict.verify import table, verify
from benchmarks.scaling.sweep.grid import lay_out
from benchmarks.scaling.sweep.sweep_config import Grid
from clue.config import to_yaml
from tests.benchmarks.scaling import tiny
from tests.benchmarks.scaling.tables import row, rows, write

LATER = row(160, 2**22, role="held_out", factor=1.002)


def config(folder: Path, **changes: Any) -> PredictConfig:
    target = Target(
        name=LATER["point"], flops=LATER["flops"], params=LATER["params"], pairs=LATER["pairs"]
    )
    fit = FitConfig(table=folder / "runs.parquet", starts=2, resamples=100, min_decades=3.2)
    asked = PredictConfig(fit=fit, targets=[target], out=folder / "told.json")
    return replace(asked, **changes)


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """A folder with a table and a prediction of a run that is not in it."""
    write(rows(), tmp_path / "runs.parquet")
    predict(config(tmp_path))
    return tmp_path


def test_the_prediction_holds_and_is_verified(told: Path) -> None:
    content = read_prediction(told / "told.json")
    (target,) = content["targets"]
    band = target["predicted"]
    assert band["low95"] < band["low80"] < band["value"] < band["high80"] < band["high95"]
    assert target["factor"] == pytest.approx(LATER["flops"] / 1.452e12, rel=0.01)
    assert content["fit"]["table"]["rows"] == 50 and content["law"] == "surface"
    write([*rows(), LATER], told / "runs.parquet")
    (outcome,) = verify(config(told))["targets"]
    assert outcome["inside95"] and outcome["observed"] == LATER["loss"]
    errors = outcome["errors"]
    assert errors["surface"] == pytest.approx(band["value"] / LATER["loss"] - 1)
    assert abs(errors["surface"]) < 0.02 < abs(errors["pure power law"])
    assert errors["largest fitted run"] > 0.1
    assert json.loads((told / "told.verified.json").read_text())["targets"][0] == outcome
    shown = table(verify(config(told)))
    assert LATER["point"] in shown and f"{errors['surface']:+.2%}" in shown


def test_a_run_of_several_rates_is_one_outcome(told: Path) -> None:
    (one,) = config(told).targets
    several = [replace(one, name=f"{one.name}-lr{rate}") for rate in (0.01, 0.02, 0.04)]
    at = config(told, targets=several, out=told / "several.json")
    predict(at)
    write([*rows(), {**LATER, "point": several[1].name}], told / "runs.parquet")
    (outcome,) = verify(at)["targets"]
    assert outcome["runs"] == 1 and outcome["observed"] == LATER["loss"]


def test_of_a_run_at_several_rates_the_best_counts(told: Path) -> None:
    """As `fit` takes the best rate of each configuration, by the mean over its seeds."""
    best = [{**LATER, "seed": seed, "point": f"best{seed}"} for seed in (0, 1)]
    worse = [
        {**one, "lr": 0.1, "point": f"worse{one['seed']}", "loss": LATER["loss"] + each}
        for one, each in zip(best, (-0.05, 0.2), strict=True)
    ]
    write([*rows(), *best, *worse], told / "runs.parquet")
    (outcome,) = verify(config(told))["targets"]
    assert (outcome["runs"], outcome["observed"]) == (2, pytest.approx(LATER["loss"]))


def score_rows(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Scores of runs on two tasks: logit(score) = 4 - b L, b of 2, and 0 (chance)."""
    return [
        {
            "point": one["point"],
            "loss": one["loss"],
            "task": task,
            "score": float(expit(4 - slope * one["loss"])),
        }
        for one in points
        for task, slope in (("follows", 2.0), ("chance", 0.0))
    ]


def test_scores_on_tasks_are_predicted_and_verified(tmp_path: Path) -> None:
    """A planted logit law of the loss is found at the target's loss; chance stays chance."""
    write(rows(), tmp_path / "runs.parquet")
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(score_rows(rows())))
    asked = config(tmp_path, scores=file)
    predict(asked)
    (target,) = read_prediction(asked.out)["targets"]
    told = target["scores"]["follows"]["predicted"]
    at = float(expit(4 - 2 * target["predicted"]["value"]))
    assert told["value"] == pytest.approx(at, abs=1e-9)
    high, low = (expit(4 - 2 * target["predicted"][end]) for end in ("low95", "high95"))
    assert (told["low95"], told["high95"]) == (
        pytest.approx(low, abs=2e-3),
        pytest.approx(high, abs=2e-3),
    )
    assert target["scores"]["chance"]["predicted"]["value"] == pytest.approx(float(expit(4)))
    write([*rows(), LATER], tmp_path / "runs.parquet")
    assert "tasks" not in verify(replace(asked, scores=None))["targets"][0]
    with pytest.raises(ValueError, match="has no score on follows; score it first"):
        verify(asked)
    file.write_text(json.dumps(score_rows([*rows(), LATER])))
    tree = verify(asked)
    outcome = tree["targets"][0]["tasks"]["follows"]
    observed = float(expit(4 - 2 * LATER["loss"]))
    assert outcome["observed"] == pytest.approx(observed)
    assert outcome["error"] == pytest.approx(told["value"] - observed)
    assert abs(outcome["error"]) < 0.01 < -outcome["error of the largest fitted run"]
    shown = table(tree)
    assert shown.count("| follows |") == 1 and f"{outcome['error']:+.4f}" in shown


def test_scores_that_are_there_are_not_predicted(tmp_path: Path) -> None:
    write(rows(), tmp_path / "runs.parquet")
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(score_rows([*rows(), LATER])))
    with pytest.raises(ValueError, match="was scored on follows already"):
        predict(config(tmp_path, scores=file))
    file.write_text(json.dumps(score_rows(rows()[:20])))
    with pytest.raises(ValueError, match="has no score on follows of the largest fitted runs, w96"):
        predict(config(tmp_path, scores=file))
    assert not (tmp_path / "told.json").exists()


def test_the_same_prediction_again_changes_nothing(told: Path) -> None:
    before = (told / "told.json").read_bytes()
    write(rows()[::-1], told / "runs.parquet")
    predict(config(told))
    assert (told / "told.json").read_bytes() == before


def test_another_prediction_is_not_written_over(told: Path) -> None:
    write(rows(seed=3), told / "runs.parquet")
    with pytest.raises(ValueError, match="holds another prediction"):
        predict(config(told))


@pytest.mark.parametrize("name", [LATER["point"], "under another name"])
def test_runs_that_are_there_are_not_predicted(tmp_path: Path, name: str) -> None:
    write([*rows(), {**LATER, "point": name}], tmp_path / "runs.parquet")
    with pytest.raises(ValueError, match=r"is in .* already, as .* before the run"):
        predict(config(tmp_path))
    assert not (tmp_path / "told.json").exists()


def test_a_changed_prediction_is_refused(told: Path) -> None:
    file = told / "told.json"
    tree = json.loads(file.read_text())
    tree["content"]["targets"][0]["predicted"]["high95"] += 0.1
    file.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match="was changed after it was written"):
        verify(config(told))
    with pytest.raises(FileNotFoundError, match="no prediction"):
        verify(config(told, out=told / "none.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"negatives": 255}, "measured at negatives 255, the prediction is of 4095"),
        ({"eval_set": "other"}, "measured at eval_set other"),
        ({"annealed": False}, "un-annealed"),
        ({"point": "x", "pairs": 5}, "not in the table; train it"),
    ],
)
def test_a_run_that_does_not_compare_is_not_verified(
    told: Path, change: dict[str, Any], message: str
) -> None:
    write([*rows(), {**LATER, **change}], told / "runs.parquet")
    with pytest.raises(ValueError, match=message):
        verify(config(told))


def test_the_compute_law_needs_only_flops(tmp_path: Path) -> None:
    write(rows(), tmp_path / "runs.parquet")
    tree = predict(config(tmp_path, law="compute"))
    told = tree["content"]["targets"][0]["predicted"]
    assert told["low95"] < LATER["loss"] * 1.05 and told["high95"] > 2


def test_the_targets_may_be_the_held_out_points_of_a_study(tmp_path: Path) -> None:
    made = tiny.corpus(tmp_path / "tastes")
    grids = [Grid(budgets=[10]), Grid(sizes=["b"], budgets=[40], role="held_out")]
    study = tiny.study(tmp_path, made, grids=grids)
    (tmp_path / "study.yaml").write_text(to_yaml(study))
    (held,) = (point for point in lay_out(study) if point.role == "held_out")
    write(rows(), tmp_path / "runs.parquet")
    tree = predict(config(tmp_path, targets=[], sweep=tmp_path / "study.yaml"))
    (target,) = tree["content"]["targets"]
    assert (target["name"], target["pairs"]) == (held.name, 40 * 16)
    assert (target["params"], target["flops"]) == (held.facts.params, held.flops)


def test_without_targets_nothing_is_predicted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="targets is empty"):
        predict(config(tmp_path, targets=[]))


def test_the_law_of_size_alone_is_of_equal_data(tmp_path: Path) -> None:
    grid = [row(width, 2**21) for width in (16, 24, 32, 48, 64, 96)]
    write(grid, tmp_path / "runs.parquet")
    later = row(160, 2**21, role="held_out", factor=1.002)
    size, data = (
        Target(name=one["point"], flops=one["flops"], params=one["params"], pairs=one["pairs"])
        for one in (later, LATER)
    )
    fit = FitConfig(table=tmp_path / "runs.parquet", starts=8, resamples=100, min_decades=0.5)
    asked = config(tmp_path, fit=fit, law="params", targets=[size])
    (told,) = predict(asked)["content"]["targets"]
    assert abs(told["predicted"]["value"] / later["loss"] - 1) < 0.01
    assert told["trivial"]["pure power law"] < told["predicted"]["value"]
    with pytest.raises(ValueError, match="learns from 4,194,304 pairs, the runs of the law params"):
        predict(replace(asked, targets=[data], out=tmp_path / "other.json"))
