"""Short trainings whose held-out figures a benchmark compares, and steps timed side by side."""

import json
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from scipy import stats

from benchmarks.speed.report import Spread
from clue.config import load, to_yaml
from clue.data.batches import Batch
from clue.monitor.read_log import read_log
from clue.nn.dual_encoder import DualEncoder
from clue.pretrain import STOPPED, pretrain
from clue.run.pretrain_config import PretrainConfig
from clue.train.optimiser import make_optimizers
from clue.train.packing import Budget
from clue.train.step import StepReport, contrastive_forward, train_step

# A run this short never sees a pair twice often enough to memorise it: dropout only slows it.
SHORT = ("model.user.dropout=0", "views.event_dropout=.1", "views.token_dropout=.1")
Times = Mapping[str, Mapping[str, Sequence[float]]]  # arm -> clock -> seconds of each round


def short_run(file: Path, steps: int, keys: Sequence[str]) -> PretrainConfig:
    """Return the run of `file` with `keys`, cut to `steps`: one validation, at its end.

    The warm-up is at most a sixth of it.
    """
    ends = [f"steps={steps}", f"validate_every={steps}", f"checkpoint_every={steps}"]
    config = load(PretrainConfig, file, ["log_every=20", "trackers=[]", *SHORT, *ends, *keys])
    warmup = min(config.optimizer.warmup_steps, steps // 6)
    return replace(config, optimizer=replace(config.optimizer, warmup_steps=warmup))


def train(config: PretrainConfig, machine: Mapping[str, Any]) -> dict[str, float]:
    """Return the held-out figures at the end of a run: entropy (nats), R@10, seconds a step.

    They are kept beside where it lay, RUN.json, so that a command that was cut off goes on; they
    count for the same config and commit alone (`machine` as `machine.describe` gives it), and never
    for uncommitted code. The checkpoints go.
    """
    kept = config.runs / f"{config.name}.json"
    asked = {"config": to_yaml(config), "commit": machine["commit"]}
    if kept.is_file() and not machine["uncommitted"]:
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found["asked"] == asked:
            return found["figures"]
    shutil.rmtree(config.run, ignore_errors=True)
    if not pretrain(config):  # a signal: what is not finished is no point
        raise SystemExit(STOPPED)
    figures = _figures(config.run)
    kept.write_text(json.dumps({"asked": asked, "figures": figures}, indent=1), encoding="utf-8")
    shutil.rmtree(config.run)
    return figures


def _figures(run: Path) -> dict[str, float]:
    history = read_log(run)
    valid = history.valid[-1].get("matching", {}).values()
    return {
        "entropy": statistics.fmean(f["calibrated_entropy"] for f in valid),
        "recall_at_10": statistics.fmean(f["recall_at_10"] for f in valid),
        "negatives": statistics.fmean(f["negatives"] for f in valid),
        "loss": history.train[-1]["loss"],
        "seconds_a_step": statistics.median(line["seconds"] for line in history.train),
    }


def paired(a: Sequence[float], b: Sequence[float]) -> Spread:
    """Return the mean of a_i - b_i over n >= 2 seeds and its interval of 95 % by Student's t.

    The mean stands where a spread has its median, the interval where it has its extremes.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean, n = statistics.fmean(differences), len(differences)
    half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(differences) / n**0.5
    return Spread(mean, mean - half, mean + half, tuple(differences))


def make_step(
    config: PretrainConfig, vocab_size: int, batch: Batch, *, bf16: bool = False
) -> Callable[[], StepReport]:
    """Return a function that takes a step on `batch`, always the same one; no dropout.

    The weights are those of seed 0 and change with every call.
    """
    torch.manual_seed(0)
    model = DualEncoder(config.model, vocab_size).eval()
    if bf16:  # around the forward pass alone, as Accelerate does it
        model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    optimizers = make_optimizers(model, config.optimizer)
    accelerator, clip = Accelerator(cpu=True), config.optimizer.clip
    forward = partial(
        contrastive_forward,
        batch=batch,
        budget=Budget(4096),
        loss=config.loss,
        device=accelerator.device,
    )

    def step() -> StepReport:
        return train_step(accelerator, model, optimizers, forward, clip=clip)

    return step


def interleaved(
    arms: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Return each arm's wall and processor seconds of `rounds` calls, in turn: A B A B.

    A call before the first, whose time is not kept, warms each arm up.
    """
    for arm in arms.values():
        arm()
    found: dict[str, dict[str, list[float]]] = {n: {"processor": [], "wall": []} for n in arms}
    for _ in range(rounds):
        for name, arm in arms.items():
            wall, processor = time.perf_counter(), time.process_time()
            arm()
            found[name]["processor"].append(time.process_time() - processor)
            found[name]["wall"].append(time.perf_counter() - wall)
    return found


def clock_figures(times: Times, arm: str, reference: str) -> dict[str, Spread]:
    """Return an arm's seconds by both clocks and, round by round, what part of the reference's."""
    figures = {f"{clock} s": Spread.of(seconds) for clock, seconds in times[arm].items()}
    if arm != reference:
        for clock, seconds in times[arm].items():
            ratios = [a / b for a, b in zip(seconds, times[reference][clock], strict=True)]
            figures[f"{clock} / {reference}"] = Spread.of(ratios)
    return figures
