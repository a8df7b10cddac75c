"""The loss of next-item models over a catalogue, in tiles, exact on any number of processes.

Cross-entropy of the next item, with logits s_t.e_j of T states and the vectors of V items:
    loss = 1/total sum_t [ log Z_t - s_t.e_target ],    Z_t = sum_j exp s_t.e_j
The sampled softmax estimates Z_t from the target and K items drawn with probabilities q:
    Z_t = exp s_t.e_target + sum_{k: item k is not the target} exp(s_t.e_k) / (K q_k)
which is importance sampling (Bengio & Senecal 2008, "Adaptive Importance Sampling to Accelerate
Training of a Neural Probabilistic Language Model"), unbiased for Z_t. The target is in Z_t with
certainty, so that its own logit is not corrected; to correct it as well is common, and biased
(Khrylchenko et al. 2025, arXiv 2507.09331).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from clue.train.distributed import all_reduce_sum, world_size
from clue.train.losses.tiles import rows_per_tile


@dataclass(frozen=True)
class Sample:
    """K items drawn for all positions, with `log_expected` = log(K q); `own` are the vectors of the
    targets, which get a gradient as those of the items do.
    """

    ids: Int[Tensor, " K"]
    log_expected: Float[Tensor, " K"]
    own: Float[Tensor, "T D"]


def next_item_loss(
    states: Float[Tensor, "T D"],
    targets: Int[Tensor, " T"],
    table: Float[Tensor, "C D"],
    *,
    total: int,
    sample: Sample | None = None,
) -> Float[Tensor, ""]:
    """Return the cross-entropy in nats, the mean over the `total` positions of all processes.

    `states` and `targets` are this process's part, of any length. `table` holds the vectors of the
    catalogue, C = V, or with a `sample` those of its items, C = K. All is in fp32 from here on
    (fp64 stays) whatever autocast says. Gradients to `states`, `table` and `sample.own` come out
    multiplied by the number of processes, since data-parallel training averages them. Raises
    ValueError at a target outside the catalogue, on the CPU alone: elsewhere a look would wait for
    the device.
    """
    if sample is None:
        _check(targets, len(table))
    dtype = torch.promote_types(states.dtype, torch.float32)
    vectors = [states, table, None if sample is None else sample.own]
    vectors = [x if x is None else x.to(dtype) for x in vectors]
    if not torch.is_grad_enabled():  # of which a Function is not told
        vectors = [x if x is None else x.detach() for x in vectors]
    return CrossEntropy.apply(*vectors, targets, sample, total)  # pyright: ignore[reportGeneralTypeIssues]


@torch.no_grad()
def item_losses(
    states: Float[Tensor, "T D"], targets: Int[Tensor, " T"], table: Float[Tensor, "V D"]
) -> Float[Tensor, " T"]:
    """Return each position's cross-entropy in nats over the whole catalogue, without gradient.

    The held-out loss, whichever softmax trained. Raises ValueError as `next_item_loss` does.
    """
    _check(targets, len(table))
    dtype = torch.promote_types(states.dtype, torch.float32)
    states, table = states.to(dtype), table.to(dtype)
    losses = states.new_empty(len(states))
    with torch.autocast(states.device.type, enabled=False):
        for part, log_p, index in _tiles(states, table, None, targets, None):
            losses[part] = -log_p[index]
    return losses


class CrossEntropy(torch.autograd.Function):
    """Return the loss; its gradients are made along with it.

    The loss is one number, so that the forward pass knows them but for a factor: three matrix
    products instead of the four of a tile made twice, at T x D + C x D numbers kept. On one thread
    a step takes .106 s at T = 4,096, V = 3,416, D = 64, the dense cross-entropy .211, and .403
    against .663 at T = 2,048, V = 18,000, D = 128.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        table: Tensor,
        own: Tensor | None,
        targets: Tensor,
        sample: Sample | None,
        total: int,
    ) -> Tensor:
        """Return the mean over the positions of all processes."""
        learns = any(ctx.needs_input_grad)
        losses = states.new_empty(len(states))
        gradients = [
            torch.empty_like(states),
            torch.zeros_like(table),
            None if own is None else torch.empty_like(own),
        ]
        with torch.autocast(states.device.type, enabled=False):
            for part, log_p, index in _tiles(states, table, own, targets, sample):
                losses[part] = -log_p[index]
                if learns:
                    slope = log_p.exp_()
                    slope[index] -= 1
                    _add_gradients(part, slope, (states, table, own), gradients)
        if learns:
            # x world: data-parallel training divides by it, and the sum's other parts are elsewhere
            ctx.weight = world_size() / total
            ctx.save_for_backward(*gradients)
        return all_reduce_sum(losses.sum() / total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients, times the number of processes."""
        weight = upstream * ctx.weight
        return *(None if x is None else x * weight for x in ctx.saved_tensors), None, None, None


def _add_gradients(
    part: slice,
    slope: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor | None],
    gradients: list[Tensor | None],
) -> None:
    """Add what a tile's slope (R, C) gives to the gradients of states, table and own vectors."""
    states, table, own = inputs
    grad_states, grad_table, grad_own = gradients
    assert grad_states is not None and grad_table is not None
    candidates = slope[:, : len(table)]
    torch.mm(candidates, table, out=grad_states[part])
    grad_table.addmm_(candidates.T, states[part])
    if own is not None and grad_own is not None:
        grad_states[part].addcmul_(slope[:, -1:], own[part])
        torch.mul(slope[:, -1:], states[part], out=grad_own[part])


def _tiles(
    states: Tensor,
    table: Tensor,
    own: Tensor | None,
    targets: Tensor,
    sample: Sample | None,
) -> Iterator[tuple[slice, Tensor, tuple[Tensor, Tensor]]]:
    """Return rows, the log-probabilities (R, C) of their candidates, and the targets' place there.

    With a sample the target stands in one further column. The next tile overwrites the last one.

    Rows as in the contrastive losses, 256 from V = 2,048 on: 64, 128, 256 and 512 take .084, .079,
    .082 and .089 s at T = 4,096, V = 3,416, D = 64 on one thread (.145, .142, .144, .144 at D =
    128), and .261, .251, .239, .233 at T = 2,048, V = 18,000 (.449, .408, .377, .380): the products
    alone are .058 and .116, .183 and .331 of it at 256.
    """
    candidates = len(table) + (own is not None)
    size = min(rows_per_tile(candidates, states.device), len(states))
    buffer = states.new_empty(size, candidates)
    for start in range(0, len(states), size or 1):
        part = slice(start, min(start + size, len(states)))
        columns = targets[part]
        logits = buffer[: len(columns)]
        torch.mm(states[part], table.T, out=logits[:, : len(table)])
        if own is not None and sample is not None:
            drawn = logits[:, :-1]
            drawn -= sample.log_expected
            drawn.masked_fill_(sample.ids == columns[:, None], -torch.inf)
            torch.sum(states[part] * own[part], 1, out=logits[:, -1])
            columns = torch.full_like(columns, len(table))
        index = torch.arange(len(columns), device=columns.device), columns
        yield part, torch.log_softmax(logits, 1, out=logits), index


def _check(targets: Tensor, items: int) -> None:
    if targets.device.type == "cpu" and len(targets):
        low, high = (int(x) for x in targets.aminmax())
        if low < 0 or high >= items:
            raise ValueError(
                f"target {low if low < 0 else high} is outside the catalogue of {items} items, 0 "
                f"to {items - 1}; give the ids that this catalogue was prepared with"
            )
