import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from clue.inference.text_encoder import TextEncoder
from serving.generation import read
from tests.conftest import TinyRun
from tests.serving.client import body_of, users_of, vectors_in
from tests.serving.malformed import malformed

ROOT = Path(__file__).parents[2]


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
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    server = Server(process)

    def collect(stderr: Iterator[str]) -> None:
        server.lines.extend(stderr)

    assert process.stderr is not None
    reader = threading.Thread(target=collect, args=(process.stderr,))
    reader.start()
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"running on http://([\d.]+):(\d+)", "".join(server.lines))):
            assert process.poll() is None and time.monotonic() < deadline, "".join(server.lines)
            time.sleep(0.05)
        server.address = (found[1], int(found[2]))
        with httpx.Client(base_url=server.url) as client:
            while client.get("/startupz").json().get("type") == "urn:clue:problem:loading":
                assert time.monotonic() < deadline, "".join(server.lines)
                time.sleep(0.05)
        yield server
    finally:
        process.kill()
        process.wait(10)
        reader.join(10)
        process.stderr.close()


@pytest.fixture(scope="module")
def server(tiny_run: TinyRun, tiny_index: Path) -> Generator[Server]:
    with running(tiny_run.run, tiny_index, CLUE_BODY_SECONDS="1") as server:
        yield server


def test_http_equals_python(server: Server, tiny_run: TinyRun, tiny_index: Path) -> None:
    users = users_of(read(tiny_index)[1], 30, seed=2)
    truth = TextEncoder.load(tiny_run.run).encode(users)
    with httpx.Client(base_url=server.url, timeout=20) as client:
        together = vectors_in(client.post("/v1/users/embed", json=body_of(users)))
        alone = [vectors_in(client.post("/v1/users/embed", json=body_of([u]))) for u in users]
    np.testing.assert_allclose(together, truth, atol=1e-5, rtol=0)
    np.testing.assert_allclose(np.concatenate(alone), truth, atol=1e-5, rtol=0)


def test_malformed_requests_are_4xx_problems(server: Server, tiny_index: Path) -> None:
    index = read(tiny_index)[1]
    width, user = index.item_vectors.shape[1], index.user_ids[0].as_py()
    answered: Counter[str] = Counter()
    with httpx.Client(base_url=server.url, timeout=20) as client:
        for request in malformed(width, user):
            content = (
                iter(request.content) if isinstance(request.content, list) else request.content
            )
            answer = client.request(
                request.method, request.path, content=content, headers=request.headers
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
        good = body_of(users_of(index, 3))
        assert vectors_in(client.post("/v1/users/embed", json=good)).shape == (3, width)
    assert answered.total() >= 250
    assert len(answered) >= 18
    assert not [line for line in server.lines if "Traceback" in line or "ERROR" in line]


def test_a_body_that_trickles_or_breaks_off_holds_nothing(server: Server) -> None:
    head = b"POST /v1/users/embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with socket.create_connection(server.address, timeout=10) as slow:
        started = time.monotonic()
        slow.sendall(head + b"content-length: 1000\r\n\r\n{")
        answer = slow.recv(10_000)
        assert b"408" in answer.partition(b"\r\n")[0]
        assert b"application/problem+json" in answer
        assert 0.5 < time.monotonic() - started < 5
    with socket.create_connection(server.address, timeout=10) as broken:
        broken.sendall(head + b"content-length: 1000\r\n\r\n{")
    with socket.create_connection(server.address, timeout=10) as large:
        large.sendall(head + b"content-length: 99999999999\r\n\r\n{")
        assert b"413" in large.recv(10_000).partition(b"\r\n")[0]
    assert httpx.get(f"{server.url}/readyz", timeout=10).status_code == 200


def test_sigterm_under_load_finishes_what_it_took(tiny_run: TinyRun, tiny_index: Path) -> None:
    users = [
        {"films": [f"{number} {n} a text of some length" for n in range(200)]}
        for number in range(8)
    ]
    body = httpx.Request("POST", "http://x", json=body_of(users)).content
    head = b"POST /v1/users/embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    request = head + f"content-length: {len(body)}\r\n\r\n".encode() + body
    answers: list[bytes] = []

    def finish(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            answers.append(stream.readline())
            stream.read()

    with running(tiny_run.run, tiny_index, CLUE_REQUEST_SECONDS="60") as server:
        connections = [socket.create_connection(server.address, timeout=60) for _ in range(12)]
        threads = [threading.Thread(target=finish, args=(each,)) for each in connections]
        for connection, thread in zip(connections, threads, strict=True):
            connection.sendall(request)
            thread.start()
        while not answers:  # some are answered, the others wait or are on their way
            time.sleep(0.005)
        assert len(answers) < len(connections), "all was over before the signal; send more"
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        assert server.process.wait(20) in (0, -signal.SIGTERM)
    assert [line.split()[1] for line in answers] == [b"200"] * 12
    assert not [line for line in server.lines if "Traceback" in line]


def test_clue_serve_answers_as_python_does(tiny_run: TinyRun, tiny_index: Path) -> None:
    keys = [f"checkpoint={tiny_run.run}", f"index={tiny_index}", "port=0"]
    users = [{"films": ["one", "two"]}, {"shop": ["a pan"], "news": ["bread"]}]
    with started(["clue.cli", "serve", *keys], CLUE_MAX_USERS="2") as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        answer = httpx.post(f"{server.url}/v1/users/embed", json=body_of(users))
        truth = TextEncoder.load(tiny_run.run).encode(users)
        np.testing.assert_allclose(vectors_in(answer), truth, atol=1e-5)
        more = httpx.post(f"{server.url}/v1/users/embed", json=body_of(users * 2))
        assert more.status_code == 422
