"""The load generator: requests that leave when they are due, whatever became of the ones before.

An answer's time counts from the moment its request was due, so a server that stalls is charged for
all whom it kept waiting. httptools and uvloop, as the server itself has them, send several times
what a client library does: the generator's share of its core is in its result.
"""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httptools
import numpy as np
import orjson
import uvloop

TICK_SECONDS = 0.001  # uvloop's clock
LONGEST_SECONDS = 30.0  # that the last answers are waited for


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Requests, in turn: `rate` a second or, without one, as fast as `connections` are answered.

    With a rate there are at most `connections` open; a request that waits for one is late. The
    first `keep` bodies are kept.
    """

    requests: Sequence[bytes]
    rate: float | None = None
    connections: int = 800
    keep: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Streams that are sent to one server at the same time for so many `seconds`."""

    address: tuple[str, int]
    seconds: float
    streams: Mapping[str, Stream]


@dataclass(frozen=True, eq=False, kw_only=True)
class Answers:
    """What came of n requests, by `due`, (n,), seconds from the beginning.

    `seconds` (n,) are from there to the whole answer, `status` (n,) is 0 where none came,
    `retry_after` (n,) whether there was such a header, `request` (n,) which of the stream's it was.
    """

    due: np.ndarray
    seconds: np.ndarray
    status: np.ndarray
    retry_after: np.ndarray
    request: np.ndarray
    bodies: Sequence[bytes] = ()

    def rate(self, after: float, before: float, within: float = np.inf) -> float:
        """Return the answers 200 a second that came between both and took at most `within`."""
        good = (self.status == 200) & (self.seconds <= within)
        came = self.due + self.seconds
        return float((good & (came > after) & (came <= before)).sum() / (before - after))

    def quantile_ms(self, share: float, status: int | None = 200) -> float:
        """Return the time, in ms, that a share of the answers with a status took at most.

        None is any status. NaN where there is no such answer.
        """
        chosen = self.seconds[(self.status == status) if status is not None else self.status > 0]
        return float(1000 * np.quantile(chosen, share)) if len(chosen) else float("nan")

    def count(self, *status: int) -> int:
        """Return how many answers have one of the statuses."""
        return int(np.isin(self.status, status).sum())


@dataclass(frozen=True, eq=False, kw_only=True)
class Load:
    """The answers to each stream of a plan, and the generator's share of its core."""

    answers: Mapping[str, Answers]
    busy: float


