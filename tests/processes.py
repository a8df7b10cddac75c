# pyright: standard
"""Processes of a test, forked from one with torch imported: programs, or some joined by gloo."""

import faulthandler
import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing as mp

from clue.config import to_yaml
from clue.run.pretrain_config import PretrainConfig
from clue.train.distributed import leave
from tests.conftest import ROOT

# The longest of these tests takes 40 s on one busy core. Without a limit a process that waits for
# another one does so for gloo's 30 minutes, and one that cannot end waits for ever.
LIMIT = 600
# A fresh interpreter takes 3.7 s of a core for this. One does, and the processes of all tests of a
# worker are its forks; nothing runs in it, so that no thread is lost in a fork.
multiprocessing.set_forkserver_preload(["pytest", "tests.preload"])
FORKS = multiprocessing.get_context("forkserver")


def start(*words: str | Path, said: Path, cwd: Path = ROOT) -> ForkServerProcess:
    """Start `python WORDS`, which begins with torch imported; its output goes to files in `said`.

    Whoever tests what is imported, or reads the environment at its start, starts a fresh one.
    """
    process = FORKS.Process(target=_program, args=([*map(str, words)], cwd, said))
    process.start()
    return process


def python(*words: str | Path, cwd: Path = ROOT) -> CompletedProcess[str]:
    """Run `python WORDS` as `start` does, to its end. TimeoutError where it has none in time."""
    with TemporaryDirectory() as folder:
        process = start(*words, said=Path(folder), cwd=cwd)
        process.join(LIMIT)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"{words} had not ended after {LIMIT} s")
        out, err = ((Path(folder) / name).read_text() for name in ("stdout", "stderr"))
    return CompletedProcess(words, process.exitcode, out, err)


def train(run: PretrainConfig) -> None:
    """Train as `python clue/pretrain.py` does, where no shapes are checked at every call."""
    file = run.runs / f"{run.name}.yaml"
    file.write_text(to_yaml(run))
    done = python("clue/pretrain.py", file)
    assert done.returncode == 0, done.stderr


def _program(words: list[str], cwd: Path, said: Path) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    torch.set_num_threads(1)
    os.chdir(cwd)
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


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
    # as torchrun says it to a process, whose agent keeps the store
    known = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    known |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    known["TORCHELASTIC_USE_AGENT_STORE"] = True
    os.environ |= {name: str(value) for name, value in known.items()}
    limit = timedelta(seconds=0.6 * LIMIT)
    store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=limit)  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=limit)
    dist.barrier()  # who leaves at once would break a connection that another has not finished
    function(rank, world, *arguments)
    leave()
