"""What a pretraining run is: the parts' own configs side by side. The defaults are the demo."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clue.data.views import ViewsConfig
from clue.nn.model import ClueConfig
from clue.train.optimiser import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """A run: the directory `runs/NAME` that it writes, what it reads, and how it learns.

    `batch` B is the contrastive batch over all processes: every user in it is a negative of every
    other. `validate_every`, `checkpoint_every` and `log_every` count steps. `precision: auto` is
    bf16 where the processor has it. `resume: auto` goes on from the newest checkpoint of the run.

    `chunk_tokens` bounds memory, whatever the batch: items and histories go through the encoders in
    chunks of so many positions, and what does not fit into the free memory is computed twice.
    `compile` compiles the encoders where shapes are fixed: on CUDA in bf16.
    Checkpoints at multiples of `keep_every` stay, none at 0: clue/checkpoint.py has the rule.
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
    keep_every: int = 0
    log_every: int = 10
    chunk_tokens: int | Literal["auto"] = "auto"
    compile: bool = True
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    resume: Literal["auto", "never"] = "auto"
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])

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
        if self.chunk_tokens != "auto" and self.chunk_tokens < 1:
            raise ValueError(f"chunk_tokens is {self.chunk_tokens}; give a positive count or auto")
        if self.keep_every < 0 or self.keep_every % self.checkpoint_every:
            raise ValueError(
                f"keep_every {self.keep_every} is no multiple of checkpoint_every "
                f"{self.checkpoint_every}: what is not written cannot be kept; make it one, or 0"
            )

    @property
    def run(self) -> Path:
        """Where the run's log, config and checkpoints lie."""
        return self.runs / self.name
