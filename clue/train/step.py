"""One optimisation step: a packed batch in, better weights and what was seen out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from clue.data.batches import Batch
from clue.train.losses import contrastive_loss
from clue.train.packing import Budget, pack


@dataclass(frozen=True)
class StepReport:
    """What one step showed, over all processes; `loss` in nats, `scale` is 1/temperature."""

    loss: float
    in_batch_recall: float
    masked: float
    scale: float
    grad_norm: float


def train_step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    batch: Batch,
    budget: Budget,
    *,
    clip: float,
) -> StepReport:
    """Takes one step on `batch`, this process's part of it.

    Raises FloatingPointError where the loss or the gradient is not finite; the weights are then as
    they were before the step.
    """
    views, identity = pack(batch, budget, accelerator.device)
    with accelerator.autocast():  # said here too: accelerate wraps no model that FSDP2 shards
        users, scale = model(views)
    half = len(batch.user)
    contrast = contrastive_loss(users[:half], users[half:], scale, identity)
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    accelerator.backward(contrast.loss)
    norm = accelerator.clip_grad_norm_(model.parameters(), clip)
    assert norm is not None
    report = StepReport(
        loss=contrast.loss.item(),
        in_batch_recall=contrast.recall.item(),
        masked=contrast.masked.item(),
        scale=scale.item(),
        grad_norm=float(norm),
    )
    if not np.isfinite([report.loss, report.grad_norm]).all():
        raise FloatingPointError(
            f"loss {report.loss}, gradient norm {report.grad_norm}: not finite; resume from the "
            "last checkpoint with a lower optimizer.lr"
        )
    for optimizer in optimizers:
        optimizer.step()
    return report
