"""What a run writes down: every figure finite, alarms once, trackers real, a bad batch kept."""

# pyright: standard
import json
import math
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from clue.config import load
from clue.data.batches import Batch, PairSampler
from clue.data.corpus import Corpus
from clue.evaluation.matching import mean_entropy
from clue.monitor import run_log
from clue.monitor.run_log import flat, installed
from clue.monitor.throughput import StepTiming
from clue.nn.dual_encoder import DualEncoder
from clue.pretrain import pretrain
from clue.run.objectives.contrastive import Contrastive
from clue.run.pretrain_config import PretrainConfig
from clue.train.flops import Work, step_flops
from clue.train.losses.contrastive import LossConfig
from clue.train.packing import Budget
from clue.train.phases import Progress
from clue.train.step import contrastive_forward, train_step
from tests.conftest import TinyRun
from tests.processes import spawn

trainer = import_module("clue.pretrain")  # the file: `clue.pretrain` is its function

SPEED = {
    *("pairs_per_s", "tokens_per_s", "events_per_item", "packing", "model_flops", "mfu", "hfu"),
    *("data_wait", "seconds", "memory_bytes", "recompiles"),
}
STEP = {"loss", "in_batch_recall", "masked", "scale", "grad_norm", "lr"}


@pytest.fixture
def config(tiny_run: TinyRun, tmp_path: Path) -> PretrainConfig:
    return load(
        PretrainConfig,
        None,
        [
            *("name=noted", f"corpus={tiny_run.corpus}", f"runs={tmp_path}", "trackers=[]"),
            *("batch=32", "steps=4", "validate_every=2", "checkpoint_every=4", "log_every=2"),
            *("model.item.width=16", "model.user.width=16", "model.user.embedding=8"),
            "precision=fp32",
        ],
    )


