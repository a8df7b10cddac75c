import asyncio
import json
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest

from clue.inference.text_encoder import TextEncoder
from serving import server as server_module
from serving.generation import read
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.client import body_of, problem, users_of, vectors_in
from tests.serving.process import Server, listening, loaded, running, started


@pytest.fixture(scope="module")
def server(tiny_run: TinyRun, tiny_index: Path) -> Generator[Server]:
    limits = {
        **{"CLUE_HEADER_SECONDS": "1", "CLUE_BODY_SECONDS": "1", "CLUE_WRITE_SECONDS": "1"},
        **{"CLUE_REQUEST_SECONDS": "60", "CLUE_DRAIN_SECONDS": "5", "CLUE_LOG": "json"},
    }
    with running(tiny_run.run, tiny_index, **limits) as server:
        yield server


def test_http_equals_python(server: Server, tiny_run: TinyRun, tiny_index: Path) -> None:
    users = users_of(read(tiny_index)[1], 30, seed=2)
    truth = TextEncoder.load(tiny_run.run).encode(users)
    with httpx.Client(base_url=server.url, timeout=20) as client:
        together = vectors_in(client.post("/v1/users/embed", json=body_of(users)))
        alone = [vectors_in(client.post("/v1/users/embed", json=body_of([u]))) for u in users]
    np.testing.assert_allclose(together, truth, atol=1e-5, rtol=0)
    np.testing.assert_allclose(np.concatenate(alone), truth, atol=1e-5, rtol=0)


def test_a_body_that_trickles_or_breaks_off_holds_nothing(server: Server) -> None:
    head = b"POST /v1/users/embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
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


def memory(server: Server) -> int:
    """The largest resident size so far, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


def test_a_body_of_100_mb_is_refused_and_never_held(server: Server) -> None:
    """Stock uvicorn and FastAPI took 1.3 GB for it."""
    part = b" " * 1_000_000
    with httpx.Client(base_url=server.url, timeout=20) as client:
        assert client.get("/v1/models").status_code == 200
        before = memory(server)
        head = b"POST /v1/users/embed HTTP/1.1\r\nhost: localhost\r\n"
        head += b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        with socket.create_connection(server.address, timeout=20) as large:
            large.sendall(head)
            sent = 0
            while sent < 100 and not select.select([large], [], [], 0)[0]:
                large.sendall(b"f4240\r\n" + part + b"\r\n")
                sent += 1
            # who sends on, having an answer, is heard out and not reset
            for _ in range(50):
                large.sendall(b"f4240\r\n" + part + b"\r\n")
            large.sendall(b"0\r\n\r\n")
            said = b"".join(iter(lambda: large.recv(10_000), b""))
            assert b"413" in said.partition(b"\r\n")[0] and said.count(b"HTTP/1.1") == 1
        assert client.get("/v1/models").status_code == 200
    assert memory(server) - before < 16_000_000


def test_freed_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 MB in small pieces every hundredth is kept: glibc holds on to all of them."""
    monkeypatch.setattr(server_module, "TRIM_SECONDS", 0.05)
    process = psutil.Process()

    def scatter() -> list[np.ndarray]:
        return [np.ones(8000) for _ in range(3000)][::100]

    async def test() -> tuple[int, int]:
        kept = await asyncio.to_thread(scatter)  # from a thread's own arena
        before = process.memory_info().rss
        task = asyncio.create_task(server_module.return_memory())
        await asyncio.sleep(0.3)
        assert not task.done() and len(kept) == 30
        task.cancel()
        return before, process.memory_info().rss

    before, after = asyncio.run(test())
    assert before - after > 100_000_000