def request(method: str, path: str, body: Any = None, **headers: str) -> bytes:
    """Return a whole request; `body` is JSON, or bytes as they are, `x_y` the header x-y."""
    content = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
    lines = [f"{method} {path} HTTP/1.1", "host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + content


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine does, on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def send(plan: Plan) -> Load:
    """Return what came of a plan; for a process of its own."""
    return run(sending(plan))


async def sending(plan: Plan) -> Load:
    """Send the streams of a plan together; return when all is answered or given up."""
    used, began = time.process_time(), time.perf_counter()
    senders = {name: _Sender(plan, each, began) for name, each in plan.streams.items()}
    await asyncio.gather(*(sender.run() for sender in senders.values()))
    busy = (time.process_time() - used) / (time.perf_counter() - began)
    return Load(answers={name: each.answers() for name, each in senders.items()}, busy=busy)


@dataclass
class _Sender:
    """One stream on its way."""

    plan: Plan
    stream: Stream
    began: float
    rows: list[tuple[float, float, int, bool, int]] = field(default_factory=list[Any])
    bodies: list[bytes] = field(default_factory=list[bytes])
    idle: list["_Connection"] = field(default_factory=list["_Connection"])
    waiting: deque[tuple[int, float]] = field(default_factory=deque[tuple[int, float]])
    open: int = 0
    sent: int = 0
    outstanding: int = 0
    tasks: set["asyncio.Task[None]"] = field(default_factory=set["asyncio.Task[None]"])

    async def run(self) -> None:
        if self.stream.rate is None:
            await asyncio.gather(*(self._connect() for _ in range(self.stream.connections)))
            for connection in list(self.idle):
                self._next(connection)
            await asyncio.sleep(self.plan.seconds)
        else:
            await self._send_on_time(self.stream.rate)
        gives_up = time.perf_counter() + LONGEST_SECONDS
        while self.outstanding and time.perf_counter() < gives_up:
            await asyncio.sleep(TICK_SECONDS)
        for connection in self.idle:
            connection.transport.abort()
        await asyncio.sleep(TICK_SECONDS)  # in which they are closed

    async def _send_on_time(self, rate: float) -> None:
        for number in range(round(rate * self.plan.seconds)):
            due = self.began + number / rate
            while (left := due - time.perf_counter()) > 0:
                await asyncio.sleep(max(TICK_SECONDS, left))
            self.outstanding += 1
            if self.idle:
                self.idle.pop().send(number, due)
            else:
                self.waiting.append((number, due))
                if self.open < self.stream.connections:
                    task = asyncio.ensure_future(self._connect())
                    self.tasks.add(task)
                    task.add_done_callback(self.tasks.discard)

    async def _connect(self) -> None:
        self.open += 1
        try:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(
                lambda: _Connection(self), *self.plan.address
            )
        except OSError:
            self.open -= 1
            if self.waiting:
                self.done(*self.waiting.popleft(), 0, retry_after=False, body=b"")
            return
        self.is_free(connection)

    def is_free(self, connection: "_Connection") -> None:
        """Give a connection the next request that waits, or that is due because it is free."""
        if self.waiting:
            connection.send(*self.waiting.popleft())
        elif self.stream.rate is None and self.sent:
            self._next(connection)
        else:
            self.idle.append(connection)

    def _next(self, connection: "_Connection") -> None:
        """Send the next request of a stream without a rate, which is due now."""
        if connection in self.idle:
            self.idle.remove(connection)
        now = time.perf_counter()
        if now - self.began > self.plan.seconds:
            self.idle.append(connection)
            return
        self.sent += 1
        self.outstanding += 1
        connection.send(self.sent - 1, now)

    def lost(self) -> None:
        """Open another connection where a request waits for one."""
        self.open -= 1
        over = time.perf_counter() - self.began > self.plan.seconds
        if self.waiting or (self.stream.rate is None and not over):
            task = asyncio.ensure_future(self._connect())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def done(self, number: int, due: float, status: int, *, retry_after: bool, body: bytes) -> None:
        self.outstanding -= 1
        took = time.perf_counter() - due if status else float("nan")
        which = number % len(self.stream.requests)
        self.rows.append((due - self.began, took, status, retry_after, which))
        if len(self.bodies) < self.stream.keep:
            self.bodies.append(body)

    def answers(self) -> Answers:
        kept = self.bodies
        if not self.stream.keep:
            order = np.argsort([row[0] for row in self.rows], kind="stable")
        else:  # as they came, so that they are in step with the bodies
            order = np.arange(len(self.rows))
        due, seconds, status, retry, which = (
            np.array([row[n] for row in self.rows])[order] for n in range(5)
        )
        return Answers(
            due=due.astype(float),
            seconds=seconds.astype(float),
            status=status.astype(np.int16),
            retry_after=retry.astype(bool),
            request=which.astype(np.int64),
            bodies=kept,
        )


class _Connection(asyncio.Protocol):
    """A connection that is kept alive and carries one request at a time."""

    transport: asyncio.Transport

    def __init__(self, sender: _Sender) -> None:
        self._sender = sender
        self._parser = httptools.HttpResponseParser(self)
        self._request: tuple[int, float] | None = None
        self._retry_after = False
        self._body = bytearray()
        self._answered = False  # a request before, and none of the bytes of this one's answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.transport = transport

    def send(self, number: int, due: float) -> None:
        self._request = (number, due)
        self._retry_after = False
        requests = self._sender.stream.requests
        self.transport.write(requests[number % len(requests)])

    def data_received(self, data: bytes) -> None:
        self._answered = False
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 11 and name.lower() == b"retry-after":
            self._retry_after = value.isdigit()

    def on_body(self, body: bytes) -> None:
        if self._sender.stream.keep:
            self._body += body

    def on_message_complete(self) -> None:
        if self._request is None:  # a refusal that nobody waits for, such as 408
            return
        number, due = self._request
        self._request = None
        body, self._body = bytes(self._body), bytearray()
        status = self._parser.get_status_code()
        self._sender.done(number, due, status, retry_after=self._retry_after, body=body)
        self._answered = True
        if self._parser.should_keep_alive():
            self._sender.is_free(self)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._sender.idle:
            self._sender.idle.remove(self)
        if self._request is not None and self._answered:
            # the server ended an idle connection just then: any client sends again on another
            self._sender.waiting.append(self._request)
        elif self._request is not None:
            self._sender.done(*self._request, 0, retry_after=False, body=b"")
        self._request = None
        self._sender.lost()
