# pyright: standard
"""Some processes of a test, joined over gloo: one that hangs shows where, and fails its test."""

import faulthandler
import multiprocessing
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing as mp

# The longest of these tests takes 40 s on one busy core. Without a limit a process that waits for
# another one does so for gloo's 30 minutes, and one that cannot end waits for ever.
LIMIT = 600
# A fresh interpreter imports these for 3.4 s of a core. One does, and the processes of all tests of
# a worker are its forks; nothing runs in it, so that no thread is lost in a fork.
multiprocessing.set_forkserver_preload(["pytest", "clue.pretrain"])


def spawn(function: Callable[..., None], *arguments: Any, world: int) -> None:
    """Run `function(rank, world, *arguments)` in `world` processes, which have joined.

    Raises what a process raised, and TimeoutError where they have not ended in `LIMIT` seconds.
    """
    # The store is this process's, on a port that the system chose: nobody races for it, nobody
    # polls a file, and no process waits for the one that holds it to be the last to end.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # pyright: ignore[reportPrivateImportUsage]
    work = (function, world, store.port, arguments)
    context = mp.start_processes(  # pyright: ignore[reportPrivateImportUsage]
        _one, work, nprocs=world, join=False, start_method="forkserver"
    )
    assert context is not None
    end = time.monotonic() + LIMIT
    while not context.join(timeout=1):
        if time.monotonic() > end:
            processes = [process for process in context.processes if process is not None]
            alive = [rank for rank, process in enumerate(processes) if process.is_alive()]
            for process in processes:
                process.kill()
            raise TimeoutError(f"of {world} processes {alive} had not ended after {LIMIT} s")


def _one(
    rank: int, function: Callable[..., None], world: int, port: int, arguments: tuple[Any, ...]
) -> None:
    faulthandler.dump_traceback_later(0.8 * LIMIT, exit=True)
    torch.set_num_threads(1)
    limit = timedelta(seconds=0.6 * LIMIT)
    store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=limit)  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=limit)
    function(rank, world, *arguments)
    dist.destroy_process_group()
