# pyright: standard
"""Runs on tasks: the sign of tau is that of "lower loss is better", and a score is made once."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.protocols import Measure, Scored
from benchmarks.scaling.fit.downstream_scores import read_scores
from benchmarks.scaling.predict import downstream
from benchmarks.scaling.predict.downstream import TransferConfig, measure, table
from tests.benchmarks.scaling.tables import rows, write

LOSSES = {row["point"]: row["loss"] for row in rows()[:6]}


class Follows:
    """A task whose score falls with the loss (or rises where lower is better), and counts."""

    def __init__(self, name: str, lower: bool) -> None:
        self.name, self.lower, self.asked = name, lower, 0
        self.probes = ("zero-shot", "linear")

    def supports(self, _: Any, probe: str) -> bool:
        return probe == "linear"

    def score(self, model: Any, probe: str) -> Scored:
        self.asked += 1
        assert probe == "linear"
        value = LOSSES[model.name] * (1 if self.lower else -1)
        queries = pa.table({"user_id": ["a", "b"], "x": [value - 1, value + 1]})
        return Scored(queries, {"main": Measure("mean", ("x",), lower_is_better=self.lower)})


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[Follows]:
    made = [Follows("up", False), Follows("down", True)]
    monkeypatch.setattr(downstream.suites, "tasks_of", lambda *_: made)
    monkeypatch.setattr(downstream.Corpus, "open", lambda _: None)
    monkeypatch.setattr(
        downstream, "EncoderModel", lambda name, *_, **__: SimpleNamespace(name=name)
    )
    return made


def test_each_run_is_scored_once_and_tau_has_the_sign_of_better(
    tasks: list[Follows], tmp_path: Path
) -> None:
    (tmp_path / "suite.yaml").write_text("name: none\n")
    config = TransferConfig(
        table=write(rows()[:6], tmp_path / "r.parquet"),
        runs=tmp_path,
        suite=tmp_path / "suite.yaml",
        out=tmp_path,
        resamples=50,
    )
    tree = measure(config)
    assert [task.asked for task in tasks] == [6, 6] and tree["runs"] == 6
    assert [one["kendall"]["value"] for one in tree["tasks"].values()] == [1.0, 1.0]
    assert json.loads((tmp_path / "tau.json").read_text()) == tree
    points = read_scores(tmp_path / "scores.json")["down"]
    np.testing.assert_allclose(points.scores, points.losses)
    shown = table(tree)
    assert "| up | main, linear |" in shown and "1.00 [1.00 1.00]" in shown
    assert measure(config) == tree and [task.asked for task in tasks] == [6, 6]
