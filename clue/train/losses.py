"""Symmetric InfoNCE over any number of pairs, in O(tile x B) memory, exact on many processes.

loss = 1/(2B) sum_i [ lse_j s_ij + lse_j s_ji - 2 s_ii ],  s_ij = scale a_i . b_j
(van den Oord et al. 2018, arXiv 1807.03748; both directions: Radford et al. 2021, arXiv 2103.00020)

Each process owns its rows `a` and sees all columns `b`, so that only one side is gathered; the
column sums are completed by two all-reduces of (B,), and the gradient of `b` is summed back.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch import distributed as dist

TILE = 1024  # rows of logits alive at once: 4 MiB at B = 1,024 and 128 MiB at B = 32,768


@dataclass(frozen=True)
class Identity:
    """Who the B pairs are, as int64 ids: same user, or same content of a view, is no negative."""

    user: Int[Tensor, " B"]
    content_a: Int[Tensor, " B"]
    content_b: Int[Tensor, " B"]


@dataclass(frozen=True)
class Contrast:
    """The loss (with gradient) and what the batch showed, over all processes.

    `recall` is the share of anchors whose own pair scores highest, `masked` the share of pairs
    left out as false negatives.
    """

    loss: Tensor
    recall: Tensor
    masked: Tensor


def contrastive_loss(
    a: Float[Tensor, "B E"],
    b: Float[Tensor, "B E"],
    scale: Float[Tensor, " 1"],
    identity: Identity,
) -> Contrast:
    """Gives the mean symmetric InfoNCE of pairs (a_i, b_i) over the batch of all processes.

    `a` and `b` are this process's rows, in fp32 from here on whatever autocast says: bf16 logits
    double the gradient error. Gradients come out multiplied by the number of processes, since
    data-parallel training averages them.
    """
    with torch.autocast(a.device.type, enabled=False):
        loss, recall, masked = _InfoNCE.apply(a.float(), b.float(), scale.float(), identity)  # pyright: ignore[reportGeneralTypeIssues]
    return Contrast(loss, recall, masked)


class _InfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, scale: Tensor, identity: Identity
    ) -> tuple[Tensor, Tensor, Tensor]:
        every = _gather(b)
        ids = [(mine, _gather(mine)) for mine in vars(identity).values()]
        first = _rank() * len(a)
        rows = torch.empty(len(a), device=a.device)
        columns = torch.full((len(every),), -torch.inf, device=a.device)
        positive = torch.empty_like(rows)
        hits = torch.zeros(2, device=a.device)  # recalled anchors, masked pairs
        for tile, logits, own, same in _tiles(a, every, scale, ids, first):
            rows[tile] = logits.logsumexp(1)
            columns = torch.logaddexp(columns, logits.logsumexp(0))
            positive[tile] = logits.gather(1, own[:, None])[:, 0]
            hits += torch.stack([(logits.argmax(1) == own).sum(), same.sum()])
        columns = _sum_of_exponentials(columns)
        ctx.save_for_backward(a, every, scale, rows, columns)
        ctx.ids, ctx.first = ids, first
        total = (rows - 2 * positive).sum() + columns[first : first + len(a)].sum()
        count = len(every)
        sums = _reduce(torch.cat([total[None], hits]))
        return sums[0] / (2 * count), sums[1] / count, sums[2] / count**2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        a, every, scale, rows, columns = ctx.saved_tensors
        # x world: data-parallel training divides by it, and this process holds one part of the sum
        weight = gradients[0] * _world() / (2 * len(every))
        grad_a = torch.empty_like(a)
        grad_every = torch.zeros_like(every)
        grad_scale = torch.zeros_like(scale)
        for tile, logits, own, _ in _tiles(a, every, scale, ctx.ids, ctx.first):
            slope = (logits - rows[tile, None]).exp_() + (logits - columns).exp_()
            slope[torch.arange(len(own), device=own.device), own] -= 2
            slope *= weight
            cosine_slope = slope @ every
            grad_scale += (cosine_slope * a[tile]).sum()
            grad_a[tile] = cosine_slope * scale
            grad_every.addmm_(slope.T, a[tile] * scale)
        grad_b = _reduce(grad_every)[ctx.first : ctx.first + len(a)]
        return grad_a, grad_b, grad_scale, None


def _tiles(
    a: Tensor, every: Tensor, scale: Tensor, ids: list[tuple[Tensor, Tensor]], first: int
) -> Iterator[tuple[slice, Tensor, Tensor, Bool[Tensor, "R B"]]]:
    """Gives rows, their masked logits (R, B), each row's own column, and what was masked."""
    for start in range(0, len(a), TILE):
        tile = slice(start, min(start + TILE, len(a)))
        own = torch.arange(first + tile.start, first + tile.stop, device=a.device)
        same = torch.zeros(len(own), len(every), dtype=torch.bool, device=a.device)
        for mine, all_ids in ids:
            same |= mine[tile, None] == all_ids
        same[torch.arange(len(own), device=a.device), own] = False
        logits = (a[tile] * scale) @ every.T
        yield tile, logits.masked_fill_(same, -torch.inf), own, same


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _gather(mine: Tensor) -> Tensor:
    """Gives the rows of all processes, in order; every process must bring as many."""
    if _world() == 1:
        return mine
    parts = [torch.empty_like(mine) for _ in range(_world())]
    dist.all_gather(parts, mine.contiguous())
    return torch.cat(parts)


def _reduce(x: Tensor) -> Tensor:
    if _world() > 1:
        dist.all_reduce(x)
    return x


def _sum_of_exponentials(log_sums: Tensor) -> Tensor:
    """Gives log sum_r exp(log_sums of process r), by the maximum first: no overflow."""
    if _world() == 1:
        return log_sums
    top = log_sums.clone()
    dist.all_reduce(top, op=dist.ReduceOp.MAX)
    return top + _reduce((log_sums - top).exp()).log()
