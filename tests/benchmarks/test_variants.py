"""Variants: the last common step, what differs by name, and refusals."""

import json
from pathlib import Path

import pytest

from benchmarks.variants import read, table
from clue.config import load, to_yaml
from clue.run.pretrain_config import PretrainConfig


def run(folder: Path, name: str, steps: list[int], *overrides: str) -> Path:
    place = folder / name
    place.mkdir()
    config = load(PretrainConfig, None, [f"name={name}", *overrides])
    (place / "config.yaml").write_text(to_yaml(config))
    pairs = {"a-b": (10, 0.5), "a-c": (99, 0.25), "b-c": (10, 0.1)}
    lines = [
        {
            "kind": "valid",
            "step": step,
            "entropy": 5 - step / 100,
            "matching": {
                pair: {"gallery": gallery, "calibrated_entropy": 4.0, "recall_at_10": recall}
                for pair, (gallery, recall) in pairs.items()
            },
        }
        for step in steps
    ]
    lines.append({"kind": "train", "step": 999})
    (place / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


def test_runs_are_compared_at_the_last_step_they_share(tmp_path: Path) -> None:
    base = run(tmp_path, "base", [50, 100, 150])
    wide = run(tmp_path, "wide", [50, 100], "model.user.width=256", "log_every=5")
    one, other = read([base, wide])
    assert (one.changes, one.step, one.entropy) == ("", 100, 4.0)
    assert other.changes == "model.user.width=256, log_every=5"
    assert (one.pair, one.recall_at_10, one.others) == ("a-c", 0.25, pytest.approx(0.3))
    assert read([base], "a-b")[0].recall_at_10 == 0.5
    assert table([one, other]).splitlines()[2] == (
        "| none, 100 steps | 4.000 | 4.000 | 0.250 | 0.300 |"
    )


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    base, late = run(tmp_path, "base", [50]), run(tmp_path, "late", [60])
    with pytest.raises(ValueError, match="no common step"):
        read([base, late])
    with pytest.raises(ValueError, match="pair=x-y was not measured; there are a-b, a-c, b-c"):
        read([base], "x-y")
    with pytest.raises(FileNotFoundError, match="give the directories of pretraining runs"):
        read([tmp_path / "nowhere"])
