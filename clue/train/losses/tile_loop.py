"""The loop over tiles of rows, which gives a contrastive loss and its gradients, on any world."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from clue.train.distributed import (
    all_gather,
    all_reduce_sum,
    log_of_summed_exponentials,
    reduce_scatter_sum,
    world_size,
)
from clue.train.losses import tiles
from clue.train.losses.tiles import Tile, TileStats


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the rows of this process, whose columns are those from `first` on, are compared.

    C candidates are the `count` B columns of all processes and then the hard negatives. `kinds` are
    ids of the first or of all candidates: equal ones are no negatives. `repeated` (rows,) tells
    which rows share one. `log_q` (C,) is that of the candidates.
    """

    kind: Literal["infonce", "sigmoid"]
    smoothing: float
    first: int
    count: int
    kinds: list[Tensor]
    repeated: Tensor
    log_q: Tensor | None

    def tiles(
        self, a: Tensor, candidates: Tensor, scale: Tensor
    ) -> Iterator[tuple[slice, Tile, bool]]:
        """Return rows, their tile, and whether it is to be compiled.

        Compiled tiles all have one shape and all masks, which cost nothing there, so that nothing
        compiles twice; rows left over at the end run eagerly. On the CPU comparing ids costs a
        quarter of a tile's time (.74 s against .59 at B = 4,096), so that tiles without a repeated
        id go without.
        """
        size = tiles.rows_per_tile(len(candidates), a.device)
        for start in range(0, len(a), size):
            part = slice(start, min(start + size, len(a)))
            own = torch.arange(self.first + part.start, self.first + part.stop, device=a.device)
            compiles = a.device.type in tiles.COMPILED and len(own) == size
            kinds = self.kinds if compiles or self.repeated[part].any() else []
            tile = Tile(
                queries=a[part] * scale,
                candidates=candidates,
                own=own,
                kinds=tuple((kind[own], kind) for kind in kinds),
                log_q=None if self.log_q is None else (self.log_q[own], self.log_q),
            )
            yield part, tile, compiles


class TileLoop(torch.autograd.Function):
    """Return loss, recall, share masked and mean cosines; gradients to all but the plan."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        hard: Tensor | None,
        plan: Plan,
    ) -> tuple[Tensor, ...]:
        """Return what `ContrastiveOutput` holds, in its order."""
        with torch.autocast(a.device.type, enabled=False):
            candidates = all_gather(b, hard)
            if bias is not None:
                seen, total, complete = _sigmoid(plan, a, candidates, scale, bias)
            else:
                seen, total, complete = _infonce(plan, a, candidates, scale)
            own, logits = seen.own.sum(), seen.total.sum()
            total, recalled, masked, own, logits = all_reduce_sum(
                torch.stack([total, seen.recalled.sum(), seen.masked.sum(), own, logits])
            )
        ctx.save_for_backward(a, candidates, scale, bias, *complete)
        ctx.plan = plan
        ctx.terms = plan.count * (1 if bias is not None else 2)  # InfoNCE: rows and columns
        count, compared = plan.count, plan.count * len(candidates)
        negatives = (compared - masked - count).clamp_min(1)  # a lone pair has none
        shown = recalled / count, masked / compared, own / scale[0] / count
        shown = *shown, (logits - own) / scale[0] / negatives
        ctx.mark_non_differentiable(*shown)
        return total / ctx.terms, *shown

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients, times the number of processes."""
        a, candidates, scale, bias, *complete = ctx.saved_tensors
        plan: Plan = ctx.plan
        # x world: data-parallel training divides by it, and this process holds one part of the sum
        weight = gradients[0] * world_size() / ctx.terms
        grad_a = torch.empty_like(a)
        grad_candidates = torch.zeros_like(candidates)
        grad_scale = torch.zeros_like(scale)
        grad_bias = None if bias is None else torch.zeros_like(bias)
        with torch.autocast(a.device.type, enabled=False):
            for part, tile, compiles in plan.tiles(a, candidates, scale):
                if bias is not None:
                    slope = _run(tiles.sigmoid_slope, compiles)(tile, bias)
                else:
                    rows, columns, row_smoothing, column_smoothing = complete
                    slope = _run(tiles.infonce_slope, compiles)(
                        tile,
                        (rows[part], columns),
                        (row_smoothing[part], column_smoothing),
                        1 - plan.smoothing,
                    )
                cosine_slope = (slope @ candidates).mul_(weight)
                grad_scale += (cosine_slope * a[part]).sum()
                grad_a[part] = cosine_slope * scale
                grad_candidates.addmm_(slope.T, tile.queries * weight)
                if grad_bias is not None:
                    grad_bias += slope.sum() * weight
        grad_b = reduce_scatter_sum(grad_candidates[: plan.count])
        grad_hard = None
        if len(candidates) > plan.count:
            grad_hard = reduce_scatter_sum(grad_candidates[plan.count :])
        return grad_a, grad_b, grad_scale, grad_bias, grad_hard, None


