# pyright: standard
from pathlib import Path
from typing import Any

import pytest

from benchmarks.external.environments import Rival, RivalMissing
from benchmarks.speed import interleave
from benchmarks.speed.interleave import (
    Arm,
    ArmFailed,
    Comparison,
    clock_figures,
    difference,
    interleaved,
    run,
)
from tests.forks import forks


def fake(turns: Path, name: str, **spec: Any) -> Arm:
    same = {"name": name, "turns": str(turns), "loss": 2.0, "grad_norm": 1.0, "seconds": [1.0]}
    return Arm(name=name, module="tests.benchmarks.speed.fake_arm", spec=same | spec)


def test_arms_take_turns_and_rows_have_their_medians(tmp_path: Path) -> None:
    turns = tmp_path / "turns"
    comparison = Comparison(3)
    one, two = fake(turns, "A", seconds=[5.0, 1.0, 9.0]), fake(turns, "B", seconds=[4.0])
    comparison.run("case", [one, two])
    assert turns.read_text() == "A B A B A B"
    first, second = comparison.rows
    assert (first.arm, first.status, first.case) == ("A", "measured", "case")
    spread = first.figures["seconds"]
    assert (spread.median, spread.low, spread.high, spread.rounds) == (
        5.0,
        1.0,
        9.0,
        (5.0, 1.0, 9.0),
    )
    assert comparison.median("case", "A", "seconds") == 5.0
    assert comparison.median("case", "B", "seconds") == second.figures["seconds"].median == 4.0
    assert comparison.median("case", "C", "seconds") is None
    assert comparison.ratio("case", "seconds", "A", "B") == 1.25
    assert comparison.ratio("case", "seconds", "A", "C") is None


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
    comparison = Comparison(1)
    comparison.run("case", [fake(tmp_path / "t", "right"), fake(tmp_path / "t", "other", **wrong)])
    assert [row.status for row in comparison.rows] == ["measured", status]
    if status == "not comparable":
        assert comparison.rows[1].note.startswith(next(iter(wrong)))
        assert comparison.median("case", "other", "seconds") is None


def test_a_gate_refuses_what_is_wrong_on_the_small_case_alone(tmp_path: Path) -> None:
    # the gate lays loss = 3 over the spec of both; "other" then says 2 in the timed round only
    comparison = Comparison(1)
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
    comparison = Comparison(2)
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
    comparison = Comparison(1)
    comparison.run("case", [fake(tmp_path / "t", "ours"), theirs])
    assert comparison.rows[1].status == "not measured"
    assert comparison.rows[1].note == "theirs: pip failed"


def test_a_failed_process_is_reported_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(ArmFailed, match="status 1: the reason"):
        run(fake(tmp_path / "t", "A", fails="the reason"), {})


def test_a_real_arm_runs_in_its_own_process() -> None:
    spec = {"impl": "dense", "batch": 16, "width": 4, "threads": 1, "device": "cpu", "repeats": 1}
    result = run(Arm("dense", "benchmarks.speed.loss", spec), {"batch": 12})
    figures = result["figures"]
    assert figures["seconds"] > 0 and figures["warm-up s"] > 0 and figures["peak MiB"] >= 0
    assert result["versions"]["torch"]
    assert not difference([result], [result])


LACKING = {
    "loss": {"numpy", "pyarrow", "jaxtyping", "pydantic", "yaml", "accelerate", "psutil"},
    "step_arm": {"pydantic", "scipy", "duckdb", "tokenizers", "rich", "tensorboard"},
    "loader": {"jaxtyping", "pydantic", "yaml", "accelerate", "psutil"},
}


def test_an_arm_imports_nothing_that_its_rivals_environment_lacks() -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys({}))".format
    codes = [f"{blocked(names)}; import benchmarks.speed.{name}" for name, names in LACKING.items()]
    # torch, which each of them has, imported with all of it lacking
    first = f"names = {set().union(*LACKING.values())}; {blocked('names')}; import torch; "
    first += "[sys.modules.pop(name) for name in names]"
    ended = forks(first, codes, flags=["-W", "ignore"])
    for name, done in zip(LACKING, ended, strict=True):
        assert done.returncode == 0, f"{name}: {done.stderr}"
    assert len(ended) == 3


def test_clocks_are_compared_round_by_round() -> None:
    times = {
        "a": {"processor": [1.0, 2.0, 4.0], "wall": [2.0, 2.0, 2.0]},
        "b": {"processor": [3.0, 1.0, 4.0], "wall": [1.0, 1.0, 1.0]},
    }
    assert set(clock_figures(times, "a", "a")) == {"processor s", "wall s"}
    figures = clock_figures(times, "b", "a")
    assert figures["processor s"].median == 3
    assert (
        figures["processor / a"].rounds == (3.0, 0.5, 1.0) and figures["processor / a"].median == 1
    )
    assert figures["wall / a"].high == 0.5


def test_arms_are_called_in_turn_after_a_warm_up() -> None:
    calls: list[str] = []
    arms = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    times = interleaved(arms, 2)
    assert "".join(calls) == "ab" + "abab"
    assert [len(times[arm][clock]) for arm in "ab" for clock in ("processor", "wall")] == [2] * 4
