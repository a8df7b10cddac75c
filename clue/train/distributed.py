"""The processes of a run: how they are joined, and how all of them stop at the same step."""

import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list, gather_object
from torch import distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy

# The others wait in a barrier while the main process validates and writes: 10 minutes, the default
# under NCCL, is less than 4,096 long histories and an 8 GB checkpoint may take on network storage.
PATIENCE = timedelta(hours=1)


def join(*, bf16: bool, trackers: Sequence[str], run: Path) -> Accelerator:
    """Return this process's place among those that the launcher started, joined to them."""
    accelerator = Accelerator(
        # Said outright: torchrun on a machine without accelerator would else start processes that
        # each believe to be alone (configs/accelerate/cpu2.yaml).
        cpu=not torch.accelerator.is_available(),
        mixed_precision="bf16" if bf16 else "no",
        log_with=[*trackers] or None,
        project_dir=run,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    sharding = accelerator.state.fsdp_plugin if accelerator.is_fsdp2 else None
    if sharding is not None:
        # accelerate's own policy casts parameters, gradient sums and outputs to bf16, the
        # temperature and the user vectors included. Under this one the autocast of train_step
        # computes what it does under DDP; the price is gathering 4 bytes a weight instead of 2.
        sharding.mixed_precision_policy = MixedPrecisionPolicy()
    return accelerator


def agreed(first: int) -> int:
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


def told(value: Any) -> Any:
    """Return the main process's `value` on every process; all must ask."""
    return broadcast_object_list([value])[0] if dist.is_initialized() else value


@contextmanager
def stop_vote(device: torch.device) -> Generator[Callable[[], bool]]:
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
