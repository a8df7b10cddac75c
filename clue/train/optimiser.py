"""AdamW or Muon over the groups this model needs, SGD after them, and the rate of every step.

How a rate goes over from one width and depth to others: clue/train/transfer.py.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from clue.nn.universal import UniversalEncoder
from clue.train.transfer import Base, parts_of

MOMENTUM = 0.95  # Muon's, as in all of its published runs (Jordan 2024)
SGD_MOMENTUM = 0.9  # the customary one; a lasting gradient moves a weight by 10 x sgd_lr x it


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimiser, its schedule, and whether the weights are averaged.

    `kind`: AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), or Muon for the hidden matrices
    (Jordan 2024, kellerjordan.github.io/posts/muon) with AdamW for the rest. Muon's update is
    scaled to AdamW's typical size (Liu et al. 2025, arXiv 2502.16982), so that one `lr` and one
    `weight_decay` serve both.

    `schedule`: after a linear warm-up, `cosine` to `final_lr_share` of the peak; or `wsd`, constant
    and in the last `decay_share` of the steps down to the same, so that a run may branch off
    another's constant phase (Hu et al. 2024, arXiv 2404.06395); or `constant`, `lr` for ever, where
    nobody knows the length of the run.

    `patience` is how many held-out measurements in a row without a lower loss end a phase; 0 lets
    the run go to its last step. A loss is lower by more than `min_gain` nats: at a small rate SGD
    creeps downwards for ever. Where `sgd_lr` is positive, a phase of SGD at that rate follows
    the first one (`make_sgd`, clue/train/phases.py); else the run ends with it.

    `base_width` is the width at which `lr` was found, None where it was found at this one, and
    `base_layers` the depth of each stack of blocks there, None where no rule for depth is wanted
    (clue/train/transfer.py). `ema` is the decay per step of the average of the weights that is
    evaluated and saved, 0 for none.
    """

    kind: Literal["adamw", "muon"] = "muon"
    lr: float = 8e-3
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)  # AdamW's decay rates of the two moments.
    eps: float = 1e-6  # AdamW's addend to the denominator.
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    warmup_steps: int = 30  # Steps in which the rate rises to its peak in a line.
    decay_share: float = 0.2
    final_lr_share: float = 0.1
    patience: int = 0
    min_gain: float = 0.0
    sgd_lr: float = 0.0
    base_width: int | None = None
    base_layers: int | None = None
    ema: float = 0.0
    clip: float = 1.0  # The greatest norm of the gradient; a longer one is shortened to it.

    def __post_init__(self) -> None:
        """Validate rates, shares and widths."""
        if self.lr <= 0:
            raise ValueError(f"lr is {self.lr}; it must be positive, such as 2e-3")
        if not 0 <= self.decay_share <= 1:
            raise ValueError(f"decay_share is {self.decay_share}; it is a share of steps, 0 to 1")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; it must be 0 (off) or below 1, such as .999")
        if self.base_width is not None and self.base_width < 1:
            raise ValueError(f"base_width is {self.base_width}; give a width, or null for no rule")
        if self.base_layers is not None and (self.base_layers < 1 or self.base_width is None):
            raise ValueError(
                f"base_layers is {self.base_layers} and base_width {self.base_width}; give a depth "
                "and the width that it goes with, or null for no rule"
            )
        if self.patience < 0:
            raise ValueError(f"patience is {self.patience}; it must be 0 (off) or more, such as 5")
        if self.min_gain < 0:
            raise ValueError(
                f"min_gain is {self.min_gain}; it must be 0 or more nats, such as 1e-4"
            )
        if self.sgd_lr < 0:
            raise ValueError(f"sgd_lr is {self.sgd_lr}; it must be 0 (no SGD) or positive")
        if self.sgd_lr > 0 and self.patience == 0:
            raise ValueError(
                f"sgd_lr is {self.sgd_lr} and patience is 0: the phase before SGD would never end; "
                "set patience, such as 5, or sgd_lr=0"
            )

    @property
    def base(self) -> Base:
        """The size at which `lr` was found."""
        return Base(self.base_width, self.base_layers)


