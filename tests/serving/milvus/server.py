"""Milvus Lite as a process of its own: Milvus's interface over gRPC, in Python."""

import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running_milvus(folder: Path, port: int = 0) -> Generator[int]:
    """Run it on a port of this machine, a free one by default; all that it keeps is in `folder`."""
    if not port:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    command = ["-m", "milvus_lite", "server", "--data-dir", str(folder), "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, *command, "--host", "127.0.0.1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            _wait_for(port, process)
            yield port
        finally:
            process.kill()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
