"""A server on one core and the workers that measure it, each a process pinned to its own."""

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from benchmarks.external.environments import ROOT

START_SECONDS = 120.0


@dataclass(frozen=True)
class Server:
    """A process that answers at `url`."""

    url: str
    pid: int

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    def memory(self, field: str = "VmRSS") -> int:
        """Return a field of the process's status, in bytes: VmRSS or VmHWM, its peak."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return next(
            int(line.split()[1]) * 1024
            for line in status.splitlines()
            if line.startswith(f"{field}:")
        )

    def reset_peak(self) -> None:
        """Start VmHWM again at VmRSS."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="utf-8")

    def processor(self) -> float:
        """Return the processor seconds that the process has used."""
        used = psutil.Process(self.pid).cpu_times()
        return used.user + used.system

    def descriptors(self) -> int:
        """Return how many file descriptors the process holds beside its clients' connections.

        One that a client has closed, and the process has not, counts.
        """
        process = psutil.Process(self.pid)
        held = process.net_connections("tcp")
        clients = sum(one.status == psutil.CONN_ESTABLISHED for one in held)
        return process.num_fds() - clients


def cores() -> tuple[int, int]:
    """Return the server's core and the load generator's; on a machine with one core both are it."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


@contextmanager
def running(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    path: str = "/readyz",
    *,
    pinned: bool = True,
) -> Generator[Server]:
    """Run a server, on its core where `pinned`, as soon as `path` is 200.

    It is killed with all it started at the end. `{port}` in the command is a free one. Raises
    RuntimeError with why, or the end of its log, where it is never ready.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with log.open("wb") as written:
        process = subprocess.Popen(
            [word.format(port=port) for word in command],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **environment},
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        if pinned:
            os.sched_setaffinity(process.pid, {cores()[0]})  # its threads and processes inherit it
        server = Server(f"http://127.0.0.1:{port}", process.pid)
        _wait(process, f"{server.url}{path}", log)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def of_clue(checkpoint: Path, index: Path, **settings: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of our service; `queue_size` is CLUE_QUEUE_SIZE."""
    environment = {
        "CLUE_CHECKPOINT": str(checkpoint.absolute()),
        "CLUE_INDEX": str(index.absolute()),
        **{f"CLUE_{name.upper()}": value for name, value in settings.items()},
    }
    return [sys.executable, "-m", "serving", "port={port}"], environment


def copied(index: Path, to: Path) -> Path:
    """Return a copy of an index: the generation that is served and no other."""
    name = (index / "CURRENT").read_text(encoding="ascii")
    shutil.copytree(index / name, to / name)
    shutil.copyfile(index / "CURRENT", to / "CURRENT")
    return to


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Return when the server says 200; RuntimeError where it ends, refuses or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            answer = httpx.get(url, timeout=5)
            if answer.status_code == 200:
                return
            if "loading" not in answer.text:
                raise RuntimeError(answer.text)
        time.sleep(0.02)
    raise RuntimeError(log.read_text(encoding="utf-8", errors="replace")[-2000:])


@contextmanager
def worker(core: int, begin: Callable[..., None] | None = None, *given: Any) -> Generator[Executor]:
    """Run a process pinned to a core that does what is submitted, after `begin(*given)`."""
    pool = ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),  # a fork after OpenMP hangs
        initializer=_pinned,
        initargs=(core, begin, given),
    )
    with pool:
        yield pool


def _pinned(core: int, begin: Callable[..., None] | None, given: Sequence[Any]) -> None:
    os.sched_setaffinity(0, {core})
    if begin is not None:
        begin(*given)


def say(text: str) -> None:
    """Show progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()
