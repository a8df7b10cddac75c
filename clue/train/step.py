"""One optimisation step: a packed batch in, better weights and what was seen out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.tensor import DTensor

from clue.data.batches import Batch
from clue.train.flops import Work
from clue.train.losses import LossConfig, contrastive_loss
from clue.train.packing import Budget, pack


@dataclass(frozen=True)
class StepReport:
    """What one step showed, over all processes; `loss` in nats, `scale` is 1/temperature.

    `positive` and `negative` are mean cosines; `work` is what this process alone computed.
    """

    loss: float
    in_batch_recall: float
    masked: float
    positive: float
    negative: float
    scale: float
    grad_norm: float
    work: Work


def train_step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    batch: Batch,
    budget: Budget,
    *,
    loss: LossConfig,
    clip: float,
) -> StepReport:
    """Takes one step on `batch`, this process's part of it.

    Raises FloatingPointError where the loss or the gradient is not finite; the weights are then as
    they were before the step.
    """
    views, identity = pack(batch, budget, accelerator.device)
    if not loss.log_q:
        identity = replace(identity, log_q=None)
    with accelerator.autocast():  # said here too: accelerate wraps no model that FSDP2 shards
        users, scale, bias = model(views)
    half = len(batch.user)
    contrast = contrastive_loss(users[:half], users[half:], scale, identity, loss, bias=bias)
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    accelerator.backward(contrast.loss)
    norm = accelerator.clip_grad_norm_(model.parameters(), clip)
    assert norm is not None
    seen = {
        "loss": contrast.loss,
        "in_batch_recall": contrast.recall,
        "masked": contrast.masked,
        "positive": contrast.positive,
        "negative": contrast.negative,
        "scale": scale,
        "grad_norm": norm,
    }
    report = StepReport(**_numbers(seen), work=Work.of(batch, accelerator.num_processes, views))
    if not np.isfinite([report.loss, report.grad_norm]).all():
        raise FloatingPointError(f"loss {report.loss}, gradient norm {report.grad_norm}")
    for optimizer in optimizers:
        optimizer.step()
    return report


def _numbers(seen: dict[str, torch.Tensor]) -> dict[str, float]:
    """Gives one-element tensors as numbers, in one transfer: each `item()` waits for the device.

    A sharded model's gradient norm lies in parts: every process must come here.
    """
    whole = [v.full_tensor() if isinstance(v, DTensor) else v for v in seen.values()]
    flat = torch.cat([value.detach().float().reshape(1) for value in whole])
    return dict(zip(seen, flat.tolist(), strict=True))
