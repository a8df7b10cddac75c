"""One tile of the contrastive losses: R rows of logits, their sums, and the slope of the loss.

Pure functions of tensors. A tile is made twice, once for the sums and once for the gradient, and is
never kept, so that memory is O(R x C). On CUDA the functions are compiled: the passes over a tile
then cost more than its matrix products up to widths of 512 (40 bytes a logit against 8 E FLOPs).
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# Rows and logits of a tile. CPU: 512 rows at B = 1,024 and 256 from 2,048 on stay in the cache and
# are as fast as any of 64 to 1,024 at either end. Elsewhere 256 MiB of fp32, so that the tiles of
# 131,072 pairs have 512 rows, enough to fill an accelerator, and four of them fit in 1 GiB.
MIN_ROWS = 256
CPU_TILE = 1 << 19
ACCELERATOR_TILE = 1 << 26
COMPILED = ("cuda",)  # device types whose tiles are compiled


class Tile(NamedTuple):
    """What R rows are compared with, C candidates of which the first B have a row somewhere.

    `queries` (R, E) are the rows times the scale, `candidates` (C, E); `own` (R,) is each row's
    column. `kinds` are pairs of ids, (R,) and those of the first candidates: equal ids, but for the
    row's own column, are no negatives. `log_q`, (R,) and (C,), is subtracted from the logits of the
    candidates: columns for a row, rows for a column.
    """

    queries: Tensor
    candidates: Tensor
    own: Tensor
    kinds: tuple[tuple[Tensor, Tensor], ...]
    log_q: tuple[Tensor, Tensor] | None


class TileStats(NamedTuple):
    """Per row (R,): the own logit, the sum of the unmasked ones, whether the own one is the highest
    of them, and the number masked. Logits are scale x cosine here, without bias and log-Q.
    """

    own: Tensor
    total: Tensor
    recalled: Tensor
    masked: Tensor


class Sums(NamedTuple):
    """Over the unmasked logits less log-Q: log-sum-exp and sum of each row (R,); log-sum-exp and
    sum of the tile's part of each of the first B columns (B,), and how many of it are masked.
    """

    rows: tuple[Tensor, Tensor]
    columns: tuple[Tensor, Tensor, Tensor]


def rows_per_tile(candidates: int, device: torch.device) -> int:
    """Return R, such that a tile holds a fixed number of logits."""
    logits = CPU_TILE if device.type == "cpu" else ACCELERATOR_TILE
    return max(MIN_ROWS, logits // candidates)


def infonce_sums(tile: Tile, count: int) -> tuple[TileStats, Sums]:
    """Return what the tile adds to InfoNCE; `count` is B."""
    logits, same = _logits(tile)
    seen = _see(logits, same, tile.own)
    by_row, by_column = _corrected(logits, tile)
    by_column = by_column[:, :count]
    left_out = None if same is None else same[:, :count]
    masked = logits.new_zeros(count) if left_out is None else left_out.sum(0).to(logits.dtype)
    return seen, Sums(
        (by_row.logsumexp(1), _total(by_row, same, 1)),
        (by_column.logsumexp(0), _total(by_column, left_out, 0), masked),
    )


def infonce_slope(
    tile: Tile,
    log_sums: tuple[Tensor, Tensor],
    smoothing: tuple[Tensor, Tensor],
    own: float,
) -> Tensor:
    """Return the derivative (R, C) to the logits of the cross-entropies of all rows and columns.

    `log_sums` (R,), (C,) are complete, infinite for a column without a row; `smoothing` (R,), (C,)
    is the target of each unmasked candidate, `own` that of the pair beyond it.
    """
    logits, same = _logits(tile)
    by_row, by_column = _corrected(logits, tile)
    slope = (by_row - log_sums[0][:, None]).exp_()
    slope += by_column.sub_(log_sums[1]).exp_()  # may overwrite `logits`, which are done with
    slope -= smoothing[0][:, None]
    slope -= smoothing[1]
    if same is not None:
        slope.masked_fill_(same, 0)
    slope[_steps(tile.own), tile.own] -= 2 * own
    return slope


def sigmoid_sums(tile: Tile, bias: Tensor) -> tuple[TileStats, Tensor]:
    """Return each row's (R,) loss, -sum_j log sigmoid(z_ij (t a_i.b_j + bias))."""
    logits, same = _logits(tile)
    seen = _see(logits, same, tile.own)
    logits += bias
    logits[_steps(tile.own), tile.own] *= -1
    return seen, -functional.logsigmoid(logits.neg_()).sum(1)


def sigmoid_slope(tile: Tile, bias: Tensor) -> Tensor:
    """Return the derivative (R, C) of the rows' losses to the logits."""
    logits, same = _logits(tile)
    logits += bias
    slope = logits.sigmoid_()
    if same is not None:
        slope.masked_fill_(same, 0)
    slope[_steps(tile.own), tile.own] -= 1
    return slope


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` compiled; a call with other shapes than before compiles again."""
    return torch.compile(function, dynamic=False)


def _logits(tile: Tile) -> tuple[Tensor, Tensor | None]:
    """Return scale x cosine (R, C), and which pairs are no negatives, None where there is no id."""
    logits = tile.queries @ tile.candidates.T
    if not tile.kinds:
        return logits, None
    same = torch.zeros_like(logits, dtype=torch.bool)
    for row_ids, column_ids in tile.kinds:
        same[:, : len(column_ids)] |= row_ids[:, None] == column_ids
    same[_steps(tile.own), tile.own] = False
    return logits, same


def _see(logits: Tensor, same: Tensor | None, own: Tensor) -> TileStats:
    """Return what the logits show, and leaves the masked ones at -inf."""
    total = _total(logits, same, 1)
    if same is not None:
        logits.masked_fill_(same, -torch.inf)
    pairs_at = _steps(own), own
    pair = logits[pairs_at]
    logits[pairs_at] = -torch.inf
    recalled = pair > logits.amax(1)
    logits[pairs_at] = pair
    masked = torch.zeros_like(pair) if same is None else same.sum(1).to(pair.dtype)
    return TileStats(pair, total, recalled, masked)


def _corrected(logits: Tensor, tile: Tile) -> tuple[Tensor, Tensor]:
    """Return the logits of the candidates of each row, and of each column."""
    if tile.log_q is None:
        return logits, logits
    rows, candidates = tile.log_q
    return logits - candidates, logits - rows[:, None]


def _total(logits: Tensor, same: Tensor | None, dim: int) -> Tensor:
    return (logits if same is None else logits.masked_fill(same, 0)).sum(dim)


def _steps(own: Tensor) -> Tensor:
    return torch.arange(len(own), device=own.device)
