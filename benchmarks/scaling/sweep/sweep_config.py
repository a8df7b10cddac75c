"""What a sweep is: sizes, and grids of budgets, users, batches, lengths and seeds, in one YAML."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Role = Literal["fit", "held_out", "check"]
Unit = Literal["flops", "steps", "pairs"]
ROLES: tuple[Role, ...] = ("fit", "held_out", "check")  # in the order in which they are trained


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model: of both encoders of the contrastive objective, or of the next-item decoder.

    `item_layers`, `embedding` E and the `bag` in it are of the contrastive objective alone, where
    the first two are `layers` and `width` unless set. Heads are `head` wide at every width: the
    rule for the learning rate (clue/train/optimiser.py) wants them so. `lr` is the learning rate
    that was found for this size. `lr` and `bag` are those of `pretrain` unless set.
    """

    width: int
    layers: int
    item_layers: int | None = None
    embedding: int | None = None
    bag: int | None = None
    head: int = 16
    lr: float | None = None

    def __post_init__(self) -> None:
        """Refuse heads that do not fill the width."""
        if self.head < 1 or self.width < 1 or self.width % self.head:
            raise ValueError(
                f"width {self.width} is not divisible by heads of {self.head}; give a multiple, or "
                "another head"
            )

    def overrides(self, objective: str) -> list[str]:
        """Return what the size changes in a pretraining config.

        Raises ValueError for parts that the objective's model has not.
        """
        heads = self.width // self.head
        shape = [f"width={self.width}", f"heads={heads}"]
        rate = [] if self.lr is None else [f"optimizer.lr={self.lr}"]
        bag = [] if self.bag is None else [f"model.user.bag={self.bag}"]
        if objective == "next_item":
            if (self.item_layers, self.embedding, self.bag) != (None, None, None):
                raise ValueError(
                    "item_layers, embedding and bag describe the contrastive encoders, and the "
                    "objective is next_item; leave them out"
                )
            return [*rate, *(f"decoder.{part}" for part in (*shape, f"layers={self.layers}"))]
        items = self.layers if self.item_layers is None else self.item_layers
        return [
            *rate,
            *(f"model.item.{part}" for part in (*shape, f"layers={items}")),
            *(f"model.user.{part}" for part in (*shape, f"layers={self.layers}")),
            f"model.user.embedding={self.embedding or self.width}",
            *bag,
        ]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All combinations of its lists, each a point; an empty list leaves what `pretrain` says.

    `sizes` are names, none for all; `budgets` are what a run may spend, in `unit` or the sweep's;
    `users` how many training users it learns from, nested subsets, 0 for all; `lengths` the longest
    history that is read; `rates` the learning rates. Points of fewer than `least_steps` or more
    than `most_steps` are left out (0: no limit): so a grid of sizes and FLOPs becomes the band in
    which they suit each other.
    `overrides` are of all its points. Role `held_out` is never fitted: it is what a law must
    predict; `check` is neither. `arm` names what sets its points apart in a comparison.
    """

    sizes: list[str] = field(default_factory=list[str])
    budgets: list[float]
    users: list[int] = field(default_factory=list[int])
    batches: list[int] = field(default_factory=list[int])  # Batches to try.
    lengths: list[int] = field(default_factory=list[int])
    rates: list[float] = field(default_factory=list[float])
    seeds: list[int] = field(default_factory=lambda: [0])  # Seeds to try.
    role: Role = "fit"
    least_steps: int = 0
    most_steps: int = 0
    overrides: list[str] = field(default_factory=list[str])
    unit: Unit | None = None
    arm: str = ""

    def __post_init__(self) -> None:
        """Refuse budgets that buy nothing."""
        if not self.budgets or min(self.budgets) <= 0 or not self.seeds:
            raise ValueError(
                f"budgets are {self.budgets} and seeds {self.seeds}; give at least one positive "
                "budget and one seed"
            )


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """The study: `pretrain` is the config of the run that `sizes` and `grids` vary.

    `gate` is a file of `python -m benchmarks.scaling gate`, of which the sizes have their rates.
    `unit` is what budgets count: FLOPs, steps, or pairs (batch x steps). Points of `roles` alone
    are trained: first `[fit]`; `[fit, held_out]` once their losses are predicted. `most_epochs`
    refuses runs that read their data oftener, 0 allows it.

    All lengths of a run share one trunk: warm-up, constant rate, and in the last `decay_share` of
    each the cooldown. The warm-up is `warmup_share` of the shortest of them that is not held out,
    at most that of `pretrain`. `validations` are the held-out measurements along a trunk. With
    `schedule` own every run keeps the schedule, rhythm and patience of `pretrain`, shares no trunk,
    and its loss is that of its best checkpoint.

    `jobs` points run at once, 0 for one on each GPU, or one where there is none; each has `threads`
    threads, 0 for an equal share of the cores. `dry` prints the plan and trains nothing.
    """

    name: str
    pretrain: Path
    overrides: list[str] = field(default_factory=list[str])  # Pretraining keys of all points.
    unit: Unit = "flops"
    gate: Path | None = None
    schedule: Literal["trunk", "own"] = "trunk"
    sizes: dict[str, Size]
    grids: list[Grid]
    roles: list[Role] = field(default_factory=lambda: ["fit"])
    most_epochs: float = 0.0
    warmup_share: float = 0.1
    decay_share: float = 0.2
    validations: int = 8
    jobs: int = 0
    threads: int = 0
    dry: bool = False
    runs: Path = Path("runs/scaling")  # Where the runs are written.
    out: Path = Path("results/scaling")  # Where tables are written, OUT/NAME.

    def __post_init__(self) -> None:
        """Refuse unknown sizes, and shares that leave no room for each other."""
        if not self.sizes or not self.grids:
            raise ValueError("sizes and grids must hold at least one each")
        rated = [name for name, size in self.sizes.items() if size.lr is not None]
        if self.gate and rated:
            raise ValueError(f"size {rated[0]} has an lr and {self.gate} one too; leave one out")
        for grid in self.grids:
            unknown = [name for name in grid.sizes if name not in self.sizes]
            if unknown:
                raise ValueError(
                    f"grids name the size {unknown[0]}; sizes has {', '.join(self.sizes)}"
                )
        if not (self.warmup_share > 0 and self.decay_share > 0) or (
            self.warmup_share + self.decay_share >= 1
        ):
            raise ValueError(
                f"warmup_share {self.warmup_share} and decay_share {self.decay_share} must be "
                "positive and leave steps of a constant rate between them, such as .1 and .2"
            )
        if self.validations < 1 or self.jobs < 0 or self.threads < 0 or self.most_epochs < 0:
            raise ValueError(
                f"validations {self.validations}, jobs {self.jobs}, threads {self.threads}, "
                f"most_epochs {self.most_epochs}: give at least 1 validation, and no negative count"
            )
