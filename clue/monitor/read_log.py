"""A run's log.jsonl read back: its lines by kind, with the types that RunLog writes them in."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

FILE = "log.jsonl"


class StartLine(TypedDict):
    """What the run runs on, written each time it begins: after `step` steps, 0 for a new run."""

    step: int
    parameters: int
    precision: str
    device: str
    processes: int


class TrainLine(TypedDict):
    """One logged step; times and FLOPs are those of one step, the mean since the line before."""

    step: int
    loss: float  # nats
    grad_norm: float
    lr: float
    model_flops: float
    seconds: float
    processor_seconds: float
    pairs_per_s: float


class ValidLine(TypedDict):
    """A held-out measurement; `matching` (by pair of services) or `next_item` holds its figures."""

    step: int
    entropy: float | None  # nats, the mean over the figures; None where it is not finite
    matching: NotRequired[dict[str, dict[str, float]]]
    next_item: NotRequired[dict[str, dict[str, float]]]


class PhaseLine(TypedDict):
    """A change of the optimiser: the fields of clue.train.phases.Progress after `step` steps."""

    step: int
    phase: Literal["first", "sgd", "done"]
    began: int
    best: float | None
    stale: int


class AlarmLine(TypedDict):
    """A warning by name, and what it says."""

    step: int
    name: str
    message: str


@dataclass(frozen=True)
class RunHistory:
    """The lines of a log by kind, each list in the order of the file.

    A line is a dict as it was written: it may hold more keys than its type names.
    """

    start: list[StartLine] = field(default_factory=list[StartLine])
    train: list[TrainLine] = field(default_factory=list[TrainLine])
    valid: list[ValidLine] = field(default_factory=list[ValidLine])
    phase: list[PhaseLine] = field(default_factory=list[PhaseLine])
    alarm: list[AlarmLine] = field(default_factory=list[AlarmLine])

    @property
    def last_step(self) -> int:
        """The last step of any line, 0 for an empty log."""
        kinds = (self.start, self.train, self.valid, self.phase, self.alarm)
        return max((line.get("step", 0) for kind in kinds for line in kind), default=0)


def read_log(run: Path) -> RunHistory:
    """Return the history of the run directory `run`; a last line that a kill tore is left out.

    Raises FileNotFoundError for a run without a log; ValueError, naming file and line, for any
    other line that is no JSON object of a known kind.
    """
    file = run / FILE
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; give the directory of a run (clue pretrain makes one)")
    history = RunHistory()
    lines = file.read_text(encoding="utf-8").splitlines()
    for number, text in enumerate(lines, 1):
        try:
            line: Any = json.loads(text)
            kind = cast("dict[str, Any]", line).pop("kind")
            lines_of_kind: list[Any] = vars(history)[kind]
        except (ValueError, KeyError, AttributeError, TypeError):
            if number == len(lines) and not text.endswith("}"):
                break
            raise ValueError(
                f"{file}:{number} is no line of a run's log: {text[:60]!r}; remove the line, or "
                "resume the run, which drops what was torn"
            ) from None
        lines_of_kind.append(line)
    return history
