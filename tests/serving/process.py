"""The service as tests run it: a process of its own, or a thread of this one."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import uvicorn

from serving.app import create_app
from serving.live import Live
from serving.protocol import DeadlineProtocol, Deadlines
from serving.settings import Settings

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "CLUE_DRAIN_SECONDS": "0"}


@dataclass
class Server:
    """A real uvicorn process; `lines` grows with what it logs."""

    process: "subprocess.Popen[str]"
    lines: list[str] = field(default_factory=list)
    address: tuple[str, int] = ("", 0)

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"


@contextmanager
def running(run: Path, index: Path, **limits: str) -> Generator[Server]:
    command = ["serving", "port=0"]
    paths = {"CLUE_CHECKPOINT": str(run), "CLUE_INDEX": str(index)}
    with started(command, **paths, **limits) as server:
        yield server


@contextmanager
def started(arguments: list[str], **environment: str) -> Generator[Server]:
    """A process of `python -m` with these arguments that has said where it listens."""
    command = [sys.executable, "-m", *arguments]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**ENVIRONMENT, **environment},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that its worker processes can be ended with it
    )
    server = Server(process)

    def collect(stderr: Iterator[str]) -> None:
        server.lines.extend(stderr)

    assert process.stderr is not None
    reader = threading.Thread(target=collect, args=(process.stderr,))
    reader.start()
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"running on http://([\d.]+):(\d+)", "".join(server.lines))):
            assert process.poll() is None and time.monotonic() < deadline, "".join(server.lines)
            time.sleep(0.05)
        server.address = (found[1], int(found[2]))
        while is_loading(server):
            assert time.monotonic() < deadline, "".join(server.lines)
            time.sleep(0.05)
        yield server
    finally:
        process.send_signal(signal.SIGINT)  # a killed parent would leave its worker processes
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        reader.join(10)
        process.stderr.close()


LOADING = "urn:clue:problem:loading"


def is_loading(server: Server) -> bool:
    """Several processes say where they listen before the first of them does."""
    try:
        answer = httpx.get(f"{server.url}/startupz", timeout=20)
    except httpx.ConnectError:
        return True
    return answer.json().get("type") == LOADING


def loaded(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Return the answer of a worker that has loaded: the second may be later than the first."""
    deadline = time.monotonic() + 120
    while (answer := ask()).status_code == 503 and answer.json()["type"] == LOADING:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)
    return answer


@contextmanager
def listening(settings: Settings) -> Generator[str]:
    """The URL of the service in a thread of this process, behind the protocol of production.

    As good as a process of its own where its start, end and memory are not the point: that one
    takes four seconds of a processor to begin.
    """
    app = create_app(settings)
    deadlines = Deadlines(
        header_seconds=settings.header_seconds,
        body_seconds=settings.body_seconds,
        write_seconds=settings.write_seconds,
        max_connections=settings.max_connections,
        request_bytes=8 * settings.max_body_bytes,
    )
    config = uvicorn.Config(
        app,
        port=0,
        http=partial(DeadlineProtocol, deadlines=deadlines),  # pyright: ignore[reportArgumentType]
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 120
        while not (server.started and isinstance(app.state.service, Live)):
            assert thread.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
