# pyright: standard
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.external.environments import Rival, RivalMissing
from benchmarks.speed import interleave
from benchmarks.speed.interleave import (
    Arm,
    ArmFailed,
    Comparison,
    difference,
    run,
)


def seconds(result: Mapping[str, Any]) -> dict[str, float]:
    return {"seconds": result["seconds"]}


def fake(turns: Path, name: str, **spec: Any) -> Arm:
    same = {"name": name, "turns": str(turns), "loss": 2.0, "grad_norm": 1.0, "seconds": [1.0]}
    return Arm(name=name, module="tests.benchmarks.speed.fake_arm", spec=same | spec)


def test_arms_take_turns_and_rows_have_their_medians(tmp_path: Path) -> None:
    turns = tmp_path / "turns"
    comparison = Comparison(3, seconds)
    one, two = fake(turns, "A", seconds=[5.0, 1.0, 9.0]), fake(turns, "B", seconds=[4.0])
    comparison.run("case", [one, two])
    assert turns.read_text() == "A B A B A B"
    first, second = comparison.rows
    assert (first.arm, first.status, first.case) == ("A", "measured", "case")
    found = first.figures["seconds"]
    assert (found.median, found.low, found.high, found.rounds) == (5.0, 1.0, 9.0, (5.0, 1.0, 9.0))
    assert comparison.median("case", "A", "seconds") == 5.0
    assert comparison.median("case", "B", "seconds") == second.figures["seconds"].median == 4.0
    assert comparison.median("case", "C", "seconds") is None


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"loss": 2.0 * (1 + 2e-5)}, "not comparable"),
        ({"loss": 2.0 * (1 + 5e-6)}, "measured"),
        ({"grad_norm": 1.0002}, "not comparable"),
        ({"grad_norm": 1.00005}, "measured"),
        ({"loss": float("nan")}, "not comparable"),
    ],
)
def test_only_equal_losses_and_gradients_are_compared(
    tmp_path: Path, wrong: dict[str, float], status: str
) -> None:
    comparison = Comparison(1, seconds)
    comparison.run("case", [fake(tmp_path / "t", "right"), fake(tmp_path / "t", "other", **wrong)])
    assert [row.status for row in comparison.rows] == ["measured", status]
    if status == "not comparable":
        assert comparison.rows[1].note.startswith(next(iter(wrong)))
        assert comparison.median("case", "other", "seconds") is None


def test_a_gate_refuses_what_is_wrong_on_the_small_case_alone(tmp_path: Path) -> None:
    # the gate lays loss = 3 over the spec of both; "other" then says 2 in the timed round only
    comparison = Comparison(1, seconds)
    right, other = fake(tmp_path / "t", "right"), fake(tmp_path / "t", "other", loss=2.5)
    comparison.run("equal on the gate", [right, other], [{"loss": 3.0}], equal=False)
    comparison.run("and when timed", [right, other], [{"loss": 3.0}])
    assert [row.status for row in comparison.rows] == [
        "measured",
        "measured",
        "measured",
        "not comparable",
    ]
    assert (tmp_path / "t").read_text() == " ".join(["right", "other"] * 4)


def test_an_arm_that_fails_leaves_the_others(tmp_path: Path) -> None:
    comparison = Comparison(2, seconds)
    broken = fake(tmp_path / "t", "broken", fails="no such thing")
    comparison.run("case", [broken, fake(tmp_path / "t", "whole")])
    assert [row.status for row in comparison.rows] == ["not measured", "measured"]
    assert comparison.rows[0].note == "status 1: no such thing"
    assert (tmp_path / "t").read_text() == "whole whole"


def test_a_rival_that_cannot_be_installed_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(rival: Rival) -> Path:
        raise RivalMissing(f"{rival.name}: pip failed")

    monkeypatch.setattr(interleave, "python_of", missing)
    theirs = Arm(name="theirs", module="x", spec={}, rival=Rival(name="theirs"))
    comparison = Comparison(1, seconds)
    comparison.run("case", [fake(tmp_path / "t", "ours"), theirs])
    assert comparison.rows[1].status == "not measured"
    assert comparison.rows[1].note == "theirs: pip failed"


def test_a_failed_process_is_told_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(ArmFailed, match="status 1: the reason"):
        run(fake(tmp_path / "t", "A", fails="the reason"), {})


def test_a_real_arm_runs_in_its_own_process() -> None:
    spec = {"impl": "dense", "batch": 16, "width": 4, "threads": 1, "device": "cpu", "repeats": 1}
    found = run(Arm(name="dense", module="benchmarks.speed.loss_arm", spec=spec), {"batch": 12})
    assert found["seconds"] > 0 and found["warmup_seconds"] > 0 and found["peak_mib"] >= 0
    assert found["versions"]["torch"]
    assert not difference([found], [found])
