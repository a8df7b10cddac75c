# pyright: standard
"""A result is kept while nothing that decides it changes, is whole or absent, and reads back."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.protocols import Measure, Scored
from benchmarks.suite import results
from benchmarks.suite.results import TaskResult
from benchmarks.suite.runner import SuiteConfig, fill
from tests.benchmarks.conftest import Suite
from tests.benchmarks.results_fixture import FakeModel, FakeTask


def a_task(**changes: object) -> FakeTask:
    task = FakeTask("shop/churn", "churn", "auroc", {"CLUE": 0.5}, probes=("linear", "mlp"))
    return dataclasses.replace(task, **changes)


def a_suite(out: Path) -> SuiteConfig:
    return SuiteConfig(out=out, resamples=20)


def test_a_result_is_made_once(tmp_path: Path) -> None:
    task, model = a_task(), FakeModel("CLUE")
    wanted = [(task, model, "linear"), (task, model, "mlp")]
    assert fill(a_suite(tmp_path), wanted) == 2 and task.scored == 2
    assert fill(a_suite(tmp_path), wanted) == 0 and task.scored == 2
    main = {result.probe: result.main_probe for result in results.read(tmp_path)}
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
def test_a_result_is_made_again_when_something_changed(
    tmp_path: Path, task: FakeTask, model: FakeModel, probe: str
) -> None:
    assert fill(a_suite(tmp_path), [(a_task(), FakeModel("CLUE"), "linear")]) == 1
    assert fill(a_suite(tmp_path), [(task, model, probe)]) == 1
    assert fill(a_suite(tmp_path), [(task, model, probe)]) == 0


@pytest.mark.parametrize("step", ["queries", "scores"])
def test_a_kill_halfway_leaves_no_result(
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
    with pytest.raises(FileNotFoundError, match="no scores in"):
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
    made = results.make(tmp_path, task, FakeModel("CLUE"), "linear", resamples=20, seed=0)
    assert np.isnan(made.values["AUROC"].value)
    text = (tmp_path / "scores.jsonl").read_text()

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
    made: dict[results.Key, TaskResult] = {}
    task = a_task()
    for seed in (0, 1):
        for probe in task.probes:
            result = results.make(
                tmp_path, task, FakeModel("CLUE", seed), probe, resamples=20, seed=0
            )
            made[result.key] = result
    read = {result.key: result for result in results.read(tmp_path)}
    assert read == made and len(read) == 4


def test_a_line_of_an_older_format_is_refused_by_its_number(tmp_path: Path) -> None:
    results.make(tmp_path, a_task(), FakeModel("CLUE"), "linear", resamples=20, seed=0)
    results.make(tmp_path, a_task(), FakeModel("CLUE"), "mlp", resamples=20, seed=0)
    file = tmp_path / "scores.jsonl"
    first, second = file.read_text().splitlines()
    file.write_text(first + "\n" + json.dumps({**json.loads(second), "format": 1}) + "\n")
    with pytest.raises(ValueError, match=r"scores.jsonl, line 2 is of another format"):
        results.read(tmp_path)


def test_a_result_made_again_takes_the_place_of_its_line(tmp_path: Path) -> None:
    other = dataclasses.replace(a_task(), recipe={"window": 14})
    for task in (a_task(), other):
        for probe in task.probes:
            results.make(tmp_path, task, FakeModel("CLUE"), probe, resamples=20, seed=0)
    read = results.read(tmp_path)
    assert [one.probe for one in read] == ["linear", "mlp"]
    assert all(one.about["recipe"] == {"window": 14} for one in read)


def test_all_wanted_results_exist_and_lie_alone(suite: Suite) -> None:
    keys = {result.key for result in suite.results}
    assert len(keys) == len(list(suite.out.rglob("*.parquet"))) == len(suite.results) == 103
