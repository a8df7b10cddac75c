"""AdamW with the groups this model needs, and the learning rate as a function of the step."""

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019), linear warm-up, cosine to `final_lr_share` of the peak."""

    lr: float = 2e-3
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    warmup_steps: int = 30
    final_lr_share: float = 0.1
    clip: float = 1.0


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Gives AdamW over `model`: matrices decay; embeddings, norms and the temperature do not.

    Decay pulls a temperature towards 1 and unlearns rare tokens between their few gradients.
    """
    embeddings = {
        id(weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for weight in module.parameters()
    }
    decayed = [w for w in model.parameters() if w.ndim >= 2 and id(w) not in embeddings]
    others = [w for w in model.parameters() if w.ndim < 2 or id(w) in embeddings]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    fused = all(weight.is_cuda for weight in model.parameters())
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused or None
    )


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Gives the rate of step `step` (from 0) of `steps`."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return config.lr * (config.final_lr_share + (1 - config.final_lr_share) * cosine)
