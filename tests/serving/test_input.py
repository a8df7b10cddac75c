"""What is no request, and what is an odd one: each answered, none a fault, nothing kept of it."""

import logging
import socket
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import numpy as np
import pytest

from serving.generation import read
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.client import body_of, problem, users_of, vectors_in
from tests.serving.malformed import EMBED, GOOD, ITEMS, PUT, USERS, malformed
from tests.serving.process import listening


@pytest.fixture(scope="module")
def url(
    tiny_run: TinyRun, tiny_index: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[str]:
    settings = Settings(
        checkpoint=tiny_run.run,
        index=tiny_index,
        store=tmp_path_factory.mktemp("input") / "store",
        header_seconds=1,
        body_seconds=1,
        write_seconds=1,
    )
    with listening(settings) as address:
        yield address


def test_malformed_requests_are_4xx_problems_and_nothing_is_kept(
    url: str, tiny_index: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = read(tiny_index)[1]
    width, user = index.item_vectors.shape[1], index.user_ids[0].as_py()
    answered: Counter[str] = Counter()
    compared = 0
    with httpx.Client(base_url=url, timeout=20) as client:
        for request in malformed(width, user):
            content = request.content
            answer = client.request(
                request.method,
                request.path,
                content=iter(content) if isinstance(content, list) else content,
                headers=request.headers,
            )
            said = (request.kind, request.path, request.content[:100], answer.text[:200])
            assert 400 <= answer.status_code < 500, (answer.status_code, *said)
            assert answer.headers["content-type"] == "application/problem+json", said
            body: dict[str, Any] = answer.json()
            assert body["status"] == answer.status_code, said
            assert body["type"].startswith("urn:clue:problem:"), said
            assert body["title"] and body["detail"], said
            for secret in ("tea", "films", "etc/passwd", "__proto__", "Traceback"):
                assert secret not in answer.text, said
            answered[request.kind] += 1
            if request.path in (EMBED, ITEMS, USERS) and "x-min-seq" not in request.headers:
                by_fastapi = client.request(
                    request.method,
                    request.path,
                    content=iter(content) if isinstance(content, list) else content,
                    headers={**request.headers, "x-min-seq": "0"},
                )
                assert by_fastapi.status_code == answer.status_code, said
                assert by_fastapi.json() == body, said
                compared += 1
        good = body_of(users_of(index, 3))
        assert vectors_in(client.post("/v1/users/embed", json=good)).shape == (3, width)
        # the first write that was not refused is the first of the store
        written = client.put(PUT, content=GOOD[PUT], headers={"content-type": "application/json"})
        assert written.json()["seq"] == 1
        assert client.delete(PUT).json()["seq"] == 2
    assert answered.total() >= 650
    assert compared >= 300  # how a model route hands over its body, with FastAPI's own way
    assert len(answered) >= 24
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]


def test_all_that_is_wrong_is_said_at_once(url: str) -> None:
    """Two errors of two kinds in two users, and in the middle of a batch that is good."""
    events = [{"service": "films", "text": "x" * 2049}, {"service": "films"}]
    users = [{"events": [event]} for event in events]
    users.insert(1, {"events": [{"service": "films", "text": "tea"}]})
    answer = httpx.post(f"{url}/v1/users/embed", json={"users": users})
    pointers = [error["pointer"] for error in problem(answer, 422)["errors"]]
    assert pointers == ["/users/0/events/0/text", "/users/2/events/0/text"]


ODD_IDS = (
    "x" * 256,
    "\U0001f600" * 64,
    "Zo\u00eb",  # composed
    "Zoe\u0308",  # the same to the eye, another id
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd",
    "embed",
    "similar",
    "events",
    "a/events",
    "../../etc/passwd",
    "' OR 1=1 --",
    "%00",
    "a b?c#d&e=f;g",
    "\u200b",
    "\ufeff",
    " ",
    "\n",
    "a\n",
    "a\nb",
    "null",
    "nan",
)


def test_odd_ids_are_kept_apart_and_come_back_as_sent(url: str) -> None:
    with httpx.Client(base_url=url, timeout=20) as client:
        for number, user_id in enumerate(ODD_IDS):
            path = f"/v1/users/{quote(user_id, safe='')}"
            event = {"service": "films", "text": f"text {number}"}
            assert client.put(path, json={"events": [event]}).status_code == 200, user_id
            answer = client.post(f"{path}/events", json={"events": [{**event, "text": "more"}]})
            assert answer.json()["user_id"] == user_id
        for number, user_id in enumerate(ODD_IDS):
            path = f"/v1/users/{quote(user_id, safe='')}"
            stored = client.get(path).json()
            assert stored["user_id"] == user_id
            assert [each["text"] for each in stored["events"]] == [f"text {number}", "more"]
            alike = client.post("/v1/users/similar", json={"user_id": user_id, "k": 100}).json()
            assert user_id not in {hit["user_id"] for hit in alike["data"]}
            assert client.delete(path).status_code == 200
            problem(client.get(path), 404)
    assert len(set(ODD_IDS)) == len(ODD_IDS) == 21


def test_odd_times_and_strange_services_are_read(url: str) -> None:
    """Unsorted, doubled, negative and future times, and what no catalogue has, are no errors."""
    times: list[Any] = [3.0, 1.0, 1.0, -5e9, 9e10, "1900-01-01T00:00:00+14:00", 0]
    events = [{"service": "films", "text": f"text {n}", "time": t} for n, t in enumerate(times)]
    order = [events[n] for n in (3, 5, 6, 1, 2, 0, 4)]
    strange = [{"service": "nowhere \U0001f600", "text": "\u202e\u05e9 \u0000".strip("\0 ")}]
    with httpx.Client(base_url=url, timeout=20) as client:
        body = {"users": [{"events": events}, {"events": order}, {"events": strange}]}
        made = vectors_in(client.post("/v1/users/embed", json=body))
    np.testing.assert_allclose(made[0], made[1], atol=1e-5)
    assert np.isfinite(made).all()


def talk(url: str, *parts: bytes, pause: float = 0) -> bytes:
    """All that the service says to these bytes, until it ends the connection."""
    address = urlsplit(url)
    assert address.hostname is not None and address.port is not None
    said = b""
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            while more := connection.recv(65_536):
                said += more
        except ConnectionError:
            pass
    return said


HEAD = b"POST /v1/users/embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
BODY = GOOD["/v1/users/embed"].encode()
WHOLE = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
LAST = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"

NO_HTTP = {
    "no request line": b"\r\n\r\nhello\r\n\r\n",
    "unknown version": b"GET /livez HTTP/9.9\r\nhost: localhost\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a1"),
    "unknown method": b"STEAL /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "space in a name": b"GET /livez HTTP/1.1\r\nho st: localhost\r\n\r\n",
    "NUL in a value": b"GET /livez HTTP/1.1\r\nhost: local\0host\r\n\r\n",
    "two hosts": b"GET /livez HTTP/1.1\r\nhost: localhost\r\nhost: shop.example\r\n\r\n",
    "no host": b"GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n",
    "bytes in a path": b"GET /v1/users/\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "tunnel": b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "folded header": b"GET /livez HTTP/1.1\r\n folded: x\r\nhost: localhost\r\n\r\n",
    "two lengths": HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n" + BODY,
    "length below zero": HEAD + b"content-length: -1\r\n\r\n" + BODY,
    "length of 30 digits": HEAD + b"content-length: " + b"9" * 30 + b"\r\n\r\n" + BODY,
    "length in words": HEAD + b"content-length: ten\r\n\r\n" + BODY,
    "length and chunks": HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": HEAD + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "chunk of no size": HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    "chunk below zero": HEAD + b"transfer-encoding: chunked\r\n\r\n-5\r\nabc\r\n",
    "chunk of 2^64": HEAD + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc\r\n",
    "chunked twice": HEAD + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
}