def test_slow_connections_are_freed_in_time_and_nobody_else_waits(server: Server) -> None:
    """Stock uvicorn kept all of 200 such connections for as long as they sent a byte a second."""
    kinds = [
        b"",
        b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: ",
        # answered, and yet its body goes on
        b"POST /livez HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n",
    ]
    sockets = [socket.create_connection(server.address, timeout=10) for _ in range(120)]
    started, slowest, freed = time.monotonic(), 0.0, 0
    for number, each in enumerate(sockets):
        each.setblocking(False)
        each.send(kinds[number % len(kinds)])
    left = list(enumerate(sockets))
    with httpx.Client(base_url=server.url, timeout=20) as client:
        while left and time.monotonic() - started < 10:
            before = time.monotonic()
            assert client.get("/livez").status_code == 200
            slowest = max(slowest, time.monotonic() - before)
            for number, each in list(left):
                try:
                    if number % len(kinds):
                        each.send(b"a")
                    while each.recv(65_536):
                        pass
                except BlockingIOError:
                    continue
                except OSError:
                    pass
                each.close()
                left.remove((number, each))
                freed += 1
            time.sleep(0.05)
        assert freed == len(sockets)
        assert slowest < 1
        open_files = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        assert client.get("/readyz").status_code == 200
    assert open_files < 60
    with socket.create_connection(server.address, timeout=10) as quiet:
        said = quiet.recv(10_000)
        assert said.startswith(b"HTTP/1.1 408") and b"urn:clue:problem:slow-request" in said


def test_connections_beyond_the_limit_are_told_so(settings: Settings) -> None:
    with listening(settings.model_copy(update={"max_connections": 4})) as url:
        address = urlsplit(url)
        assert address.hostname is not None and address.port is not None
        at = (address.hostname, address.port)
        held = [socket.create_connection(at, timeout=10) for _ in range(4)]
        assert httpx.get(f"{url}/livez").status_code == 503
        for each in held:
            each.close()
        deadline = time.monotonic() + 10
        while httpx.get(f"{url}/livez").status_code != 200:
            assert time.monotonic() < deadline


