"""The link to Milvus: every call ends in its time, with an answer that was read or VectorsAway."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from functools import partial
from typing import Any, TypeVar

import grpc
from pymilvus import MilvusClient, MilvusException

from serving.milvus.breaker import Breaker

# Its errors repeat what was sent, ids of users among it, with a traceback for each.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)

THREADS = 64
NOTHING_THERE = (100, 1600)  # Milvus's codes of a collection and an alias that is not there
NOT_LOADED = 101  # a collection that nobody has loaded since Milvus was started
# gRPC waits up to two minutes before it connects again, and channels share that wait.
OPTIONS = {
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
    "grpc.use_local_subchannel_pool": 1,
}

Made = TypeVar("Made")


def done(answer: object) -> None:
    """Read an answer that says nothing."""


class Link:
    """A client of Milvus, made at the first call and whenever there is none. For any thread."""

    def __init__(self, uri: str, token: str, *, seconds: float) -> None:
        """Connect to nothing yet; `seconds` is what a call may take."""
        self._uri, self._token, self._seconds = uri, token, seconds
        self._breaker = Breaker("Milvus")
        # pymilvus connects again inside a call, and that is not in the call's own time
        self._pool = ThreadPoolExecutor(THREADS, "clue-milvus")
        self._connecting = threading.Lock()
        self._client: MilvusClient | None = None

    @property
    def trouble(self) -> str:
        """Why nothing is asked now, "" otherwise."""
        return self._breaker.trouble

    def call(
        self,
        method: str,
        *given: Any,
        read: Callable[[Any], Made],
        seconds: float | None = None,
        **named: Any,
    ) -> Made:
        """Return what `read` makes of the answer of a method of MilvusClient.

        Raises VectorsAway where none comes within `seconds`, Milvus refuses, `read` finds that it
        is no answer (LookupError, TypeError, ValueError), or too many of these came before it.
        """
        self._breaker.enter()
        allowed = self._seconds if seconds is None else seconds
        future = self._pool.submit(self._do, method, given, named, allowed)
        try:
            made = read(future.result(allowed))
        except NotInTime:
            future.cancel()
            reason = f"has not answered within {allowed:g} s"
        except (MilvusException, grpc.RpcError) as error:
            reason = _reason(error, allowed)
        except (LookupError, TypeError, ValueError):
            reason = "has answered what is no answer"
        else:
            self._breaker.succeeded()
            return made
        away = self._breaker.failed(reason)
        if self._breaker.trouble:
            self._disconnect()
        raise away

    def call_if_there(
        self, method: str, *given: Any, read: Callable[[Any], Made], **named: Any
    ) -> Made | None:
        """Return as `call` does, None where what is asked for is not there."""

        def with_absent(answer: Any) -> Made | None:
            return None if answer is NOTHING_THERE else read(answer)

        return self.call(method, *given, read=with_absent, if_there=True, **named)

    def close(self) -> None:
        """Let go of the client; calls under way end in their time."""
        self._disconnect()
        self._pool.shutdown(wait=False)

    def _disconnect(self) -> None:
        """Have the next call connect anew.

        After noise gRPC may wait for the rest of a frame that never comes, on a connection that
        passes for sound: no search came back for 20 s after the noise had ended.
        """
        client, self._client = self._client, None
        if client is not None:
            self._pool.submit(client.close)

    def _do(
        self, method: str, given: tuple[Any, ...], named: dict[str, Any], seconds: float
    ) -> Any:
        if_there = named.pop("if_there", False)
        client = self._connected(seconds)
        ask = partial(getattr(client, method), *given, timeout=seconds, **named)
        try:
            return ask()
        except MilvusException as error:
            if if_there and error.code in NOTHING_THERE:
                return NOTHING_THERE
            if error.code != NOT_LOADED:
                raise
        client.load_collection(given[0], timeout=seconds)
        return ask()

    def _connected(self, seconds: float) -> MilvusClient:
        with self._connecting:
            if self._client is None:
                self._client = MilvusClient(
                    uri=self._uri,
                    token=self._token,
                    timeout=seconds,
                    dedicated=True,
                    grpc_options=OPTIONS,
                )
            return self._client


def _reason(error: Exception, seconds: float) -> str:
    """Return what went wrong, without what was sent."""
    code = error.code() if isinstance(error, grpc.RpcError) else error.code  # pyright: ignore
    name = getattr(code, "name", str(code))
    if name == "DEADLINE_EXCEEDED":
        return f"has not answered within {seconds:g} s"
    if name in ("UNAVAILABLE", "2"):  # 2 is pymilvus's own, of a connection that was not made
        return "cannot be reached"
    return f"has refused ({name})"
