"""What the processes of a run tell each other in the loss; alone, each call gives back its input.

Every process must bring as many rows: collectives of unequal parts would hang or mix them up.
"""

import torch
from torch import Tensor
from torch import distributed as dist


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def gathered(mine: Tensor, further: Tensor | None = None) -> Tensor:
    """Return the rows of all processes by rank, then the further ones of all; without gradient."""
    parts = [_gathered(x) for x in (mine, further) if x is not None]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _gathered(mine: Tensor) -> Tensor:
    if world() == 1:
        return mine
    parts = [torch.empty_like(mine, memory_format=torch.contiguous_format) for _ in range(world())]
    dist.all_gather(parts, mine.contiguous())
    return torch.cat(parts)


def summed(x: Tensor) -> Tensor:
    """Return the sum over all processes, in place."""
    if world() > 1:
        dist.all_reduce(x)
    return x


def scattered_sum(x: Tensor) -> Tensor:
    """Return this process's rows of the sum over all processes: the adjoint of `gathered`.

    A reduce-scatter sends (n - 1)/n of `x` from each of n processes, half of what an all-reduce
    does, and gloo has it as well as NCCL.
    """
    if world() == 1:
        return x
    parts = [part.contiguous() for part in x.chunk(world())]
    mine = torch.empty_like(parts[0])
    dist.reduce_scatter(mine, parts)
    return mine


def log_of_summed_exponentials(log_sums: Tensor) -> Tensor:
    """Return log sum_r exp(log_sums of process r), by the maximum first: no overflow."""
    if world() == 1:
        return log_sums
    top = log_sums.clone()
    dist.all_reduce(top, op=dist.ReduceOp.MAX)
    return top + summed((log_sums - top).exp()).log()