def test_sigterm_under_load_finishes_what_it_took(server: Server) -> None:
    """The last test of this server. Bodies that trickled to it before are not its slowness."""
    users = [
        {"films": [f"{number} {n} a text of some length" for n in range(200)]}
        for number in range(8)
    ]
    body = httpx.Request("POST", "http://x", json=body_of(users)).content
    head = b"POST /v1/users/embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    request = head + f"content-length: {len(body)}\r\n\r\n".encode() + body
    answers: list[bytes] = []

    def finish(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            answers.append(stream.readline())
            stream.read()

    connections = [socket.create_connection(server.address, timeout=60) for _ in range(14)]
    threads = [threading.Thread(target=finish, args=(each,)) for each in connections]
    on_their_way = connections[12:]  # however fast the others are
    for connection, thread in zip(connections, threads, strict=True):
        connection.sendall(request[:-1] if connection in on_their_way else request)
        thread.start()
    while not answers:  # some are answered, the others wait or are on their way
        time.sleep(0.005)
    server.process.send_signal(signal.SIGTERM)
    with httpx.Client(base_url=server.url, timeout=60) as late:
        while (ready := late.get("/readyz")).status_code == 200:
            time.sleep(0.01)
        assert problem(ready, 503)["type"] == "urn:clue:problem:draining"
        assert ready.headers["connection"] == "close"
        # who has not heard of it yet is answered as before
        assert late.post("/v1/users/embed", json=body_of(users[:1])).status_code == 200
    for connection in on_their_way:
        connection.sendall(request[-1:])
    for thread in threads:
        thread.join(60)
    assert server.process.wait(20) in (0, -signal.SIGTERM)
    assert [line.split()[1] for line in answers] == [b"200"] * 14
    assert not [line for line in server.lines if "Traceback" in line]
    lines = [json.loads(line) for line in server.lines if line.strip()]
    assert {"event", "level", "timestamp", "logger"} <= lines[-1].keys()
    assert any("NO API KEYS" in line["event"] for line in lines)


@pytest.fixture(scope="module")
def workers(
    tiny_run: TinyRun, tiny_index: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Server]:
    """`clue serve` in two processes over one store."""
    keys = [f"checkpoint={tiny_run.run}", f"index={tiny_index}", "port=0", "workers=2"]
    store = tmp_path_factory.mktemp("workers") / "store"
    environment = {"CLUE_MAX_USERS": "2", "CLUE_STORE": str(store)}
    with started(["clue.cli", "serve", *keys], **environment) as server:
        yield server


def test_clue_serve_answers_as_python_does(workers: Server, tiny_run: TinyRun) -> None:
    users = [{"films": ["one", "two"]}, {"shop": ["a pan"], "news": ["bread"]}]
    embed = f"{workers.url}/v1/users/embed"
    assert loaded(lambda: httpx.get(f"{workers.url}/readyz")).status_code == 200
    answer = loaded(lambda: httpx.post(embed, json=body_of(users)))
    truth = TextEncoder.load(tiny_run.run).encode(users)
    np.testing.assert_allclose(vectors_in(answer), truth, atol=1e-5)
    more = loaded(lambda: httpx.post(embed, json=body_of(users * 2)))
    assert more.status_code == 422
    for _ in range(10):  # whichever process answers
        loaded(lambda: httpx.get(f"{workers.url}/v1/models"))
    counted = httpx.get(f"{workers.url}/metrics").text
    assert 'clue_requests_total{method="GET",route="/v1/models",status="200"} 10.0' in counted
    assert 'route="/v1/users/embed",status="200"} 1.0' in counted


@contextmanager
def client_of_each(workers: Server) -> Generator[list[httpx.Client]]:
    """A connection to each of the two processes: who accepts one keeps it."""
    with ExitStack() as stack:
        held: dict[int, httpx.Client] = {}
        deadline = time.monotonic() + 60
        while len(held) < 2:
            assert time.monotonic() < deadline
            client = stack.enter_context(httpx.Client(base_url=workers.url, timeout=60))
            loaded(lambda client=client: client.get("/readyz"))
            ours = {c.laddr.port for c in psutil.Process().net_connections("tcp") if c.raddr}
            for process in psutil.Process(workers.process.pid).children(recursive=True):
                theirs = [c.raddr.port for c in process.net_connections("tcp") if c.raddr]
                if ours.intersection(theirs) and process.pid not in held:
                    held[process.pid] = client
        yield list(held.values())


def test_what_one_process_wrote_the_other_reads_at_once(workers: Server) -> None:
    with client_of_each(workers) as clients:
        for number in range(20):
            one, other = clients[number % 2], clients[1 - number % 2]
            event = {"service": "films", "text": f"text {number}"}
            answer = one.put(f"/v1/users/u{number % 3}", json={"events": [event]})
            after = {"x-min-seq": str(answer.json()["seq"])}
            user = other.get(f"/v1/users/u{number % 3}", headers=after)
            assert user.json()["events"] == [event]
            body = {"vector": user.json()["vector"], "k": 1}
            alike = other.post("/v1/users/similar", json=body, headers=after).json()["data"]
            assert alike[0]["user_id"] == f"u{number % 3}"
        gone = clients[0].delete("/v1/users/u0")
        after = {"x-min-seq": str(gone.json()["seq"])}
        problem(clients[1].get("/v1/users/u0", headers=after), 404)


def test_32_upserts_of_one_user_at_once_leave_one_user(workers: Server) -> None:
    def put(number: int) -> dict[str, Any]:
        event = {"service": "films", "text": f"text {number}"}
        answer = clients[number % 2].put("/v1/users/same", json={"events": [event]})
        assert answer.status_code == 200, answer.text
        return {"seq": answer.json()["seq"], "events": [event]}

    with client_of_each(workers) as clients, ThreadPoolExecutor(32) as pool:
        written = list(pool.map(put, range(32)))
        last = max(written, key=lambda each: each["seq"])
        assert len({each["seq"] for each in written}) == 32
        after = {"x-min-seq": str(last["seq"])}
        for client in clients:
            user = client.get("/v1/users/same", headers=after).json()
            assert {name: user[name] for name in last} == last
            body = {"vector": user["vector"], "k": 100}
            alike = client.post("/v1/users/similar", json=body, headers=after).json()["data"]
            assert [hit["user_id"] for hit in alike].count("same") == 1
