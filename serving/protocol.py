"""Below ASGI: deadlines for what a client sends and takes, and a limit of connections.

uvicorn ends an idle keep-alive connection and nothing else: of 200 connections that sent a byte a
second all 200 still stood after 32 s. Each held a file descriptor and its buffers.
"""

import asyncio
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serving.gate import ALWAYS, Gate, head_of
from serving.observe import request_id_of

# The application refuses a late body itself, with a problem that says so; this is for what it has
# answered already, and for what never asks.
GRACE_SECONDS = 1.0
# The parser has no limit of its own: it held whatever came within the deadline.
HEAD_BYTES = 65_536


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """Seconds for headers, a body and the taking of an answer, and how many may be connected.

    A body that was sent a byte a chunk takes six on its way: `request_bytes` end one that goes on.
    """

    header_seconds: float = 10.0
    body_seconds: float = 10.0
    write_seconds: float = 30.0
    max_connections: int = 1024
    request_bytes: int = 16_000_000


def _refusal(
    status: str, kind: str, detail: str, headers: str = "", connection: str = "close"
) -> bytes:
    title = kind.replace("-", " ").capitalize()
    body = (
        f'{{"type":"urn:clue:problem:{kind}","title":"{title}",'
        f'"status":{status.partition(" ")[0]},"detail":"{detail}"}}'
    )
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\n"
        f"content-length: {len(body)}\r\n{headers}connection: {connection}\r\n\r\n{body}"
    ).encode("ascii")


LARGE = _refusal("431 Request Header Fields Too Large", "headers-too-large", "send fewer headers")
BROKEN = _refusal("400 Bad Request", "malformed-http", "this is no HTTP request")
LATE = _refusal("408 Request Timeout", "slow-request", "headers or body did not arrive in time")
FULL = _refusal(
    "503 Service Unavailable",
    "too-many-connections",
    "too many connections; come again after Retry-After seconds",
    "retry-after: 1\r\n",
)


@cache
def busy(seconds: int) -> bytes:
    """Return the refusal of a request that could not be answered in time, `%s` for its id."""
    said = f"retry-after: {seconds}\r\nx-request-id: %s\r\ncache-control: no-store\r\n"
    detail = "too many requests wait; come again after Retry-After seconds"
    return _refusal("429 Too Many Requests", "queue-full", detail, said, "keep-alive")


