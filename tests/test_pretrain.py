"""The trainer: resume equals straight to the last bit, and what cannot work is refused by name."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Literal

import pytest
import torch

from clue.config import load
from clue.data.batches import Batch
from clue.data.corpus import Corpus
from clue.data.ingest.prepare_config import PrepareConfig
from clue.run import checkpoint
from clue.run.objectives.contrastive import Contrastive
from clue.run.pretrain_config import PretrainConfig
from clue.synthetic.world import SyntheticConfig
from tests.conftest import ROOT, TinyRun
from tests.processes import spawn, train

trainer = import_module("clue.pretrain")  # the file: `clue.pretrain` is its function

Step = Callable[..., object]


@pytest.fixture
def config(tiny_run: TinyRun, tmp_path: Path) -> PretrainConfig:
    """Eight steps with dropout, so that a resume must also repeat the random numbers."""
    return load(
        PretrainConfig,
        None,
        [
            *("name=short", f"corpus={tiny_run.corpus}", f"runs={tmp_path}", "trackers=[]"),
            *("batch=32", "steps=8", "validate_every=4", "checkpoint_every=3", "log_every=1"),
            *("model.item.width=16", "model.item.layers=1", "model.item.dropout=.1"),
            *("model.user.width=16", "model.user.layers=1", "model.user.dropout=.1"),
            *("model.user.embedding=8", "precision=fp32", "views.event_dropout=.2"),
        ],
    )


def interrupted(config: PretrainConfig, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains until a real SIGTERM arrives during step `at`."""
    real, calls = trainer.train_step, [0]

    def step(*args: object, **keywords: object) -> object:
        calls[0] += 1
        if calls[0] == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **keywords)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", step)
        assert not trainer.pretrain(config)


@pytest.mark.parametrize(("kind", "ema"), [("adamw", 0.0), ("muon", 0.9)])
def test_resume_equals_straight_bitwise(
    config: PretrainConfig,
    monkeypatch: pytest.MonkeyPatch,
    kind: Literal["adamw", "muon"],
    ema: float,
) -> None:
    learner = replace(config.optimizer, kind=kind, ema=ema)
    config = replace(config, optimizer=learner)
    straight, stopped = replace(config, name="straight"), replace(config, name="stopped")
    assert trainer.pretrain(straight)
    interrupted(stopped, 5, monkeypatch)
    last = checkpoint.find_last(stopped.run)
    assert last is not None
    assert last.step == 5
    assert trainer.pretrain(stopped)
    one, other = (checkpoint.find_last(c.run) for c in (straight, stopped))
    assert one is not None
    assert other is not None
    assert one.step == other.step == 8
    states = sorted(path.name for path in one.path.glob("*.safetensors"))
    assert ("trained.safetensors" in states) == (ema > 0)
    for name in states:
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes()
    kept = ("step", "loss", "grad_norm", "in_batch_recall", "scale", "matching")
    logs = [
        [
            {key: value for key, value in line.items() if key in kept}
            for line in map(json.loads, (c.run / "log.jsonl").read_text().splitlines())
            if line["kind"] in ("train", "valid")
        ]
        for c in (straight, stopped)
    ]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 8 + 2


def test_a_finished_run_is_left_as_it_is(config: PretrainConfig) -> None:
    trainer.pretrain(config)
    before = {p: p.stat().st_mtime_ns for p in (config.run / "checkpoints").rglob("*")}
    trainer.pretrain(config)
    assert before == {p: p.stat().st_mtime_ns for p in (config.run / "checkpoints").rglob("*")}


def test_the_newest_and_the_best_checkpoints_stay(config: PretrainConfig) -> None:
    trainer.pretrain(replace(config, checkpoint_every=1))
    kept = sorted(p.name for p in (config.run / "checkpoints").iterdir())
    best = (config.run / "best").read_text().strip()
    assert set(kept) == {"step_00000007", "step_00000008", best}
    scores = [
        json.loads(line)["matching"]
        for line in (config.run / "log.jsonl").read_text().splitlines()
        if '"valid"' in line
    ]
    assert trainer.mean_entropy(checkpoint.find(config.run).metrics) == min(
        map(trainer.mean_entropy, scores)
    )


def test_a_damaged_checkpoint_is_refused(config: PretrainConfig) -> None:
    trainer.pretrain(config)
    file = checkpoint.find(config.run).path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        checkpoint.find(config.run)


