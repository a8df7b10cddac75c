"""One optimisation step: a packed batch in, better weights and what was seen out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from clue.data.batches import Batch
from clue.nn.attention import Layout
from clue.nn.model import PackedViews
from clue.train.losses import Identity, contrastive_loss


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
    *,
    clip: float,
) -> StepReport:
    """Takes one step on `batch`, this process's part of it.

    Raises FloatingPointError where the loss or the gradient is not finite; the weights are then as
    they were before the step.
    """
    views, identity = to_tensors(batch, accelerator.device)
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


def to_tensors(batch: Batch, device: torch.device | str) -> tuple[PackedViews, Identity]:
    """Gives the batch as the model and the loss read it, on `device`."""

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(device, non_blocking=True)

    views = PackedViews(
        tokens=tensor(batch.tokens),
        items=Layout.of(batch.token_lengths, device),
        events=tensor(batch.events),
        histories=Layout.of(batch.event_lengths, device),
        rows=tensor(batch.rows),
    )
    identity = Identity(tensor(batch.user), tensor(batch.content_a), tensor(batch.content_b))
    return views, identity