def log_of(config: PretrainConfig, kind: str) -> list[dict]:
    lines = (config.run / "log.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


def test_every_figure_is_there_and_finite(config: PretrainConfig) -> None:
    pretrain(config)
    (start,) = log_of(config, "start")
    assert start["peak_flops"] > 1e8
    assert "measured" in start["peak_source"]
    corpus = Corpus.open(config.corpus)
    model = DualEncoder(config.model, corpus.manifest.vocab_size)
    assert start["parameters"] == sum(p.numel() for p in model.parameters())
    lines = log_of(config, "train")
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        assert set(line) >= SPEED | STEP
        assert all(math.isfinite(value) for key, value in line.items() if key != "kind")
        assert 0 < line["mfu"] < line["hfu"]
        assert line["packing"] == 1.0
        assert line["events_per_item"] > 1
        assert 0 <= line["data_wait"] <= 1
        assert line["memory_bytes"] > 10**8
        assert line["recompiles"] == 0
    sampler = PairSampler(corpus, config.views, batch=config.batch, seed=config.seed)
    works = [Work.of(sampler.at(step)) for step in (0, 1)]
    mean = sum(step_flops(config.model, work).model for work in works) / 2
    assert lines[0]["model_flops"] == pytest.approx(mean)
    rate = config.batch / lines[0]["seconds"]
    assert lines[0]["pairs_per_s"] == pytest.approx(rate)
    tokens = sum(work.tokens for work in works) / (2 * lines[0]["seconds"])
    assert lines[0]["tokens_per_s"] == pytest.approx(tokens)
    valid = log_of(config, "valid")
    assert len(valid) == 2
    assert valid[0]["entropy"] == pytest.approx(mean_entropy(valid[0]["matching"]))


def test_what_is_not_finite_is_null(config: PretrainConfig, tmp_path: Path) -> None:
    record = opened(config, first=0)
    record.valid(
        2, {"a-b": {"recall_at_10": 0.5, "negatives": 9.0, "calibrated_entropy": math.nan}}
    )
    (line,) = log_of(config, "valid")
    assert line["entropy"] is None
    assert line["matching"]["a-b"]["calibrated_entropy"] is None


def test_tensorboard_holds_the_figures_and_the_config(config: PretrainConfig) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    pretrain(replace(config, trackers=["tensorboard"]))
    events = EventAccumulator(str(config.run / run_log.PROJECT)).Reload()
    scalars = set(events.scalars.Keys())
    assert scalars >= {f"speed/{name}" for name in SPEED}
    assert scalars >= {f"train/{name}" for name in STEP}
    assert "valid/shop-news/recall_at_10" in scalars
    lines = log_of(config, "train")
    found = {event.step: event.value for event in events.Scalars("train/loss")}
    assert found == {line["step"]: pytest.approx(line["loss"]) for line in lines}
    (hyper,) = (config.run / run_log.PROJECT).rglob("hparams.yml")
    assert "model.item.width: 16" in hyper.read_text()


def test_wandb_takes_the_figures(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    pretrain(replace(config, trackers=["wandb"]))
    assert list((config.run / "wandb").glob("offline-run-*/*.wandb"))


def test_a_tracker_that_is_not_installed_is_refused(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == "wandb":
            raise run_log.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(run_log, "version", version)
    assert installed(["tensorboard", "trackio"]) == ["tensorboard", "trackio"]
    message = r"names wandb, which is not installed; pip install wandb, or set trackers=\[trackio\]"
    with pytest.raises(ValueError, match=message):
        pretrain(replace(config, trackers=["wandb", "trackio"]))
    assert not config.run.exists()
    with pytest.raises(ValueError, match="trackers"):
        load(PretrainConfig, None, ["trackers=[tensorbord]"])


def test_hyperparameters_are_flat_and_plain() -> None:
    tree = {"a": {"b": {"c": 1, "d": (0.9, 0.98)}, "e": Path("x")}, "f": True}
    assert flat(tree) == {"a.b.c": 1, "a.b.d": "(0.9, 0.98)", "a.e": "x", "f": True}


def test_a_resumed_run_remembers_its_best(config: PretrainConfig) -> None:
    pretrain(config)
    best = min(log_of(config, "valid"), key=lambda line: line["entropy"])
    record = opened(config, first=4)
    assert record.status.best is not None
    assert record.status.best.step == best["step"]
    assert record.status.best.entropy == best["entropy"]
    earlier = opened(config, first=2)
    assert earlier.status.best is not None
    assert earlier.status.best.step == 2


def test_a_plain_run_says_its_figures_and_what_comes_next(
    config: PretrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(config)
    said = capsys.readouterr().err
    assert "step 2/4  loss" in said
    assert "MFU" in said
    assert f"{config.run}: step 4 of 4" in said
    place = config.run / "checkpoints" / (config.run / "best").read_text().strip()
    assert str(place) in said
    assert f"clue embed checkpoint={config.run}" in said
    assert "\x1b" not in said


def test_an_alarm_is_written_once_and_said(
    config: PretrainConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "clue.nn.dual_encoder.DualEncoder.scale", lambda self: self.log_scale * 0 + 100.0
    )
    pretrain(replace(config, log_every=1, steps=6))
    (alarm,) = log_of(config, "alarm")
    assert (alarm["name"], alarm["step"]) == ("temperature_high", 3)
    assert f"alarm at step 3: {alarm['message']}" in capsys.readouterr().err


def poisoned(accelerator: Accelerator, config: PretrainConfig, corpus: Corpus) -> torch.nn.Module:
    """Return the model of `config` with a weight that is not a number."""
    torch.manual_seed(0)
    model = DualEncoder(config.model, corpus.manifest.vocab_size)
    with torch.no_grad():
        model.items.token.weight[100:] = torch.nan
    return accelerator.prepare(model)


def opened(
    config: PretrainConfig, *, first: int, accelerator: Accelerator | None = None
) -> run_log.RunLog:
    return run_log.RunLog(
        config,
        accelerator or Accelerator(cpu=True),
        Contrastive(config, Corpus.open(config.corpus)),
        chunk_tokens=64,
        first=first,
        progress=Progress(),
    )


def take(
    accelerator: Accelerator, model: torch.nn.Module, batch: Batch
) -> FloatingPointError | None:
    """Return the error of one step, if any."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    try:
        forward = partial(
            contrastive_forward,
            batch=batch,
            budget=Budget(1000),
            loss=LossConfig(),
            device=accelerator.device,
        )
        train_step(accelerator, model, [optimizer], forward, clip=1.0)
    except FloatingPointError as error:
        return error
    return None


def test_the_batch_that_was_not_finite_fails_again(config: PretrainConfig) -> None:
    corpus = Corpus.open(config.corpus)
    accelerator = Accelerator(cpu=True)
    model = poisoned(accelerator, config, corpus)
    batch = PairSampler(corpus, config.views, batch=config.batch, seed=1).at(7)
    record = opened(config, first=0, accelerator=accelerator)
    error = take(accelerator, model, batch)
    assert error is not None
    with pytest.raises(FloatingPointError) as found, record.guard(8, batch):
        raise error
    file = config.run / "failed_step_00000008.npz"
    assert f"step 8 is not finite: {error}" in str(found.value)
    assert f"numpy.load('{file}')" in str(found.value)
    assert "lower optimizer.lr" in str(found.value)
    (alarm,) = log_of(config, "alarm")
    assert (alarm["name"], alarm["step"]) == ("not_finite", 8)
    saved = Batch(**np.load(file))
    for name, values in vars(batch).items():
        np.testing.assert_array_equal(getattr(saved, name), values)
    again = take(accelerator, model, saved)
    assert str(again) == str(error)
    assert "loss nan" in str(error)


def _one_of(rank: int, world: int, folder: Path, config: PretrainConfig) -> None:
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == world
    corpus = Corpus.open(config.corpus)
    torch.manual_seed(0)
    model = accelerator.prepare(DualEncoder(config.model, corpus.manifest.vocab_size))
    batch = PairSampler(corpus, config.views, batch=config.batch, seed=1).at(0, rank, world)
    record = opened(config, first=0, accelerator=accelerator)
    sound = take(accelerator, model, batch)
    assert sound is None
    record.meter.add(Work.of(batch, world), StepTiming(1.0, 0.1 * rank, 0.5))
    speed = record.meter.read()
    if rank == 1:  # one process alone goes wrong: all must know
        model.module.items.register_forward_hook(lambda *found: found[2] * torch.nan)
    found = None
    try:
        with record.guard(1, batch):
            error = take(accelerator, model, batch)
            if error is not None:
                raise error
    except FloatingPointError as error:
        found = str(error)
    assert found is not None
    told = {"error": found, "pairs": speed.pairs_per_s, "wait": speed.data_wait}
    told |= {"tokens": speed.tokens_per_s, "flops": speed.model_flops}
    (folder / f"{rank}.json").write_text(json.dumps(told))


def test_processes_are_counted_together_and_fail_together(
    config: PretrainConfig, tmp_path: Path
) -> None:
    spawn(_one_of, tmp_path, config, world=2)
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for rank in (0, 1):
        file = config.run / f"failed_step_00000001_rank_{rank}.npz"
        assert len(Batch(**np.load(file)).user) == config.batch // 2
        assert str(file) in told[rank]["error"]
    sampler = PairSampler(Corpus.open(config.corpus), config.views, batch=config.batch, seed=1)
    works = [Work.of(sampler.at(0, rank, 2), 2) for rank in (0, 1)]
    assert told[0]["tokens"] == told[1]["tokens"] == sum(work.tokens for work in works)
    assert told[0]["pairs"] == config.batch
    assert told[0]["wait"] == 0.1
    total = sum(step_flops(config.model, work).model for work in works)
    assert told[0]["flops"] == pytest.approx(total)
