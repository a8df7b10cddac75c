"""The record of a run: JSON lines always, trackers beside them, and lines or a drawing to watch."""

import json
import math
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator

from clue.atomic import write_text
from clue.config import to_yaml
from clue.evaluation.matching import mean_entropy
from clue.monitor.alerts import Alarms, Alert
from clue.monitor.console import (
    Console,
    RunStatus,
    Validation,
    chance_of,
    duration,
    recall_text,
    speed_texts,
)
from clue.monitor.throughput import StepTiming, Throughput, ThroughputMeter
from clue.run.objectives.base import Drawn, Objective
from clue.run.pretrain_config import PretrainConfig
from clue.train.phases import Progress
from clue.train.step import StepReport

PROJECT = "clue"  # of the trackers: runs are compared within a project


class RunLog:
    """Writes RUN/log.jsonl and RUN/config.yaml, on the main process alone; a context manager.

    Each line has `step` and `kind`: "start" (the machine, and the peak that MFU is measured
    against), "train" (the fields of StepReport and Speed, and lr), "valid" (entropy, the mean over
    `matching`, figures by pair of services, or those of `next_item`), "phase" (where the optimiser
    changes) or "alarm" (name, message). What is not finite is null.
    """

    def __init__(
        self,
        config: PretrainConfig,
        accelerator: Accelerator,
        objective: Objective,
        *,
        chunk_tokens: int,
        first: int,
        progress: Progress,
    ) -> None:
        """`first` steps are done already: lines of later ones, from before a kill, are dropped."""
        self.progress = progress
        self.config, self.accelerator, self.task = config, accelerator, objective.task
        self.active = accelerator.is_main_process
        self.meter = ThroughputMeter(objective.flops, accelerator)
        self.alarms = Alarms()
        self.status = RunStatus(config.name, config.steps, first=first, step=first)
        self.screen = Console(self.status, active=self.active)
        if not self.active:
            return
        config.run.mkdir(parents=True, exist_ok=True)
        write_text(config.run / "config.yaml", to_yaml(config))
        self.path = config.run / "log.jsonl"
        old = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        kept = [line for line in old if _step_of(line) <= first]
        write_text(self.path, "".join(line + "\n" for line in kept))
        for line in map(json.loads, kept):
            if line["kind"] == "valid" and line["entropy"] is not None:
                self._held(line["step"], line[self.task])
        if first < config.steps and progress.phase != "done":
            with torch.device("meta"):  # weights without memory, to be counted
                parameters = sum(weight.numel() for weight in objective.model().parameters())
            self._start(parameters, chunk_tokens)

    def __enter__(self) -> "RunLog":
        """Return itself, drawing on the terminal."""
        self.screen.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the drawing and the trackers; say what the run came to, unless it failed."""
        self.screen.__exit__(kind, error, trace)
        if self.config.trackers:
            self.accelerator.end_training()
        if error is None:
            self._say(*self._summary())

    def train(self, step: int, report: StepReport, lr: float, spent: StepTiming) -> None:
        """Note one finished step; write it when `log_every` says so."""
        self.meter.add(report.work, spent)
        status = self.status
        status.step, status.lr = step, lr
        status.loss, status.grad_norm = report.loss, report.grad_norm
        status.recall = report.figures.get("in_batch_recall")
        status.scale = report.figures.get("scale")
        status.losses.append(report.loss)
        self._raise(step, self.alarms.see_loss(step, report.loss))
        if step % self.config.log_every == 0 or step == self.config.steps:
            self._logged(step, report, lr, self.meter.read())
        self.screen.draw()

    def _logged(self, step: int, report: StepReport, lr: float, speed: Throughput) -> None:
        status = self.status
        status.speed = speed
        seen = {"loss": report.loss, **report.figures, "grad_norm": report.grad_norm}
        self._write({"kind": "train", "step": step, **seen, "lr": lr, **asdict(speed)})
        self._track({"train": {**seen, "lr": lr}, "speed": asdict(speed)}, step)
        words = [f"loss {report.loss:.3f}"]
        words += [] if status.recall is None else [f"recall {status.recall:.3f}"]
        words += [*speed_texts(speed), f"{duration(status.left())} left"]
        self._say(f"step {step}/{status.steps}  {'  '.join(words)}", drawn=True)
        self._raise(step, self.alarms.see_logged(status.scale, speed.data_wait))

    def valid(self, step: int, metrics: dict[str, dict[str, float]]) -> None:
        """Write the held-out figures of one step, where there are any."""
        if not metrics:
            return
        held = self._held(step, metrics)
        self._write({"kind": "valid", "step": step, "entropy": held.entropy, self.task: metrics})
        self._track({f"valid/{name}": figures for name, figures in metrics.items()}, step)
        for name, figures in metrics.items():
            self._say(
                f"step {step}  valid {name}: "
                f"{recall_text(figures['recall_at_10'], chance_of(figures))}  "
                f"CE_{figures['negatives']:.0f} {mean_entropy({name: figures}):.3f}"
            )
        self.screen.draw()

    def phase(self, step: int, progress: Progress) -> None:
        """Write and say where a phase of the optimiser ended, if one did at `step`."""
        before, self.progress = self.progress, progress
        if progress.phase == before.phase:
            return
        self._write({"kind": "phase", "step": step, **asdict(progress)})
        next_one = f"SGD at {self.config.optimizer.sgd_lr:g} from here on"
        self._say(
            f"step {step}  held-out loss has not fallen below {progress.best:.4g} in "
            f"{self.config.optimizer.patience} measurements: "
            + (next_one if progress.phase == "sgd" else "done")
        )

    def saved(self, step: int) -> None:
        """Note that there is a checkpoint of `step`."""
        self.status.saved = step
        self.screen.draw()

    @contextmanager
    def guard(self, step: int, batch: Drawn) -> Generator[None]:
        """Save the batch of a step that is not finite, and raise what says all of it.

        Every process saves its part and raises: loss and gradient norm are over all processes.
        """
        try:
            yield
        except FloatingPointError as error:
            rank, world = self.accelerator.process_index, self.accelerator.num_processes
            part = f"_rank_{rank}" if world > 1 else ""
            file = self.config.run / f"failed_step_{step:08d}{part}.npz"
            self.config.run.mkdir(parents=True, exist_ok=True)
            np.savez(file, **{k: v for k, v in vars(batch).items() if v is not None})
            message = (
                f"step {step} is not finite: {error}. Begin again under another name= with a lower "
                "optimizer.lr, a longer optimizer.warmup_steps or precision=fp32; the checkpoints "
                f"before it are whole. Its batch is {type(batch).__name__}(**numpy.load('{file}'))"
            )
            self._write({"kind": "alarm", "step": step, "name": "not_finite", "message": message})
            raise FloatingPointError(message) from error

    def _start(self, parameters: int, chunk_tokens: int) -> None:
        """Write what the run runs on, and hand the config to the trackers."""
        peak, accelerator = self.meter.peak, self.accelerator
        processes = accelerator.num_processes
        machine = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "torch": version("torch"),
            "device": str(accelerator.device),
            "processes": processes,
            "precision": self.meter.precision,
            "parameters": parameters,
            "chunk_tokens": chunk_tokens,  # a resumed run is bitwise the same at the same one
            "peak_flops": peak.flops,
            "peak_source": peak.source,
        }
        self._write({"kind": "start", "step": self.status.first, **machine})
        self._say(
            f"{self.config.name}: {parameters / 1e6:.2f} M parameters, {processes} x "
            f"{accelerator.device.type} in {self.meter.precision}, peak {peak.flops / 1e12:.3g} "
            f"TFLOP/s each ({peak.source})"
        )
        if self.config.trackers:
            name, run = self.config.name, str(self.config.run)
            self.accelerator.init_trackers(
                PROJECT,
                config=flat(asdict(self.config)),
                init_kwargs={
                    "wandb": {"name": name, "group": name, "dir": run},
                    "trackio": {"name": name, "resume": "allow"},
                },
            )

    def _held(self, step: int, metrics: dict[str, dict[str, float]]) -> Validation:
        each = list(metrics.values())
        entropy = mean_entropy(metrics)
        recall = sum(figures["recall_at_10"] for figures in each) / len(each)
        held = Validation(step, entropy, recall, sum(map(chance_of, each)) / len(each))
        best = self.status.best
        self.status.latest = held
        if math.isfinite(entropy) and (best is None or entropy < best.entropy):
            self.status.best = held
        return held

    def _raise(self, step: int, alarms: list[Alert]) -> None:
        self.status.alerts = [alarm.message for alarm in self.alarms.raised.values()]
        for alarm in alarms:
            self._write({"kind": "alarm", "step": step, **asdict(alarm)})
            self._say(f"alarm at step {step}: {alarm.message}", drawn=True)

    def _summary(self) -> list[str]:
        status, config = self.status, self.config
        said = [f"{config.run}: step {status.step} of {status.steps}"]
        if status.step > status.first:
            said[0] += f", {duration(status.passed())} for {status.step - status.first} steps"
        if status.step < status.steps and self.progress.phase != "done":
            return [*said, "  stopped early; the same command goes on from there"]
        pointer = config.run / "best"
        if status.best is not None and pointer.is_file():
            path = config.run / "checkpoints" / pointer.read_text(encoding="utf-8").strip()
            said.append(f"  best held-out {status.best}: {path}")
        return [
            *said,
            f"  next: clue embed checkpoint={config.run} "
            f"corpus={config.corpus} out=embeddings/{config.name}.parquet",
        ]

    def _write(self, line: dict[str, Any]) -> None:
        if self.active:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(_finite(line), allow_nan=False) + "\n")

    def _say(self, *lines: str, drawn: bool = False) -> None:
        """Write lines to the error stream; not those that the drawing, where there is one, has."""
        if self.active and not (drawn and self.screen.live):
            for line in lines:
                sys.stderr.write(line + "\n")

    def _track(self, groups: dict[str, dict[str, float]], step: int) -> None:
        """Hand the finite figures to the trackers as group/figure."""
        if self.config.trackers:
            values = {
                f"{group}/{name}": value
                for group, figures in groups.items()
                for name, value in figures.items()
                if math.isfinite(value)
            }
            self.accelerator.log(values, step=step)


def installed(trackers: Sequence[str]) -> Sequence[str]:
    """Return the trackers back.

    Raises ValueError for one that is not installed, which Accelerate would silently leave out.
    """
    for name in trackers:
        try:
            version(name)
        except PackageNotFoundError:
            others = ", ".join(other for other in trackers if other != name)
            raise ValueError(
                f"trackers names {name}, which is not installed; pip install {name}, or set "
                f"trackers=[{others}]"
            ) from None
    return trackers


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, int | float | str | bool]:
    """Return the leaves of nested dicts by dotted key; what is no number or text becomes text."""
    leaves: dict[str, int | float | str | bool] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves |= flat(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value if isinstance(value, int | float | str) else str(value)
    return leaves


def _finite(value: Any) -> Any:
    """Return the same with None for every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _finite(below) for key, below in cast("dict[str, Any]", value).items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _step_of(line: str) -> int:
    """Return the step of a log line; a line torn by a kill is as if of no step that stays."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return sys.maxsize
