"""Short trainings whose held-out figures a benchmark compares, and a step of one to be timed."""

import json
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import Field

from benchmarks.external.machine import revision
from benchmarks.metrics.bootstrap import student
from benchmarks.speed.report import Row, Spread
from clue.config import load, to_yaml
from clue.data.batches import PairSampler
from clue.data.corpus import Corpus
from clue.monitor.read_log import read_log
from clue.nn.dual_encoder import DualEncoder
from clue.pretrain import STOPPED, pretrain
from clue.run.pretrain_config import PretrainConfig
from clue.train.optimiser import make_optimizers
from clue.train.packing import Budget
from clue.train.step import StepReport, contrastive_forward, train_step

Figures = Mapping[str, float]
Seeds = Annotated[list[int], Field(min_length=2)]  # a difference needs two for its interval
FIGURES = {"entropy": "entropy", "R@10": "recall_at_10"}  # of a table: those of a training
# A run this short never sees a pair twice often enough to memorise it: dropout only slows it.
SHORT = ("model.user.dropout=0", "views.event_dropout=.1", "views.token_dropout=.1")


def short_run(
    file: Path, steps: int, width: int, layers: tuple[int, int], keys: Sequence[str]
) -> PretrainConfig:
    """Return the run of `file` with `keys`, cut to `steps`: one validation, at its end.

    `layers` are those over tokens and over events. The warm-up is at most a sixth of the run.
    """
    ends = [f"steps={steps}", f"validate_every={steps}", f"checkpoint_every={steps}"]
    shape = [f"model.{part}.width={width}" for part in ("item", "user")]
    shape += [f"model.item.layers={layers[0]}", f"model.user.layers={layers[1]}"]
    shape += [f"model.user.embedding={width}", "precision=fp32"]
    keys = ["log_every=20", "trackers=[]", *SHORT, *ends, *shape, *keys]
    config = load(PretrainConfig, file, keys)
    warmup = min(config.optimizer.warmup_steps, steps // 6)
    return replace(config, optimizer=replace(config.optimizer, warmup_steps=warmup))


def train(config: PretrainConfig) -> Figures:
    """Return the held-out figures at the end of a run: entropy (nats), R@10, seconds a step.

    They are kept beside where it lay, RUN.json, so that a command that was cut off goes on; they
    count for the same config and commit alone, and never for uncommitted code. The checkpoints go.
    """
    kept, code = config.runs / f"{config.name}.json", revision()
    key = {"config": to_yaml(config), "commit": code["commit"]}
    if kept.is_file() and not code["uncommitted"]:
        earlier = json.loads(kept.read_text(encoding="utf-8"))
        if earlier.get("key") == key:
            return earlier["figures"]
    shutil.rmtree(config.run, ignore_errors=True)
    if not pretrain(config):  # a signal: what is not finished is no point
        raise SystemExit(STOPPED)
    history = read_log(config.run)
    valid = history.valid[-1].get("matching", {}).values()
    figures = {
        "entropy": statistics.fmean(f["calibrated_entropy"] for f in valid),
        "recall_at_10": statistics.fmean(f["recall_at_10"] for f in valid),
        "negatives": statistics.fmean(f["negatives"] for f in valid),
        "loss": history.train[-1]["loss"],
        "seconds_a_step": statistics.median(line["seconds"] for line in history.train),
    }
    kept.write_text(json.dumps({"key": key, "figures": figures}, indent=1), encoding="utf-8")
    shutil.rmtree(config.run)
    return figures


def reached(runs: Sequence[Figures]) -> dict[str, Spread]:
    """Return what one arm's trainings reached, a value for each seed."""
    return {name: Spread.of([f[key] for f in runs]) for name, key in FIGURES.items()}


def difference_row(arm: str, runs: Sequence[Figures], others: Sequence[Figures]) -> Row:
    """Return the row of what an arm's trainings reached minus others', paired over the seeds."""
    figures = {
        name: paired([f[key] for f in runs], [f[key] for f in others])
        for name, key in FIGURES.items()
    }
    return Row(case="mean difference [95 % interval]", arm=arm, figures=figures)


def paired(a: Sequence[float], b: Sequence[float]) -> Spread:
    """Return the mean of a_i - b_i over n >= 2 seeds and its interval of 95 % by Student's t.

    The mean stands where a spread has its median, the interval where it has its extremes.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean = student(np.array(differences))
    return Spread(mean.value, mean.low, mean.high, tuple(differences))


def make_step(
    config: PretrainConfig, batch: int, *, bf16: bool = False
) -> Callable[[], StepReport]:
    """Return a function that takes a step on `batch` pairs, always the same; no dropout.

    The weights are those of seed 0 and change with every call.
    """
    corpus = Corpus.open(config.corpus)
    pairs = PairSampler(corpus, config.views, batch=batch, seed=0).at(0)
    torch.manual_seed(0)
    model = DualEncoder(config.model, corpus.manifest.vocab_size).eval()
    if bf16:  # around the forward pass alone, as Accelerate does it
        model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    accelerator, loss = Accelerator(cpu=True), config.loss
    shared = {"batch": pairs, "budget": Budget(4096), "loss": loss, "device": accelerator.device}
    return partial(
        train_step,
        accelerator,
        model,
        make_optimizers(model, config.optimizer),
        partial(contrastive_forward, **shared),
        clip=config.optimizer.clip,
    )
