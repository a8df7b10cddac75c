"""What a pretraining run is: the parts' own configs side by side. The defaults are the demo."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clue.data.views import ViewsConfig
from clue.nn.model import ClueConfig
from clue.train.optimiser import OptimizerConfig

Tracker = Literal["tensorboard", "wandb", "trackio"]


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """A run: the directory `runs/NAME` that it writes, what it reads, and how it learns.

    `batch` B is the contrastive batch over all processes: every user in it is a negative of every
    other. `validate_every`, `checkpoint_every` and `log_every` count steps. `precision: auto` is
    bf16 where the processor has it. `resume: auto` goes on from the newest checkpoint of the run.
    """

    name: str = "demo"
    corpus: Path = Path("corpora/demo")
    runs: Path = Path("runs")
    seed: int = 0
    model: ClueConfig = field(default_factory=ClueConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch: int = 256
    steps: int = 400
    validate_every: int = 50
    checkpoint_every: int = 100
    log_every: int = 10
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    resume: Literal["auto", "never"] = "auto"
    trackers: list[Tracker] = field(default_factory=lambda: ["tensorboard"])

    def __post_init__(self) -> None:
        """Refuses what does not fit together; touches no disk."""
        if self.views.max_events > self.model.user.max_events:
            raise ValueError(
                f"views.max_events {self.views.max_events} is longer than the user encoder reads; "
                f"raise model.user.max_events {self.model.user.max_events} or lower it"
            )
        for name in ("batch", "steps", "validate_every", "checkpoint_every", "log_every"):
            if getattr(self, name) < (2 if name == "batch" else 1):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a positive count")

    @property
    def run(self) -> Path:
        """Where the run's log, config and checkpoints lie."""
        return self.runs / self.name
