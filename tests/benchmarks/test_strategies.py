# pyright: standard

"""The study of the training strategies: which checkpoint is which arm, and the effects by hand."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.strategies import DROPOUTS, Point, StrategiesConfig, effects, measure, table
from clue.config import load
from clue.data.corpus import Corpus
from clue.pretrain import pretrain
from clue.run import checkpoint
from clue.run.pretrain_config import PretrainConfig
from tests.conftest import TinyRun

trainer = import_module("clue.pretrain")  # the file: `clue.pretrain` is its function


def test_the_arm_without_the_switch_is_the_best_of_the_first_phase(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(
        PretrainConfig,
        None,
        [
            *("name=both", f"corpus={tiny_run.corpus}", f"runs={tmp_path}", "trackers=[]"),
            *("objective=next_item", "batch=16", "steps=20", "validate_every=1", "keep_every=1"),
            *("checkpoint_every=1", "decoder.layers=1", "decoder.width=8", "precision=fp32"),
            "optimizer={kind: adamw, schedule: constant, patience: 2, sgd_lr: 0.01, lr: 1.0e-3}",
        ],
    )
    # best of the first phase after step 2, the switch after step 4, the best of all after step 6
    losses = iter([5.0, 4.0, 4.5, 4.6, 4.2, 3.9, 4.1, 4.1])
    known = {"recall_at_10": 0.3, "ndcg_at_10": 0.2, "negatives": 9.0}
    with monkeypatch.context() as patch:
        patch.setattr(
            "clue.run.objectives.next_item.evaluate",
            lambda *_: {"cross_entropy": next(losses), **known},
        )
        assert pretrain(config)
    found = measure(config.run, Corpus.open(tiny_run.corpus))
    assert (found["switch_at"], found["last_step"]) == (4, 8)
    assert (found["without"]["step"], found["without"]["held_out"]) == (2, 4.0)
    assert (found["with"]["step"], found["with"]["held_out"]) == (6, 3.9)
    assert found["with"]["cross_entropy"] != found["without"]["cross_entropy"]
    without = replace(config, name="alone", optimizer=replace(config.optimizer, sgd_lr=0.0))
    losses = iter([5.0, 4.0, 4.5, 4.6])
    with monkeypatch.context() as patch:
        patch.setattr(
            "clue.run.objectives.next_item.evaluate",
            lambda *_: {"cross_entropy": next(losses), **known},
        )
        assert pretrain(without)
    both, alone = (
        checkpoint.find(run.run / "checkpoints/step_00000002") for run in (config, without)
    )
    assert both.sha256["model.safetensors"] == alone.sha256["model.safetensors"]


def test_effects_by_hand() -> None:
    config = StrategiesConfig(sizes={"s": []}, dropout=[0.4, 0.0], seeds=[0, 1])
    losses = {
        ("falling", 0): (5.0, 5.1),
        ("falling", 1): (5.2, 5.4),
        ("constant", 0): (5.3, 5.5),
        ("constant", 1): (5.3, 5.6),
    }
    cells = {
        Point("s", dropout, seed).name: {
            arm: {"cross_entropy": loss, "recall_at_10": 0.1, "ndcg_at_10": 0.05}
            for arm, loss in zip(("with", "without"), losses[dropout, seed], strict=True)
        }
        for dropout in DROPOUTS
        for seed in config.seeds
    }
    found = effects(config, cells)["s"]
    means = {name: round(x["median"], 6) for name, x in found.items()}
    assert means == {"falling dropout": -0.2, "switch to SGD": -0.15, "both": -0.45}
    # two differences -.3 and -.1: t(.975, 1) = 12.706 times sd / sqrt 2 = .1
    low = found["falling dropout"]["low"]
    assert low == pytest.approx(-0.2 - 12.7062 * 0.1, abs=1e-4)
    shown = table({"sizes": {"s": {}}, "seeds": [0, 1], "cells": cells, "effects": {"s": found}})
    assert "| s | falling | with | 5.1000 | 0.1000 | 0.0500 |" in shown


def test_a_study_without_an_interval_is_refused() -> None:
    with pytest.raises(ValueError, match=r"seeds are \[0\]; an interval needs two"):
        StrategiesConfig(sizes={}, dropout=[0.4, 0.0], seeds=[0])
    with pytest.raises(ValueError, match="give the lowest layer's and the top's"):
        StrategiesConfig(sizes={}, dropout=[0.4], seeds=[0, 1])