def test_training_learns_what_the_world_planted(tiny_run: TinyRun, config: PretrainConfig) -> None:
    longer = load(
        PretrainConfig,
        None,
        [
            *(f"corpus={tiny_run.corpus}", f"runs={config.runs}", "trackers=[]", "batch=128"),
            "precision=fp32",
            *("steps=90", "validate_every=90", "checkpoint_every=90", "optimizer.warmup_steps=5"),
            *("model.item.width=32", "model.item.layers=1", "model.user.width=32"),
            *("model.user.layers=1", "model.user.embedding=32", "optimizer.lr=5e-3"),
        ],
    )
    train(longer)
    log = [json.loads(x) for x in (longer.run / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in log if line["kind"] == "train"]
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 5000}, r"batch 5000 takes .* users but the corpus's training split has"),
        ({"corpus": Path("nowhere")}, "nowhere"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    config: PretrainConfig, change: dict[str, object], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        trainer.pretrain(replace(config, **change))  # pyright: ignore[reportArgumentType]
    assert not (config.run / "checkpoints").exists()


def test_texts_longer_than_the_encoder_reads_are_refused(config: PretrainConfig) -> None:
    longest = Corpus.open(config.corpus).manifest.max_item_tokens
    item = replace(config.model.item, max_tokens=longest - 1)
    with pytest.raises(ValueError, match=rf"set model\.item\.max_tokens={longest}"):
        trainer.pretrain(replace(config, model=replace(config.model, item=item)))


def test_a_run_of_another_config_is_not_continued(config: PretrainConfig) -> None:
    trainer.pretrain(replace(config, steps=1))
    with pytest.raises(ValueError, match="begun with another batch, steps"):
        trainer.pretrain(replace(config, batch=16))
    with pytest.raises(ValueError, match="resume=never"):
        trainer.pretrain(replace(config, resume="never"))


def test_divergence_is_an_error_and_leaves_no_checkpoint(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clue.train.phases.learning_rate", lambda *_: 1e30)
    with pytest.raises(FloatingPointError, match=r"lower optimizer\.lr"):
        trainer.pretrain(config)
    assert not (config.run / "last").exists()
    assert list(config.run.glob("failed_step_0000000?.npz"))


def test_the_command_line_names_a_wrong_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["clue/pretrain.py", "modle.item.width=8"])
    with pytest.raises(SystemExit, match="2"):
        trainer.main()
    assert re.search(r"unknown key modle.*model", capsys.readouterr().err)


def test_the_demo_corpus_is_the_one_that_its_yaml_describes() -> None:
    recipe = trainer.demo_recipe(SyntheticConfig(), PretrainConfig().corpus)
    described = load(PrepareConfig, ROOT / "configs/prepare/synthetic.yaml")
    assert replace(recipe, out=None) == described
    assert load(PretrainConfig, ROOT / "configs/pretrain/demo_contrastive.yaml") == PretrainConfig()


def train_in_one_of_two(rank: int, world: int, config: PretrainConfig) -> None:
    assert trainer.pretrain(config)


def test_two_processes_take_the_same_steps_as_one(config: PretrainConfig) -> None:
    plain = replace(
        config,
        steps=3,
        # Muon orthogonalises in bf16: a gradient's last bits change its update by 1 %
        optimizer=replace(config.optimizer, kind="adamw", lr=2e-3, base_width=8, base_layers=2),
        nested=True,
        model=replace(
            config.model,
            item=replace(config.model.item, dropout=0.0),
            user=replace(config.model.user, dropout=0.0),
        ),
    )
    trainer.pretrain(replace(plain, name="one"))
    spawn(train_in_one_of_two, replace(plain, name="two"), world=2)
    one, two = (checkpoint.find_last(config.runs / name) for name in ("one", "two"))
    assert one is not None
    assert two is not None
    theirs = two.weights()
    for name, weight in one.weights().items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-4, atol=1e-5)


def test_no_batch_is_drawn_beyond_the_last_step(tiny_run: TinyRun) -> None:
    config = PretrainConfig(corpus=tiny_run.corpus, batch=8)
    drawn: list[int] = []

    class Counting(Contrastive):
        def draw(self, step: int, rank: int = 0, world: int = 1) -> Batch:
            drawn.append(step)
            return super().draw(step, rank, world)

    objective = Counting(config, Corpus.open(tiny_run.corpus))
    for steps in (range(3, 6), range(2, 2)):
        drawn.clear()
        seen = [step for step, _, _ in trainer.drawn_ahead(objective, steps, 0, 1)]
        assert seen == drawn == [*steps]