def test_what_is_no_http_is_refused_and_the_connection_ended(url: str) -> None:
    for kind, blob in NO_HTTP.items():
        said = talk(url, blob, LAST)
        assert said.startswith(b"HTTP/1.1 400 "), (kind, said)
        assert said.count(b"HTTP/1.1 ") == 1, (kind, said)  # nothing behind it was answered
        assert b"application/problem+json" in said and b"urn:clue:problem:" in said, (kind, said)
    assert len(NO_HTTP) == 22
    assert httpx.get(f"{url}/readyz").status_code == 200


def test_what_is_smuggled_behind_a_length_is_never_a_request(url: str) -> None:
    inner = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"
    chunked = HEAD + b"transfer-encoding: chunked\r\n"
    for lengths in (b"content-length: %d\r\n" % (len(inner) + 5), b"content-length : 0\r\n"):
        said = talk(url, chunked + lengths + b"\r\n0\r\n\r\n" + inner)
        assert said.startswith(b"HTTP/1.1 400 ") and b"generations" not in said
    # a length that is too long takes the next request for its body, and is no JSON then
    last = HEAD + b"connection: close\r\n"
    said = talk(url, last + b"content-length: %d\r\n\r\n" % (len(BODY) + len(LAST)) + BODY + LAST)
    assert said.startswith(b"HTTP/1.1 400 ") and said.count(b"HTTP/1.1 ") == 1
    # one that is too short leaves a rest that is no request
    said = talk(url, HEAD + b"content-length: %d\r\n\r\n" % (len(BODY) - 1) + BODY)
    assert [line.split()[1] for line in said.split(b"HTTP/1.1 ")[1:]] != []
    assert b"HTTP/1.1 200" not in said


def test_requests_in_one_packet_are_answered_in_their_order(url: str) -> None:
    livez = LAST.replace(b"connection: close\r\n", b"")
    said = talk(url, livez * 5 + WHOLE * 3 + livez + LAST)
    assert said.count(b"HTTP/1.1 200 OK") == 10
    vectors = [part.count(b'"vector"') for part in said.split(b"HTTP/1.1 200 OK")[1:]]
    assert vectors == [0] * 5 + [1] * 3 + [0] * 2
    for cut in range(1, len(WHOLE), 23):  # wherever the packet ends
        said = talk(url, WHOLE[:cut], WHOLE[cut:] + LAST)
        assert said.count(b"HTTP/1.1 200 OK") == 2, (cut, said)


def test_a_body_in_chunks_of_a_byte_is_a_body(url: str) -> None:
    head = HEAD + b"transfer-encoding: chunked\r\n\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY)
    spaces = b"1\r\n \r\n" * 20_000
    assert b"HTTP/1.1 200 OK" in talk(url, head, spaces + chunks, b"0\r\n\r\n" + LAST)


def test_headers_and_trailers_without_end_are_ended(url: str) -> None:
    """The parser keeps a header until it is whole, however long that takes to be."""
    opening = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n"
    for more in (b"a" * 60_000, b"\r\nx: a" * 10_000):
        said = talk(url, opening + b"x: a", more, more, pause=0.05)
        assert said.startswith(b"HTTP/1.1 431 ") and b"urn:clue:problem:headers-too-large" in said
    trailer = HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\nx: "
    assert talk(url, trailer, b"a" * 1_000_000 * 40) == b""
    assert httpx.get(f"{url}/readyz").status_code == 200
