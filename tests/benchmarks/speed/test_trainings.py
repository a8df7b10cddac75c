# pyright: standard
import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.speed import trainings
from benchmarks.speed.trainings import paired, short_run, train
from clue.run.pretrain_config import PretrainConfig


def test_a_paired_difference_by_hand() -> None:
    # differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t of 2 degrees at .975 is 4.3027
    spread = paired([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert spread.rounds == (1.0, 2.0, 3.0) and spread.median == 2
    assert spread.high - 2 == pytest.approx(4.3026527 / 3**0.5)
    assert 2 - spread.low == pytest.approx(4.3026527 / 3**0.5)
    with pytest.raises(ValueError, match="shorter"):
        paired([1.0, 2.0], [1.0])


def test_a_short_run_validates_once_and_warms_up_in_a_sixth() -> None:
    file = Path("configs/pretrain/food_kitchen.yaml")
    run = short_run(file, 60, 64, (0, 2), ["optimizer.lr=0.5", "name=x"])
    assert (run.steps, run.validate_every, run.checkpoint_every) == (60, 60, 60)
    assert (run.optimizer.warmup_steps, run.optimizer.lr, run.name) == (10, 0.5, "x")
    assert run.model.user.dropout == 0 and run.trackers == []
    model = run.model
    assert (model.item.width, model.user.width, model.user.embedding) == (64, 64, 64)
    assert (model.item.layers, model.user.layers) == (0, 2)
    assert short_run(file, 9000, 64, (0, 2), []).optimizer.warmup_steps == 100


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

    monkeypatch.setattr(trainings, "pretrain", pretrain)
    config = PretrainConfig(name="p", runs=tmp_path)
    expected = {"entropy": 4.0, "recall_at_10": 0.375, "negatives": 10.0, "loss": 1.0}
    expected |= {"seconds_a_step": 2.0}
    code = {"commit": "abc1234", "uncommitted": False}
    monkeypatch.setattr(trainings, "revision", lambda: code)
    assert train(config) == expected and not config.run.exists()
    assert train(config) == expected and len(trained) == 1
    train(replace(config, seed=1))
    assert len(trained) == 2
    code["commit"] = "def5678"
    train(replace(config, seed=1))
    assert len(trained) == 3
    code["uncommitted"] = True
    train(replace(config, seed=1))
    assert len(trained) == 4
    monkeypatch.setattr(trainings, "pretrain", lambda _: False)
    with pytest.raises(SystemExit, match="143"):
        train(replace(config, name="stopped"))
    assert not (tmp_path / "stopped.json").exists()