def _run(function: Callable[..., Any], compiles: bool) -> Callable[..., Any]:
    return tiles.compiled(function) if compiles else function


def _sigmoid(
    plan: Plan, a: Tensor, candidates: Tensor, scale: Tensor, bias: Tensor
) -> tuple[TileStats, Tensor, tuple[Tensor, ...]]:
    """Return what was seen, this process's sum of losses, and what the slopes need: nothing."""
    seen, rows = TileStats(*a.new_empty(4, len(a))), a.new_empty(1, len(a))
    for part, tile, compiles in plan.tiles(a, candidates, scale):
        tile_seen, losses = _run(tiles.sigmoid_sums, compiles)(tile, bias)
        _store(part, (*tile_seen, losses), (*seen, *rows))
    return seen, rows.sum(), ()


def _infonce(
    plan: Plan, a: Tensor, candidates: Tensor, scale: Tensor
) -> tuple[TileStats, Tensor, tuple[Tensor, ...]]:
    """Return what was seen, this process's sum of losses, and for the slopes the log-sum-exps per
    row and per column (C,), and the smoothing's weight on each unmasked candidate of them.
    """
    seen, (row_log_sums, row_totals) = TileStats(*a.new_empty(4, len(a))), a.new_empty(2, len(a))
    columns = a.new_full((plan.count,), -torch.inf)
    column_totals, column_masked = a.new_zeros(2, plan.count)
    for part, tile, compiles in plan.tiles(a, candidates, scale):
        tile_seen, sums = _run(tiles.infonce_sums, compiles)(tile, plan.count)
        _store(part, (*tile_seen, *sums.rows), (*seen, row_log_sums, row_totals))
        torch.logaddexp(columns, sums.columns[0], out=columns)
        column_totals += sums.columns[1]
        column_masked += sums.columns[2]
    columns = log_of_summed_exponentials(columns)
    column_totals, column_masked = all_reduce_sum(torch.stack([column_totals, column_masked]))
    column_counts = plan.count - column_masked
    row_counts = len(candidates) - seen.masked

    local = slice(plan.first, plan.first + len(a))
    own = seen.own if plan.log_q is None else seen.own - plan.log_q[local]
    means = row_totals / row_counts + column_totals[local] / column_counts[local]
    target = 2 * (1 - plan.smoothing) * own + plan.smoothing * means
    loss = (row_log_sums + columns[local] - target).sum()
    hard = columns.new_full((len(candidates) - plan.count,), torch.inf)  # no column of theirs
    return (
        seen,
        loss,
        (
            row_log_sums,
            torch.cat([columns, hard]),
            plan.smoothing / row_counts,
            plan.smoothing / torch.cat([column_counts, hard]),
        ),
    )


def _store(part: slice, values: tuple[Tensor, ...], whole: tuple[Tensor, ...]) -> None:
    """Copy what a tile found to its rows of `whole`, so that nothing of the tile stays alive.

    Small tensors kept from each tile nibble at the hole that its logits leave in the heap, and the
    next tile finds no place there: 557 MiB against 92 at B = 8,192.
    """
    for rows, into in zip(values, whole, strict=True):
        into[part] = rows