class DeadlineProtocol(HttpToolsProtocol):
    """uvicorn's protocol on httptools, whose connections end when a deadline passes.

    `--http serving.protocol:DeadlineProtocol` gives it to a plain uvicorn.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        deadlines: Deadlines | None = None,
    ) -> None:
        """Wait for a connection."""
        super().__init__(config, server_state, app_state, _loop)
        self._deadlines = deadlines or Deadlines()
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._part = ""  # of a request that is on its way: its "head" or its "body"
        self._bytes = 0  # of that part, without the packet in which it began
        self._gate: Gate | None = app_state.get("gate")
        self._judged = False  # whether the gate lets in the request being read
        self._work = 0  # of the request being answered, where the gate has let it in
        self._refused = b""  # what the request being read is answered; its body is dropped

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, as all is refused: with a problem that repeats none of it."""
        self.transport.write(BROKEN)
        self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take the connection, or refuse it where too many are open."""
        super().connection_made(transport)
        if len(self.connections) > self._deadlines.max_connections:
            transport.write(FULL)
            transport.close()
            return
        self._expect(self._deadlines.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        self._expect(None)
        self._drop_writing()
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the parser, unless the connection is being closed; end what has no end."""
        if self.transport.is_closing() or self._refuses_at_a_glance(data):
            return
        before = self._part
        super().data_received(data)
        self._bytes = self._bytes + len(data) if before == self._part else 0
        limit = HEAD_BYTES if self._part == "head" else self._deadlines.request_bytes
        if self._part and self._bytes > limit and not self._is_ending():
            if self._part == "head" and not self.is_answering():
                self.transport.write(LARGE)
                self.transport.close()
            else:
                self.transport.abort()

    def _is_ending(self) -> bool:
        """Whether the connection ends, or will with an answer that has begun: bytes are dropped."""
        has_begun = self.is_answering() and self.cycle.response_started
        return self.transport.is_closing() or (has_begun and not self.cycle.keep_alive)

    def _refuses_at_a_glance(self, data: bytes) -> bool:
        """Answer a whole request that the gate does not let in, before it is parsed."""
        gate = self._gate
        if gate is None or gate.inside < ALWAYS or self._part or self.is_answering():
            return False
        named = head_of(data)
        seconds = 0 if named is None else gate.refusal(named)
        if named is None or not seconds:
            return False
        self._expect(None)
        self._unset_keepalive_if_required()
        self.transport.write(busy(seconds) % request_id_of(named.items()).encode())
        self._wait_for_another()
        return True

    def _wait_for_another(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def on_message_begin(self) -> None:
        """Start the time of the headers: that of a connection runs from its beginning."""
        super().on_message_begin()
        self._part = "head"
        if self._reading is None:
            self._expect(self._deadlines.header_seconds)

    def on_headers_complete(self) -> None:
        """Start the time of the body, or refuse the request before it is read.

        Raises ValueError, a 400, for two Host headers and for none of HTTP/1.1 (RFC 9112).
        """
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and cast(Any, self.parser).get_http_version() == "1.1"):
            raise ValueError(f"{hosts} Host headers")  # whose is it, of this machine?
        self._refused = self._refusal_of_gate()
        if not self._refused:
            super().on_headers_complete()
        self._part = "body"
        self._expect(self._deadlines.body_seconds + GRACE_SECONDS)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, unless its request is refused."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the time: the request is whole."""
        self._part = ""
        self._expect(None)
        if not self._refused:
            if self._judged and self._gate is not None and self.is_answering():
                self._work, self._judged = self._gate.enter(dict(self.headers)), False
            super().on_message_complete()
            return
        self.transport.write(self._refused)
        self._refused = b""
        if cast(Any, self.parser).should_keep_alive():
            self._wait_for_another()
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Count an answer."""
        self._leave()
        super().on_response_complete()

    def _refusal_of_gate(self) -> bytes:
        """Return the answer to a request that the gate does not let in, nothing for one it does.

        One behind an unanswered request of its connection passes: answers keep their order.
        """
        gate, parser = self._gate, cast(Any, self.parser)
        if gate is None or self.is_answering() or self.expect_100_continue:
            return b""
        if not gate.judges(parser.get_method(), self.url):
            return b""
        seconds = gate.refusal(dict(self.headers))
        self._judged = not seconds
        return busy(seconds) % request_id_of(self.headers).encode() if seconds else b""

    def _leave(self) -> None:
        if self._work and self._gate is not None:
            self._gate.leave(self._work)
            self._work = 0

    def pause_writing(self) -> None:
        """Start the time of a client that does not take its answer."""
        super().pause_writing()
        self._drop_writing()
        self._writing = self.loop.call_later(self._deadlines.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the time: the client goes on."""
        super().resume_writing()
        self._drop_writing()

    def _drop_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _expect(self, seconds: float | None) -> None:
        """Make `seconds` from now the time until which more of a request has to be here."""
        if self._reading is not None:
            self._reading.cancel()
        self._reading = None if seconds is None else self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        self._reading = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused:  # it is we who do not read: an earlier request is not answered
            self._expect(self._deadlines.body_seconds)
            return
        if self.is_answering():
            self.transport.abort()
        else:
            self.transport.write(LATE)
            self.transport.close()

    def is_answering(self) -> bool:
        """Whether a request of this connection has begun and is not answered."""
        # None before the first request, whatever its type says
        return bool(self.cycle) and not self.cycle.response_complete
