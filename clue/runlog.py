"""The record of a run: JSON lines always, trackers beside them, and a line or a bar to watch."""

import json
import sys
from dataclasses import asdict
from types import TracebackType
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from clue.config import PretrainConfig
from clue.durable import write_text
from clue.settings import to_yaml
from clue.train.step import StepReport


class RunLog:
    """Writes RUN/log.jsonl and RUN/config.yaml, on the main process alone; a context manager.

    Each line has `kind`: "train" (step, loss, in_batch_recall, masked, scale, grad_norm, lr,
    pairs_per_s, seconds) or "valid" (step, matching: figures by pair of services).
    """

    def __init__(self, config: PretrainConfig, accelerator: Accelerator, *, first: int) -> None:
        """`first` steps are done already: lines of later ones, from before a kill, are dropped."""
        self.config, self.accelerator = config, accelerator
        self.active = accelerator.is_main_process
        self.bar = tqdm(
            total=config.steps,
            initial=first,
            desc=config.name,
            unit="step",
            disable=not (self.active and sys.stderr.isatty()),
        )
        self.seconds = 0.0
        self.steps = 0
        if not self.active:
            return
        config.run.mkdir(parents=True, exist_ok=True)
        write_text(config.run / "config.yaml", to_yaml(config))
        self.path = config.run / "log.jsonl"
        old = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        kept = [line for line in old if _step_of(line) <= first]
        write_text(self.path, "".join(line + "\n" for line in kept))
        if config.trackers:
            accelerator.init_trackers(config.name)

    def __enter__(self) -> "RunLog":
        """Gives itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the bar and the trackers."""
        self.bar.close()
        if self.config.trackers:
            self.accelerator.end_training()

    def train(self, step: int, report: StepReport, lr: float, seconds: float) -> None:
        """Notes one finished step; writes it when `log_every` says so."""
        self.seconds += seconds
        self.steps += 1
        self.bar.set_postfix(
            loss=f"{report.loss:.3f}",
            recall=f"{report.in_batch_recall:.3f}",
            pairs_per_s=f"{self.config.batch / seconds:.0f}",
        )
        self.bar.update()
        if step % self.config.log_every and step != self.config.steps:
            return
        rate = self.steps * self.config.batch / self.seconds
        line = {"kind": "train", "step": step, **asdict(report), "lr": lr, "pairs_per_s": rate}
        self._write({**line, "seconds": self.seconds / self.steps})
        left = (self.config.steps - step) * self.seconds / self.steps
        self._say(
            f"step {step}/{self.config.steps}  loss {report.loss:.3f}  "
            f"recall {report.in_batch_recall:.3f}  {rate:.0f} pairs/s  {left:.0f} s left"
        )
        self._track({name: value for name, value in line.items() if name != "kind"}, step)
        self.seconds, self.steps = 0.0, 0

    def valid(self, step: int, metrics: dict[str, dict[str, float]]) -> None:
        """Writes the held-out figures of one step, where there are any."""
        if not metrics:
            return
        self._write({"kind": "valid", "step": step, "matching": metrics})
        for name, figures in metrics.items():
            text = (
                f"step {step}  valid {name}: R@10 {figures['recall_at_10']:.3f}  "
                f"CE_{figures['negatives']:.0f} {figures['calibrated_entropy']:.3f}"
            )
            self.bar.write(text, file=sys.stderr) if not self.bar.disable else self._say(text)
            self._track({f"{name}/{key}": value for key, value in figures.items()}, step)

    def _write(self, line: dict[str, Any]) -> None:
        if self.active:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, allow_nan=False) + "\n")

    def _say(self, text: str) -> None:
        if self.active and self.bar.disable:
            sys.stderr.write(text + "\n")

    def _track(self, values: dict[str, Any], step: int) -> None:
        if self.config.trackers:
            self.accelerator.log(values, step=step)


def _step_of(line: str) -> int:
    """Gives the step of a log line; a line torn by a kill is as if of no step that stays."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return sys.maxsize
