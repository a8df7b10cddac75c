# pyright: standard
"""The three benchmarks of short trainings, without the trainings."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.speed import lr_width, optim, precision
from benchmarks.speed.__main__ import main
from benchmarks.speed.lr_width import lowest
from benchmarks.speed.optim import best_rate
from benchmarks.speed.report import Row, read_report, recorded
from benchmarks.speed.trainings import paired
from clue.config import load
from clue.run.pretrain_config import PretrainConfig
from clue.train.optimiser import OptimizerConfig

TIMES = {"processor": [1.0, 1.0], "wall": [2.0, 2.0]}
FASTER = {"processor": [0.5, 0.75], "wall": [1.0, 1.5]}


def test_the_grid_grows_until_its_best_is_inside() -> None:
    tried: list[float] = []

    def entropy(rate: float) -> float:
        tried.append(rate)
        return abs(math.log2(rate) - 5.2)

    assert best_rate([2.0, 4.0, 8.0], entropy) == 32
    assert tried == [2, 4, 8, 16, 32, 64]
    tried.clear()
    assert best_rate([128.0, 256.0], entropy) == 32
    assert tried == [128, 256, 64, 32, 16]
    with pytest.raises(ValueError, match="at the edge"):
        best_rate([2.0, 4.0], lambda rate: rate)


def test_the_parabola_by_hand() -> None:
    rates = [1.0, 2.0, 4.0, 8.0]

    def lowest_of(best: float) -> float:
        return lowest(rates, (np.log2(rates) - best) ** 2)

    assert lowest_of(1.25) == pytest.approx(2**1.25)
    assert lowest_of(2.0) == pytest.approx(4)
    assert lowest_of(0.0) == 1 and lowest_of(9.0) == 8


def test_absolute_paths_are_recorded_by_name_alone(tmp_path: Path) -> None:
    fields = recorded(optim.Config(corpus=tmp_path / "food", runs=Path("runs/x")))
    assert (fields["corpus"], fields["runs"]) == ("food", "runs/x")
    assert str(tmp_path) not in json.dumps(fields)


def test_the_split_arm_learns_matrices_slower_and_decays_them_as_adamw_would() -> None:
    config = optim.Config()
    plain = optim.run_of(config, "adamw", 0.5, 1).optimizer
    split = optim.run_of(config, "split", 0.5, 1).optimizer
    assert (plain.kind, plain.base_width, plain.lr) == ("adamw", None, 0.5)
    assert (split.kind, split.base_width, split.lr) == ("adamw", 4, 0.5)  # a 16th at width 64
    assert split.weight_decay == pytest.approx(plain.weight_decay / 16)
    muon = optim.run_of(config, "muon", 0.5, 1).optimizer
    assert (muon.kind, muon.base_width) == ("muon", None)
    assert (muon.weight_decay, muon.warmup_steps) == (plain.weight_decay, plain.warmup_steps)


def test_the_optim_report_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = {"adamw": 1e-3, "split": 3.2e-2, "muon": 3.2e-2}
    floor = {"adamw": 6.5, "split": 6.25, "muon": 6.0}

    def train(run: PretrainConfig) -> dict[str, float]:
        arm = run.name.split("-")[0]
        off = abs(math.log2(run.optimizer.lr / best[arm]))
        entropy = floor[arm] + 0.1 * off + 0.01 * run.seed * (arm == "muon")
        return {"entropy": entropy, "recall_at_10": 0.5, "negatives": 9.0}

    monkeypatch.setattr(optim, "train", train)
    slower = {"processor": [1.25, 1.25], "wall": [2.0, 2.0]}
    times = {"adamw": TIMES, "split": TIMES, "muon": slower}
    monkeypatch.setattr(optim, "step_times", lambda *_: times)
    main(["optim", f"corpus={tmp_path}", "seeds=[1, 2]", f"out={tmp_path}/optim.json"])
    report = read_report(tmp_path / "optim.json")
    assert report.command == "python -m benchmarks.speed optim seeds=[1, 2]"
    assert str(tmp_path) not in (tmp_path / "optim.json").read_text()
    arms = {row.arm: row.figures for row in report.rows}
    assert list(arms) == [
        *("adamw", "adamw, split rates", "muon"),
        *("muon - adamw", "muon - adamw, split rates"),
    ]
    assert [arms[arm]["lr"].median for arm in optim.ARMS.values()] == list(best.values())
    assert arms["muon"]["entropy"].rounds == pytest.approx((6.01, 6.02))
    assert arms["muon - adamw"]["entropy"].median == pytest.approx(-0.485)
    assert arms["muon"]["processor / adamw"].median == 1.25
    winner = OptimizerConfig().kind == "muon"
    assert [claim.holds for claim in report.claims] == [True, True, winner, False]
    assert "chance is 2.303" in report.notes[0]
    trained = [point for point in report.points if "lr" in point]
    tuned = [point["lr"] for point in trained if (point["arm"], point["seed"]) == ("muon", 0)]
    assert tuned == [1.6e-2, 3.2e-2, 6.4e-2]
    assert len(trained) == 3 * 3 + 1 + 3 * 2  # the split arm's first grid had its best at its edge
    assert len(report.points) == len(trained) + 3


def test_the_precision_report_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def point(_: Any, shape: tuple[int, int, int]) -> dict[str, Any]:
        unequal = "loss 2 is not 1" if shape[0] == 16 else ""
        times = {"fp32": TIMES, "bf16": FASTER if shape[0] >= 192 else TIMES}
        return {"shape": shape, "unequal": unequal, "step_seconds": {} if unequal else times}

    def trainings(_: Any, name: str) -> list[dict[str, float]]:
        offset = 0.25 if name == "bf16" else 0.0
        return [{"entropy": seed + offset, "recall_at_10": 0.5} for seed in (1, 2)]

    monkeypatch.setattr(precision, "step_point", point)
    monkeypatch.setattr(precision, "trainings", trainings)
    keys = ["shapes=[[16,0,1],[64,0,2],[192,0,1]]", "seeds=[1,2]", f"out={tmp_path}/p.json"]
    main(["precision", *keys])
    report = read_report(tmp_path / "p.json")
    assert [(row.case, row.arm, row.status) for row in report.rows] == [
        ("width 16, layers 0 + 1", "bf16", "not comparable"),
        ("width 64, layers 0 + 2", "fp32", "measured"),
        ("width 64, layers 0 + 2", "bf16", "measured"),
        ("width 192, layers 0 + 1", "fp32", "measured"),
        ("width 192, layers 0 + 1", "bf16", "measured"),
        ("width 64, layers 0 + 2, 80 steps", "fp32", "measured"),
        ("width 64, layers 0 + 2, 80 steps", "bf16", "measured"),
        ("mean difference [95 % interval]", "bf16 - fp32", "measured"),
    ]
    claims = [(claim.found, claim.holds) for claim in report.claims]
    assert claims == [(0.625, True), (0, True), (0.25, False)]
    assert report.notes[0].startswith("bf16 is faster by both clocks in every round: width 192")
    assert len(report.points) == 3 + 2 * 2


def test_bf16_that_gains_where_it_is_off_fails_the_claim() -> None:
    point = {"shape": (64, 0, 2), "unequal": "", "step_seconds": {"fp32": TIMES, "bf16": FASTER}}
    rows = precision.step_rows(point)
    apart = {"entropy": paired([1.0, 2.0], [1.0, 2.0])}
    rows.append(Row(case="", arm="bf16 - fp32", figures=apart))
    wide, narrow, learnt = precision.claims(rows, [(64, 0, 2), (256, 2, 2)])
    assert (wide.found, wide.holds) == (None, None)  # the wide shape was not timed
    assert (narrow.found, narrow.holds) == (1, False) and "width 64" in narrow.what
    assert (learnt.found, learnt.holds) == (0, True)


def test_the_lr_width_report_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(run: PretrainConfig) -> dict[str, float]:
        width, ruled = run.model.user.width, run.optimizer.base_width is not None
        # planted: with the rule every width is best at 2e-3, without it at 2e-3 x 32 / width
        best = 2e-3 if ruled else 2e-3 * 32 / width
        return {"entropy": math.log2(run.optimizer.lr / best) ** 2 + run.seed / width}

    monkeypatch.setattr(lr_width, "train", train)
    keys = ["rates={adamw: [5e-4, 1e-3, 2e-3, 4e-3]}", "widths=[32, 64, 128]", "seeds=[0, 1]"]
    drawn: list[bytes] = []
    for _ in range(2):
        main(["lr_width", *keys, f"out={tmp_path}/lr_width.json"])
        drawn.append((tmp_path / "lr_width.svg").read_bytes())
    assert drawn[0] == drawn[1]
    report = read_report(tmp_path / "lr_width.json")
    rows = [
        (row.case, row.arm, row.figures["best lr"].median, row.figures["regret"].rounds)
        for row in report.rows
    ]
    assert rows == [
        ("adamw, width 32", "the base", pytest.approx(2e-3), (0, 0)),
        ("adamw, width 64", "with the rule", pytest.approx(2e-3), (0, 0)),
        ("adamw, width 64", "without", pytest.approx(1e-3), pytest.approx((1, 1))),
        ("adamw, width 128", "with the rule", pytest.approx(2e-3), (0, 0)),
        ("adamw, width 128", "without", pytest.approx(5e-4), pytest.approx((4, 4))),
    ]
    (claim,) = report.claims
    assert claim.found == pytest.approx(-4) and claim.holds
    assert report.notes[1].endswith("beyond: adamw, width 128 without.")
    assert len(report.points) == 4 * 2 * 5


def test_what_leaves_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="tuning_seed 1"):
        optim.Config(seeds=[1, 2], tuning_seed=1)
    with pytest.raises(ValueError, match="give a grid to adamw, split, muon"):
        optim.Config(rates={"muon": [1.0]})
    for module, key, message in (
        (optim, "width=40", "width: .* multiple of 16, got 40"),
        (optim, "seeds=[1]", "seeds: .* at least 2 items"),
        (precision, "seeds=[1]", "seeds: .* at least 2 items"),
        (lr_width, "widths=[32, 40]", r"widths\.1: .* multiple of 16, got 40"),
        (lr_width, "widths=[32]", "widths: .* at least 2 items"),
        (lr_width, "rates={adamw: [1.0, 2.0]}", r"rates\.adamw: .* at least 3 items"),
    ):
        with pytest.raises(ValueError, match=message):
            load(module.Config, None, [key])
