"""One optimisation step: a packed batch in, better weights and what was seen out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from clue.data.batches import Batch
from clue.train.distributed import unsharded, world_size
from clue.train.flops import Work
from clue.train.losses.contrastive import LossConfig, contrastive_loss
from clue.train.packing import Budget, pack


@dataclass(frozen=True)
class Forward:
    """A loss with its gradient, over all processes, in nats, and what else the batch showed.

    `figures` are one-element tensors by name, over all processes; `work` is this process's alone.
    """

    loss: torch.Tensor
    figures: dict[str, torch.Tensor]
    work: Work


@dataclass(frozen=True)
class StepReport:
    """What one step showed, over all processes; `work` is what this process alone computed."""

    loss: float
    grad_norm: float
    figures: dict[str, float]
    work: Work


def train_step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    forward: Callable[[nn.Module], Forward],
    *,
    clip: float,
) -> StepReport:
    """Take one step on what `forward` makes of the model: this process's part of a batch.

    Raises FloatingPointError where the loss or the gradient is not finite; the weights are then as
    they were before the step.
    """
    with accelerator.autocast():  # said here too: accelerate wraps no model that FSDP2 shards
        seen = forward(model)
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    accelerator.backward(seen.loss)
    norm = accelerator.clip_grad_norm_(model.parameters(), clip)
    assert norm is not None
    numbers = _numbers({"loss": seen.loss, "grad_norm": norm, **seen.figures})
    loss, grad_norm = numbers.pop("loss"), numbers.pop("grad_norm")
    if not np.isfinite([loss, grad_norm]).all():
        raise FloatingPointError(f"loss {loss}, gradient norm {grad_norm}")
    for optimizer in optimizers:
        optimizer.step()
    return StepReport(loss, grad_norm, numbers, seen.work)


def contrastive_forward(
    model: nn.Module, batch: Batch, budget: Budget, loss: LossConfig, device: torch.device
) -> Forward:
    """Return the contrastive loss of this process's part of a batch.

    Of the figures, `scale` is 1/temperature, `positive` and `negative` are mean cosines.
    """
    views, identity = pack(batch, budget, device)
    if not loss.log_q:
        identity = replace(identity, log_q=None)
    users, scale, bias = model(views)
    half = len(batch.user)
    contrast = contrastive_loss(users[:half], users[half:], scale, identity, loss, bias=bias)
    figures = {
        "in_batch_recall": contrast.recall,
        "masked": contrast.masked,
        "positive": contrast.positive,
        "negative": contrast.negative,
        "scale": scale,
    }
    return Forward(contrast.loss, figures, Work.of(batch, world_size(), views))


def _numbers(seen: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return one-element tensors as numbers, in one transfer: each `item()` waits for the device.

    A sharded model's gradient norm lies in parts: every process must come here.
    """
    flat = torch.cat([unsharded(value).detach().float().reshape(1) for value in seen.values()])
    return dict(zip(seen, flat.tolist(), strict=True))