def make_optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Return AdamW over all of `model`, or Muon over the hidden matrices and AdamW over the rest.

    Matrices decay. Embeddings, norms, temperature and bias do not: decay pulls a temperature
    towards 1 and unlearns rare tokens between their few gradients. Every group carries `lr_share`,
    its part of the scheduled rate.
    """
    adamw, muon = parameter_groups(model, config)
    # Fused on the CPU too: a step over 18 million numbers took .014 s there instead of .122.
    rest = torch.optim.AdamW(adamw, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
    if config.kind == "adamw":
        return [rest]
    hidden = torch.optim.Muon(muon, lr=config.lr, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw")
    return [hidden, rest]


def make_sgd(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return SGD with momentum .9 (Nesterov's off) over all of `model`: the second phase.

        b <- .9 b + g,   w <- w - sgd_lr b,   b = g in its first step

    Nothing of the first phase enters: no moments, no decay, no shares. AdamW's decay is decoupled
    and comes to lr x weight_decay; the one of SGD would join the gradient and its momentum and come
    to sgd_lr x weight_decay, another strength under the same name. So the weights are no longer
    pulled to 0. The rule of `base_width` follows from the size of AdamW's and Muon's updates, which
    SGD's do not have: `sgd_lr` is a rate for this size alone. Gradients are clipped as before.
    Memory for b is taken at the first step.
    """
    group = {"params": list(model.parameters()), "lr_share": 1.0}
    return torch.optim.SGD([group], lr=config.sgd_lr, momentum=SGD_MOMENTUM)


def parameter_groups(
    model: nn.Module, config: OptimizerConfig
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return AdamW's groups and Muon's, none for Muon where `kind` is adamw.

    Hidden are the blocks' matrices and the two that read item vectors, `enter` and `bag`.
    The last matrix, `leave`, is the model's output and stays with AdamW, as in Muon's recipe. The
    three parts of `qkv` are one matrix to Muon, as they are one parameter.
    """
    groups: dict[tuple[bool, float, float, float], list[nn.Parameter]] = {}
    rate_share = model.rate_share if isinstance(model, UniversalEncoder) else None
    weights = dict(model.named_parameters())
    for name, part in parts_of(model, config.base).items():
        by_muon = config.kind == "muon" and part.matrix and not name.endswith("leave.weight")
        share = part.rate(by_muon) * (rate_share(name) if rate_share else 1.0)
        decay = config.weight_decay / share if part.matrix else 0.0
        eps = config.eps if by_muon else config.eps * part.eps
        groups.setdefault((by_muon, share, decay, eps), []).append(weights[name])
    adamw: list[dict[str, Any]] = []
    muon: list[dict[str, Any]] = []
    for (by_muon, share, decay, eps), members in groups.items():
        group = {"params": members, "lr_share": share, "weight_decay": decay}
        if by_muon:
            muon.append(group)
        else:
            adamw.append({**group, "eps": eps})
    return adamw, muon


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Return the rate of step `step` (from 0) of `steps`.

    The decay of `wsd` is 1 - sqrt: better than linear in Haegele et al. 2024, arXiv 2405.18392.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    wsd = config.schedule == "wsd"
    start = decay_start(config, steps) if wsd else config.warmup_steps
    done = min(1.0, max(0, step - start) / max(1, steps - start))
    left = 1 - math.sqrt(done) if wsd else 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * (config.final_lr_share + (1 - config.final_lr_share) * left)


def decay_start(config: OptimizerConfig, steps: int) -> int:
    """Return the first step of the decay of `wsd`: earlier steps do not depend on `steps`."""
    return steps - round(config.decay_share * steps)


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Return every group its share of `rate`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_share"]
