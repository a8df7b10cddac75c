"""The processes of a run: how they are joined, what they tell each other, how all of them stop.

Alone, each collective returns its input. Each process must bring as many rows: collectives of
unequal parts would hang or mix them up.
"""

import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from torch import distributed as dist

# The others wait in a barrier while the main process validates and writes: 10 minutes, the default
# under NCCL, is less than 4,096 long histories and an 8 GB checkpoint may take on network storage.
PATIENCE = timedelta(hours=1)


def init_accelerator(
    *, bf16: bool, trackers: Sequence[str], run: Path, in_turns: bool = False
) -> Accelerator:
    """Return this process's place among those that the launcher started, joined to them.

    `in_turns`: a step trains some of the parameters alone, so that the processes have to find out
    which; it costs a walk over the graph.
    """
    accelerator = Accelerator(
        # Said outright: torchrun on a machine without accelerator would else start processes that
        # each believe to be alone (configs/accelerate/cpu2.yaml).
        cpu=not torch.accelerator.is_available(),
        mixed_precision="bf16" if bf16 else "no",
        log_with=[*trackers] or None,
        project_dir=run,
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=PATIENCE),
            DistributedDataParallelKwargs(find_unused_parameters=in_turns),
        ],
    )
    sharding = accelerator.state.fsdp_plugin if accelerator.is_fsdp2 else None
    if sharding is not None:
        # accelerate's own policy casts parameters, gradient sums and outputs to bf16, the
        # temperature and the user vectors included. Under this one the autocast of train_step
        # computes what it does under DDP; the price is gathering 4 bytes a weight instead of 2.
        from torch.distributed.fsdp import MixedPrecisionPolicy  # see `unsharded`

        sharding.mixed_precision_policy = MixedPrecisionPolicy()
    return accelerator


def leave() -> None:
    """Leave the processes that `init_accelerator` joined: the last act of a command.

    The threads of a group that is not left run on while the interpreter ends. An embedding on two
    processes, its table whole, was seen to end there with SIGABRT, once in some dozens of runs.
    """
    if dist.is_initialized():
        dist.destroy_process_group()


def check_same_step(first: int) -> int:
    """Return the step that all processes begin at, `first` on this one.

    Raises ValueError where they would not begin at the same.
    """
    firsts = gather_object([first])
    if len(set(firsts)) > 1:
        raise ValueError(
            f"the processes found checkpoints of different steps, {firsts}; runs= must lie on "
            "storage that all machines share"
        )
    return first


def broadcast(value: Any) -> Any:
    """Return the main process's `value` on every process; all must ask."""
    return broadcast_object_list([value])[0] if dist.is_initialized() else value


@contextmanager
def preemption_vote(device: torch.device) -> Generator[Callable[[], bool]]:
    """Return the question that ends every step: did SIGTERM or SIGINT reach any process?

    All processes ask it and get the same answer; `device` is where their collectives run. A second
    signal acts as usual. One process stops at once, several one step later: the sum of a step's
    votes reaches the host while the next step runs, where asking for it at once would make the host
    wait for the device.
    """
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    seen = torch.zeros(1, dtype=torch.int64, pin_memory=device.type == "cuda")

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    def asked_to_stop() -> bool:
        if not dist.is_initialized():
            return bool(received)
        # The loss of this step is on the host, so the copy queued a step ago has been made.
        last = bool(seen.item())
        votes = torch.full((1,), len(received), device=device)
        dist.all_reduce(votes)
        seen.copy_(votes, non_blocking=True)
        return last

    for number in before:
        signal.signal(number, note)
    try:
        yield asked_to_stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def all_gather(local: Tensor, further: Tensor | None = None) -> Tensor:
    """Return the rows of all processes by rank, then the further ones of all; without gradient."""
    parts = [_all_gather(x) for x in (local, further) if x is not None]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _all_gather(local: Tensor) -> Tensor:
    if world_size() == 1:
        return local
    parts = [
        torch.empty_like(local, memory_format=torch.contiguous_format) for _ in range(world_size())
    ]
    dist.all_gather(parts, local.contiguous())
    return torch.cat(parts)


def unsharded(x: Tensor) -> Tensor:
    """Return a tensor whole, whose parts may lie on several processes: all of them must ask.

    torch's tensors in parts are imported where there can be one: .7 s of a processor.
    """
    if dist.is_initialized():
        from torch.distributed.tensor import DTensor

        if isinstance(x, DTensor):
            return x.full_tensor()
    return x


def all_reduce_sum(x: Tensor) -> Tensor:
    """Return the sum over all processes, in place."""
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def reduce_scatter_sum(x: Tensor) -> Tensor:
    """Return this process's rows of the sum over all processes: the adjoint of `all_gather`.

    A reduce-scatter sends (n - 1)/n of `x` from each of n processes, half of what an all-reduce
    does, and gloo has it as well as NCCL.
    """
    if world_size() == 1:
        return x
    parts = [part.contiguous() for part in x.chunk(world_size())]
    local = torch.empty_like(parts[0])
    dist.reduce_scatter(local, parts)
    return local


def log_of_summed_exponentials(log_sums: Tensor) -> Tensor:
    """Return log sum_r exp(log_sums of process r), by the maximum first: no overflow."""
    if world_size() == 1:
        return log_sums
    top = log_sums.clone()
    dist.all_reduce(top, op=dist.ReduceOp.MAX)
    return top + all_reduce_sum((log_sums - top).exp()).log()
