"""What a pretraining run is: the parts' own configs side by side. The defaults are contrastive."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from clue.data.cache import CacheConfig
from clue.data.negatives import SoftmaxConfig
from clue.data.sequences import SequencesConfig
from clue.data.views import ViewsConfig
from clue.data.windows import WindowsConfig
from clue.evaluation.matching import GALLERY
from clue.nn.decoder import DecoderConfig
from clue.nn.dual_encoder import DualEncoderConfig
from clue.nn.predictive import PredictiveConfig
from clue.nn.universal import FactorsConfig
from clue.train.losses.contrastive import LossConfig
from clue.train.optimiser import OptimizerConfig, decay_start

SECTIONS = {
    "contrastive": ("model", "views", "loss"),
    "next_item": ("decoder", "sequences", "softmax"),
    "universal": ("model", "views", "loss", "predictive", "windows", "factors"),
}

Tracker = Literal["tensorboard", "wandb", "trackio"]


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """A run: the directory `runs/NAME` that it writes, what it reads, and how it learns.

    `objective`: the `contrastive` user encoder, which `model`, `views` and `loss` describe; or the
    `next_item` model over item ids, which `decoder`, `sequences` and `softmax` do.

    `batch` B is the contrastive batch over all processes: every user in it is a negative of every
    other; or so many windows of item sequences. `users` is how many training users are learnt from,
    0 for all: the first of one fixed shuffle, so that small subsets lie in larger ones, and nobody
    held out depends on it. `gallery` is the most held-out users told from each other, K + 1.

    `validate_every`, `checkpoint_every` and `log_every` count steps. `precision: auto` is bf16
    where the processor is faster in it. `resume: auto` goes on from the newest checkpoint of the
    run. `trunk` is another run, of the same config but for `steps`, in whose constant phase this
    one begins (clue/run/resume.py). `nested`: fresh weights are leading slices of one draw for all
    sizes, so that those begin alike (clue/train/transfer.py). Checkpoints at multiples of
    `keep_every` stay, none at 0: clue/run/checkpoint.py has the rule. `best_by` is the held-out
    figure that names the best, the loss or a next-item model's NDCG@10: where a model grows too
    sure of itself, its loss rises long before its ranking falls. `warm_start` is a next-item run
    of the same decoder, perhaps over another catalogue, whose weights but for the items' this one
    begins with.

    `chunk_tokens` bounds memory, whatever the batch: items and histories go through the encoders in
    chunks of so many positions, and what does not fit into the free memory is computed twice.
    `compile` compiles the encoders where shapes are fixed: on CUDA in bf16.
    """

    name: str = "demo"  # Of the run, runs/NAME.
    corpus: Path = Path("corpora/demo")  # What `clue/prepare.py` wrote: a directory, s3://, gs://.
    cache: CacheConfig = field(default_factory=CacheConfig)
    runs: Path = Path("runs")  # The directory of all runs.
    seed: int = 0
    nested: bool = False
    users: int = 0
    objective: Literal["contrastive", "next_item", "universal"] = "contrastive"
    model: DualEncoderConfig = field(default_factory=DualEncoderConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    sequences: SequencesConfig = field(default_factory=SequencesConfig)
    softmax: SoftmaxConfig = field(default_factory=SoftmaxConfig)
    predictive: PredictiveConfig = field(default_factory=PredictiveConfig)
    windows: WindowsConfig = field(default_factory=WindowsConfig)
    factors: FactorsConfig = field(default_factory=FactorsConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch: int = 256
    steps: int = 400  # Optimiser steps of the run.
    gallery: int = GALLERY
    validate_every: int = 50
    checkpoint_every: int = 100
    keep_every: int = 0
    best_by: Literal["loss", "ndcg"] = "loss"
    log_every: int = 10
    chunk_tokens: int | Literal["auto"] = "auto"
    compile: bool = True
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    resume: Literal["auto", "never"] = "auto"
    trunk: Path | None = None
    warm_start: Path | None = None
    trackers: list[Tracker] = field(default_factory=lambda: ["tensorboard"])

    def __post_init__(self) -> None:
        """Validate that the sections fit together; touch no disk."""
        for name in ("batch", "steps", "validate_every", "checkpoint_every", "log_every"):
            if getattr(self, name) < (2 if name == "batch" else 1):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a positive count")
        if self.users < 0 or self.gallery < 2:
            raise ValueError(
                f"users is {self.users} and gallery {self.gallery}; give 0 (all) or more users, "
                "and at least 2 in a gallery"
            )
        self._check_objective()
        if self.chunk_tokens != "auto" and self.chunk_tokens < 1:
            raise ValueError(f"chunk_tokens is {self.chunk_tokens}; give a positive count or auto")
        if self.keep_every < 0 or self.keep_every % self.checkpoint_every:
            raise ValueError(
                f"keep_every {self.keep_every} is no multiple of checkpoint_every "
                f"{self.checkpoint_every}: what is not written cannot be kept; make it one, or 0"
            )
        if self.optimizer.schedule == "wsd":
            start = decay_start(self.optimizer, self.steps)
            if start < self.optimizer.warmup_steps:
                raise ValueError(
                    f"optimizer.warmup_steps {self.optimizer.warmup_steps} last longer than the "
                    f"{start} of {self.steps} steps before the decay; raise steps or lower it"
                )
        elif self.trunk is not None:
            raise ValueError(
                f"trunk={self.trunk} needs optimizer.schedule=wsd: a cosine falls from its first "
                "step on, so that no two lengths share their beginning"
            )

    def _check_objective(self) -> None:
        own = SECTIONS[self.objective]
        for name in sorted({name for names in SECTIONS.values() for name in names} - {*own}):
            kind = type(getattr(self, name))
            if getattr(self, name) != kind():
                others = " or ".join(other for other, names in SECTIONS.items() if name in names)
                raise ValueError(
                    f"{name} describes objective: {others}, and this run's is {self.objective}; "
                    f"its own sections are {', '.join(own)}"
                )
        if self.best_by == "ndcg" and self.objective != "next_item":
            raise ValueError("best_by: ndcg is for objective: next_item; matching has no NDCG")
        if self.warm_start is not None and self.objective != "next_item":
            raise ValueError(
                f"warm_start={self.warm_start} is for objective: next_item; a contrastive run goes "
                "on from a trunk"
            )
        if self.views.max_events > self.model.user.max_events:
            raise ValueError(
                f"views.max_events {self.views.max_events} is longer than the user encoder reads; "
                f"raise model.user.max_events {self.model.user.max_events} or lower it"
            )
        if (self.loss.kind == "sigmoid") != (self.model.initial_bias is not None):
            raise ValueError(
                f"loss.kind is {self.loss.kind} and model.initial_bias {self.model.initial_bias}; "
                "the sigmoid loss needs a bias, model.initial_bias=-10 with model.initial_scale=10 "
                "(Zhai et al. 2023), and InfoNCE has none"
            )

    @property
    def narrowest(self) -> int:
        """The least width of the objective's model."""
        if self.objective == "next_item":
            return self.decoder.width
        contrastive = min(self.model.item.width, self.model.user.width)
        return (
            min(contrastive, self.predictive.width)
            if self.objective == "universal"
            else contrastive
        )

    @property
    def run(self) -> Path:
        """Where the run's log, config and checkpoints lie."""
        return self.runs / self.name


# What changes nothing of how the weights move.
FREE = frozenset(
    {
        *("corpus", "cache", "runs", "resume", "trackers", "trunk", "gallery"),
        *("log_every", "validate_every", "checkpoint_every", "keep_every"),
        *("chunk_tokens", "compile"),
    }
)


def changed(before: PretrainConfig, now: PretrainConfig) -> list[str]:
    """Return the keys that change what is learnt and differ between the two configs."""
    # measurements decide when a phase ends
    free = FREE - {"validate_every", "gallery"} if now.optimizer.patience else FREE
    old, new = asdict(before), asdict(now)
    return [key for key in old if key not in free and old[key] != new[key]]
