"""The gate: who is let in before anything is read, by what is inside and the rate of answers."""

from collections.abc import Sequence

import httptools
import pytest

from serving import gate
from serving.gate import ALWAYS, REQUEST_BYTES, Gate

ONE = (b"content-length", b"%d" % (3000 - REQUEST_BYTES))  # a body of one user
HASTY = [(b"x-request-timeout-ms", b"1000")]


def enter(door: Gate, headers: Sequence[tuple[bytes, bytes]] = ()) -> int:
    """Return the work of a request of one user, who is let in."""
    named = dict([*headers, ONE])
    assert door.refusal(named) == 0
    work = door.enter(named)
    assert work == 3000
    return work


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(gate.time, "monotonic", lambda: now[0])
    return now


def test_who_would_wait_for_more_than_half_of_the_time_is_refused(clock: list[float]) -> None:
    refused: list[int] = []
    door = Gate(most=1000, seconds=10.0, refused=lambda: refused.append(1))
    # 41 answers in a second, 9 still inside: 41 a second
    works = [enter(door) for _ in range(50)]
    for work in works[:40]:
        door.leave(work)
    clock[0] += 1.0
    door.leave(works[40])
    assert door.inside == 9 and not refused
    # within a second others may take half of it: 20 are answered in that, and the next is late
    assert all(enter(door, HASTY) for _ in range(12))
    assert (door.inside, door.refusal(dict(HASTY)), len(refused)) == (21, 1, 1)
    # who says nothing, or nonsense, has the service's ten seconds: 205 are answered in half of them
    vague = [(b"accept", b"*/*"), (b"x-request-timeout-ms", b"soon")]
    assert all(enter(door, vague) for _ in range(185))
    assert (door.inside, door.refusal(dict([*vague, ONE])), len(refused)) == (206, 6, 2)


def test_a_body_counts_by_its_bytes(clock: list[float]) -> None:
    door = Gate(most=1000, seconds=10.0, refused=lambda: None)
    large = (b"content-length", b"%d" % (32 * 3000 - REQUEST_BYTES))
    works = [door.enter(dict([large])) for _ in range(10)]
    for work in works[:9]:
        door.leave(work)
    clock[0] += 1.0
    door.leave(works[9])  # ten of 32 users in a second are 320 of one
    assert all(enter(door, HASTY) for _ in range(161))
    assert door.refusal(dict([*HASTY, ONE])) == 1 and door.inside == 161


def test_so_many_at_a_time_and_few_always(clock: list[float]) -> None:
    door = Gate(most=20, seconds=10.0, refused=lambda: None)
    works = [enter(door) for _ in range(20)]
    assert door.refusal(dict([ONE])) == 1
    clock[0] += 100  # 20 answers in 100 s: each waits for longer than any request may
    for work in works:
        door.leave(work)
    hasty = [(b"x-request-timeout-ms", b"1")]
    assert all(enter(door, hasty) for _ in range(ALWAYS))
    assert door.refusal(dict(hasty)) > 1


def test_only_work_that_waits_is_judged() -> None:
    door = Gate(most=1, seconds=1.0, refused=lambda: None)
    for method, path in (
        (b"POST", b"/v1/users/embed"),
        (b"PUT", b"/v1/users/u1?x=1"),
        (b"POST", b"/v1/embeddings"),
    ):
        assert door.judges(method, path)
    for method, path in (
        (b"GET", b"/livez"),
        (b"GET", b"/v1/users/u1"),
        (b"DELETE", b"/v1/users/u1"),
        (b"POST", b"/v1/models/000001-0123456789ab:activate"),
        (b"POST", b"/elsewhere"),
    ):
        assert not door.judges(method, path)


def test_answers_of_one_batch_count_together(clock: list[float]) -> None:
    door = Gate(most=1000, seconds=1.0, refused=lambda: None)
    works = [enter(door) for _ in range(60)]
    clock[0] += 1.0
    for work in works[:40]:  # 40 in a second, however many of them are seen first
        door.leave(work)
    assert door.inside == 20 and door.refusal({}) == 0  # half a second for 20
    enter(door)
    assert door.refusal({}) == 1


PLAIN = b"POST /v1/users/embed HTTP/1.1\r\nHost: here\r\nX-Request-Timeout-Ms: 900\r\n%s\r\n%s"


def test_a_whole_request_is_read_at_a_glance_as_the_parser_reads_it() -> None:
    body = b'{"users":[]}'
    data = PLAIN % (b"content-length: %d\r\n" % len(body), body)
    named = gate.head_of(data)
    read = _Parsed(data)
    assert read.whole and named == dict(read.headers) and len(read.headers) == 3
    put = data.replace(b"POST /v1/users/embed", b"PUT /v1/users/u1?x=%20")
    assert gate.head_of(put) == named


@pytest.mark.parametrize(
    "data",
    [
        PLAIN % (b"content-length: 2\r\n", b"{"),  # more is to come
        PLAIN % (b"content-length: 2\r\n", b"{}GET / HTTP/1.1\r\n\r\n"),  # another behind it
        PLAIN % (b"content-length: 2\r\ncontent-length: 2\r\n", b"{}"),
        PLAIN % (b"content-length: +2\r\n", b"{}"),
        PLAIN % (b"content-length: 2\r\ntransfer-encoding: chunked\r\n", b"{}"),
        PLAIN % (b"content-length : 2\r\n", b"{}"),
        PLAIN % (b"content-length: 2\r\n folded: x\r\n", b"{}"),
        PLAIN % (b"content-length: 2\r\nexpect: 100-continue\r\n", b"{}"),
        PLAIN % (b"content-length: 2\r\nconnection: close\r\n", b"{}"),
        PLAIN % (b"content-length: 2\r\nhost: there\r\n", b"{}"),
        (PLAIN % (b"content-length: 2\r\n", b"{}")).replace(b"Host: here\r\n", b""),
        (PLAIN % (b"content-length: 2\r\n", b"{}")).replace(b"1.1", b"1.0"),
        (PLAIN % (b"content-length: 2\r\n", b"{}")).replace(b"POST", b"GET"),
        (PLAIN % (b"content-length: 2\r\n", b"{}")).replace(b"users/embed", b"models/a:activate"),
        PLAIN % (b"", b""),
        b"",
        b"POST /v1/users/embed HTTP/1.1\r\n",
    ],
)
def test_what_is_not_plain_is_for_the_parser(data: bytes) -> None:
    assert gate.head_of(data) is None


class _Parsed:
    """What httptools reads of a request."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.whole = False
        httptools.HttpRequestParser(self).feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_message_complete(self) -> None:
        self.whole = True
