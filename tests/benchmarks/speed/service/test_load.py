"""The load generator: requests leave when they are due, and late answers are not forgiven."""

import asyncio
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import contextmanager, suppress

import numpy as np
import orjson

from benchmarks.speed.service.load import Plan, Stream, request, send

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
FULL = b"HTTP/1.1 429 Full\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"


@contextmanager
def server(answer: bytes, *, stall: float = 0, close: bool = False) -> Generator[tuple[str, int]]:
    """A server that stands still for `stall` seconds after its tenth answer, all of it."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, tuple[str, int]]] = Future()
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        with suppress(ConnectionError):
            while await reader.readline():
                while (await reader.readline()).strip():
                    pass
                count += 1
                if count == 10 and stall:
                    time.sleep(stall)  # the whole loop stands still
                writer.write(answer)
                if close:
                    break
        writer.close()

    async def main() -> None:
        end = asyncio.Event()
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
            address = listening.sockets[0].getsockname()[:2]
            started.set_result((asyncio.get_running_loop(), end, address))
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    loop, end, address = started.result(10)
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(10)


def plan(address: tuple[str, int], **stream: object) -> Plan:
    requests = [request("GET", "/a"), request("GET", "/b", x_key="k")]
    one = Stream(requests=requests, **stream)  # pyright: ignore[reportArgumentType]
    return Plan(address=address, seconds=0.6, streams={"one": one})


def test_a_stall_is_charged_to_all_who_were_due_in_it() -> None:
    with server(OK, stall=0.3) as address:
        answers = send(plan(address, rate=100.0, keep=5)).answers["one"]
    assert len(answers.status) == 60 and answers.count(200) == 60
    np.testing.assert_allclose(np.sort(answers.due), np.arange(60) / 100, atol=1e-9)
    # a closed loop would show one slow answer: here the thirty due meanwhile waited in turn
    assert (answers.seconds > 0.1).sum() >= 15
    assert answers.quantile_ms(1) > 250
    assert list(answers.bodies) == [b"hi"] * 5
    assert sorted(set(answers.request.tolist())) == [0, 1]


def test_without_a_rate_each_connection_sends_as_it_is_answered() -> None:
    with server(OK) as address:
        load = send(plan(address, connections=3))
    answers = load.answers["one"]
    assert answers.count(200) == len(answers.status) > 30
    assert answers.rate(0.1, 0.6) > 50 and 0 < load.busy < 1.5
    assert answers.rate(0.1, 0.6, within=0) == 0


def test_refusals_and_lost_connections_are_told_apart() -> None:
    with server(FULL) as address:
        answers = send(plan(address, rate=50.0)).answers["one"]
    assert answers.count(429) == 30 and answers.retry_after.all() and answers.rate(0, 1) == 0
    with server(b"HTTP/1.1 2", close=True) as address:
        answers = send(plan(address, rate=50.0)).answers["one"]
    assert answers.count(0) == 30 and np.isnan(answers.seconds).all()
    assert np.isnan(answers.quantile_ms(0.5))


def test_a_connection_that_the_server_ended_while_idle_is_no_error() -> None:
    # without saying so: now and then a request meets the end on its way
    with server(OK, close=True) as address:
        answers = send(plan(address, rate=100.0, connections=2)).answers["one"]
        assert answers.count(200) == len(answers.status) == 60
        answers = send(plan(address, connections=2)).answers["one"]
        assert answers.count(200) == len(answers.status) > 30


def test_a_request_is_whole() -> None:
    head, _, body = request("POST", "/v1/x", {"a": [1]}, x_min_seq="3").partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[:3] == ["POST /v1/x HTTP/1.1", "host: localhost", "x-min-seq: 3"]
    assert f"content-length: {len(body)}" in lines and orjson.loads(body) == {"a": [1]}
