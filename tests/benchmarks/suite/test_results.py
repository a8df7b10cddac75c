# pyright: standard
"""A cell is kept while nothing that decides it changes, is whole or absent, and reads back."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.protocols import Measure, Scored
from benchmarks.suite import results
from benchmarks.suite.results import Cell
from benchmarks.suite.runner import SuiteConfig, fill
from tests.benchmarks.cells_fixture import FakeModel, FakeTask
from tests.benchmarks.conftest import Suite


def a_task(**changes: object) -> FakeTask:
    task = FakeTask("shop/churn", "churn", "auroc", {"CLUE": 0.5}, probes=("linear", "mlp"))
    return dataclasses.replace(task, **changes)


def a_suite(out: Path) -> SuiteConfig:
    return SuiteConfig(out=out, resamples=20)


def test_a_cell_is_made_once(tmp_path: Path) -> None:
    task, model = a_task(), FakeModel("CLUE")
    wanted = [(task, model, "linear"), (task, model, "mlp")]
    assert fill(a_suite(tmp_path), wanted) == 2 and task.scored == 2
    assert fill(a_suite(tmp_path), wanted) == 0 and task.scored == 2
    main = {cell.probe: cell.main_probe for cell in results.read(tmp_path)}
    assert main == {"linear": True, "mlp": False}


@pytest.mark.parametrize(
    ("task", "model", "probe"),
    [
        (a_task(recipe={"window": 14}), FakeModel("CLUE"), "linear"),
        (a_task(version=2), FakeModel("CLUE"), "linear"),
        (a_task(), FakeModel("CLUE", fingerprint="other weights"), "linear"),
        (a_task(), FakeModel("CLUE", seed=1), "linear"),
        (a_task(), FakeModel("CLUE"), "mlp"),
    ],
)
def test_a_cell_is_made_again_when_something_changed(
    tmp_path: Path, task: FakeTask, model: FakeModel, probe: str
) -> None:
    assert fill(a_suite(tmp_path), [(a_task(), FakeModel("CLUE"), "linear")]) == 1
    assert fill(a_suite(tmp_path), [(task, model, probe)]) == 1
    assert fill(a_suite(tmp_path), [(task, model, probe)]) == 0


@pytest.mark.parametrize("step", ["queries", "cell"])
def test_a_kill_halfway_leaves_no_cell(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    wanted = [(a_task(), FakeModel("CLUE"), "linear")]
    with monkeypatch.context() as patched:
        if step == "queries":
            patched.setattr(results.pq, "write_table", killed)
        else:
            patched.setattr(Path, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            fill(a_suite(tmp_path), wanted)
    with pytest.raises(FileNotFoundError, match="no cells in"):
        results.read(tmp_path)
    assert fill(a_suite(tmp_path), wanted) == 1 and len(results.read(tmp_path)) == 1


class OneClass(FakeTask):
    """An AUROC of one class, which is not defined, and a mean beside it."""

    def score(self, model: object, probe: str) -> Scored:
        columns = {"user_id": ["a", "b"], "score": [0.1, 0.9], "label": [1.0, 1.0]}
        both = {"AUROC": Measure("auroc", ("score", "label")), "mean": Measure("mean", ("score",))}
        return Scored(pa.table(columns), both, {"ridge": float("inf"), "C": np.float32(2)})


def test_nan_never_reaches_the_json(tmp_path: Path) -> None:
    task = OneClass("one", "class", "auroc", {"CLUE": 1.0})
    cell = results.make(tmp_path, task, FakeModel("CLUE"), "linear", resamples=20, seed=0)
    assert np.isnan(cell.values["AUROC"].value)
    text = cell.file.read_text()

    def refused(name: str) -> float:
        raise AssertionError(f"{name} is in the JSON")

    tree = json.loads(text, parse_constant=refused)
    assert tree["values"]["AUROC"]["value"] is None
    assert tree["chosen"] == {"ridge": None, "C": 2.0}
    assert np.isnan(results.read(tmp_path)[0].values["AUROC"].value)


def test_a_score_that_is_not_finite_is_refused() -> None:
    queries = pa.table({"user_id": ["a", "b"], "value": [1.0, float("nan")]})
    with pytest.raises(ValueError, match="value holds NaN or infinity"):
        Scored(queries, {"mean": Measure("mean", ("value",))})


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    made: dict[Path, Cell] = {}
    task = a_task()
    for seed in (0, 1):
        for probe in task.probes:
            cell = results.make(
                tmp_path, task, FakeModel("CLUE", seed), probe, resamples=20, seed=0
            )
            made[cell.file] = cell
    found = {cell.file: cell for cell in results.read(tmp_path)}
    assert found == made and len(found) == 4


def test_a_cell_of_an_older_format_is_refused_by_its_name(tmp_path: Path) -> None:
    cell = results.make(tmp_path, a_task(), FakeModel("CLUE"), "linear", resamples=20, seed=0)
    tree = json.loads(cell.file.read_text())
    cell.file.write_text(json.dumps({**tree, "format": 1}))
    with pytest.raises(ValueError, match=f"{cell.file.name} is of another format"):
        results.read(tmp_path)


def test_every_wanted_cell_is_there_and_lies_alone(suite: Suite) -> None:
    named = {(cell.task, cell.model, cell.seed, cell.probe) for cell in suite.cells}
    assert len(named) == len(list(suite.out.rglob("*.parquet"))) == len(suite.cells) == 103
