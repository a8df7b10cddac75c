"""One optimisation step: a packed batch in, better weights and what was seen out."""

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.tensor import DTensor

from clue.data.batches import Batch
from clue.nn.attention import Layout
from clue.nn.model import PackedViews
from clue.train.flops import Work
from clue.train.losses import Identity, contrastive_loss


@dataclass(frozen=True)
class StepReport:
    """What one step showed, over all processes; `loss` in nats, `scale` is 1/temperature.

    `work` is what this process alone computed.
    """

    loss: float
    in_batch_recall: float
    masked: float
    scale: float
    grad_norm: float
    work: Work


def train_step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
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
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(contrast.loss)
    norm = accelerator.clip_grad_norm_(model.parameters(), clip)
    assert norm is not None
    seen = {
        "loss": contrast.loss,
        "in_batch_recall": contrast.recall,
        "masked": contrast.masked,
        "scale": scale,
        "grad_norm": norm,
    }
    report = StepReport(**_numbers(seen), work=Work.of(batch, accelerator.num_processes))
    if not np.isfinite([report.loss, report.grad_norm]).all():
        raise FloatingPointError(f"loss {report.loss}, gradient norm {report.grad_norm}")
    optimizer.step()
    return report


def _numbers(seen: dict[str, torch.Tensor]) -> dict[str, float]:
    """Gives one-element tensors as numbers, in one transfer: each `item()` waits for the device.

    A sharded model's gradient norm lies in parts: every process must come here.
    """
    whole = [v.full_tensor() if isinstance(v, DTensor) else v for v in seen.values()]
    flat = torch.cat([value.detach().float().reshape(1) for value in whole])
    return dict(zip(seen, flat.tolist(), strict=True))


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
