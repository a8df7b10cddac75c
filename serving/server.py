"""The server process: uvicorn with deadlines below ASGI, one log, and an orderly end."""

import asyncio
import ctypes
import gc
import logging
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from serving import logs
from serving.protocol import DeadlineProtocol, Deadlines
from serving.settings import Settings, share, share_metrics

log = logging.getLogger("clue.serving")

TRIM_SECONDS = 60.0


def serve(settings: Settings, *, host: str, port: int, workers: int) -> None:
    """Answer requests in `workers` processes until told to end.

    Several are spawned, never forked: a fork after OpenMP hangs in FAISS.
    """
    deadlines = Deadlines(
        header_seconds=settings.header_seconds,
        body_seconds=settings.body_seconds,
        write_seconds=settings.write_seconds,
        max_connections=settings.max_connections,
        request_bytes=8 * settings.max_body_bytes,
    )
    with tempfile.TemporaryDirectory(prefix="clue-metrics-") as folder:
        share(settings)
        if workers > 1:
            share_metrics(Path(folder))
        uvicorn.run(
            "serving.app:create_app",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            http=partial(DeadlineProtocol, deadlines=deadlines),  # pyright: ignore[reportArgumentType]
            ws="none",
            access_log=False,
            log_config=logs.config(settings.log),
            server_header=False,
            # the default of 5 s killed processes that were still importing, on a busy machine
            timeout_worker_healthcheck=60,
            timeout_graceful_shutdown=int(settings.request_seconds + settings.write_seconds) + 1,
        )


def share_interpreter() -> None:
    """Have the model thread let go of Python sooner, and cyclic garbage be looked for seldom.

    Each event of the loop takes the interpreter anew, and waits for it up to the interval: at five
    times the peak a quarter of it was answered in time at Python's 5 ms, three quarters at .5.

    A body of 64 users is 3,400 objects, none of them in a cycle: of the 41 ms that their request
    took beside the encode, the collector's walks through model and index were 16.
    """
    sys.setswitchinterval(0.0005)
    gc.set_threshold(70_000, 20, 20)


async def return_memory() -> None:
    """Give freed memory back to the system once a minute, until cancelled.

    glibc keeps what its threads have freed, in pieces between what is still in use: after a quarter
    of an hour of mixed load a service held 1,102 MB that used 480. To give 67 MB back takes 11 ms.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other libraries of C have none
    while trim is not None:
        await asyncio.sleep(TRIM_SECONDS)
        await asyncio.to_thread(trim, 0)


def drain_on_sigterm(begin: Callable[[], None], seconds: float) -> None:
    """Let SIGTERM call `begin`, and the server's own handler only `seconds` later.

    So /readyz can be 503 while requests are still taken, and an orchestrator withdraws the process
    from its balancer before connections are refused. A second SIGTERM, and SIGINT, end at once with
    what is being answered. To be called in the event loop of a server that handles signals; where
    none does, and outside the main thread, nothing changes.
    """
    server: Any = signal.getsignal(signal.SIGTERM)
    in_main = threading.current_thread() is threading.main_thread()  # Python allows no other
    if seconds == 0 or not callable(server) or not in_main:
        return
    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, server)
        begin()
        loop.call_soon_threadsafe(loop.call_later, seconds, server, number, frame)

    signal.signal(signal.SIGTERM, handle)
