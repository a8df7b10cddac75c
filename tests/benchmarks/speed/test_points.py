# pyright: standard
import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.speed import points
from benchmarks.speed.points import clock_figures, interleaved, paired, short_run, train
from clue.run.pretrain_config import PretrainConfig

CLEAN = {"commit": "abc1234", "uncommitted": False}


def test_a_paired_difference_by_hand() -> None:
    # differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t of 2 degrees at .975 is 4.3027
    found = paired([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert found.rounds == (1.0, 2.0, 3.0) and found.median == 2
    assert found.high - 2 == pytest.approx(4.3026527 / 3**0.5)
    assert 2 - found.low == pytest.approx(4.3026527 / 3**0.5)
    with pytest.raises(ValueError, match="shorter"):
        paired([1.0, 2.0], [1.0])


def test_clocks_are_compared_round_by_round() -> None:
    times = {
        "a": {"processor": [1.0, 2.0, 4.0], "wall": [2.0, 2.0, 2.0]},
        "b": {"processor": [3.0, 1.0, 4.0], "wall": [1.0, 1.0, 1.0]},
    }
    assert set(clock_figures(times, "a", "a")) == {"processor s", "wall s"}
    found = clock_figures(times, "b", "a")
    assert found["processor s"].median == 3
    assert found["processor / a"].rounds == (3.0, 0.5, 1.0) and found["processor / a"].median == 1
    assert found["wall / a"].high == 0.5


def test_arms_are_called_in_turn_after_a_warm_up() -> None:
    calls: list[str] = []
    arms = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    found = interleaved(arms, 2)
    assert "".join(calls) == "ab" + "abab"
    assert [len(found[arm][clock]) for arm in "ab" for clock in ("processor", "wall")] == [2] * 4


def test_a_short_run_validates_once_and_warms_up_in_a_sixth() -> None:
    run = short_run(Path("configs/pretrain/food_kitchen.yaml"), 60, ["optimizer.lr=0.5", "name=x"])
    assert (run.steps, run.validate_every, run.checkpoint_every) == (60, 60, 60)
    assert (run.optimizer.warmup_steps, run.optimizer.lr, run.name) == (10, 0.5, "x")
    assert run.model.user.dropout == 0 and run.trackers == []
    assert (
        short_run(Path("configs/pretrain/food_kitchen.yaml"), 9000, []).optimizer.warmup_steps
        == 100
    )


def test_a_finished_point_is_kept_for_its_config_and_commit_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def pretrain(config: PretrainConfig) -> bool:
        trained.append(config.name)
        pair = {"calibrated_entropy": 3.0, "recall_at_10": 0.5, "negatives": 9}
        other = {"calibrated_entropy": 5.0, "recall_at_10": 0.25, "negatives": 11}
        lines = [
            {"kind": "train", "loss": 2.0, "seconds": 1.0},
            {"kind": "train", "loss": 1.0, "seconds": 3.0},
            {"kind": "valid", "matching": {"x": pair, "y": other}},
        ]
        config.run.mkdir(parents=True)
        (config.run / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return True

    monkeypatch.setattr(points, "pretrain", pretrain)
    config = PretrainConfig(name="p", runs=tmp_path)
    told = {"entropy": 4.0, "recall_at_10": 0.375, "negatives": 10.0, "loss": 1.0}
    told |= {"seconds_a_step": 2.0}
    assert train(config, CLEAN) == told and not config.run.exists()
    assert train(config, CLEAN) == told and len(trained) == 1
    train(replace(config, seed=1), CLEAN)
    assert len(trained) == 2
    train(replace(config, seed=1), CLEAN | {"commit": "def5678"})
    assert len(trained) == 3
    train(replace(config, seed=1), {"commit": "def5678", "uncommitted": True})
    assert len(trained) == 4
    monkeypatch.setattr(points, "pretrain", lambda _: False)
    with pytest.raises(SystemExit, match="143"):
        train(replace(config, name="stopped"), CLEAN)
    assert not (tmp_path / "stopped.json").exists()
