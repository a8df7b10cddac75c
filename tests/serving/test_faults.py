import asyncio
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clue.inference.text_encoder import TextEncoder
from serving.generation import publish, read, writing
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.client import User, body_of, live, problem, serving, until, vectors_in
from tests.serving.planted import contents


def test_a_vector_that_is_none_is_a_fault_and_fails_its_user_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TextEncoder.encode

    def poisoned(self: TextEncoder, users: Sequence[User]) -> np.ndarray:
        vectors = real(self, users)
        for row, user in enumerate(users):
            if "poison" in user:
                vectors[row] = {"nan": np.nan, "zero": 0.0, "inf": np.inf}[user["poison"][0]]
            if "crash" in user:
                raise ArithmeticError("secret text")
        return vectors

    async def test() -> None:
        async with serving(settings) as (client, _):
            monkeypatch.setattr(TextEncoder, "encode", poisoned)
            bad = [{"poison": [kind]} for kind in ("nan", "zero", "inf")] + [{"crash": ["x"]}]
            good = [{"films": [f"text {n}"]} for n in range(4)]
            answers = await asyncio.gather(
                *(client.post("/v1/users/embed", json=body_of([user])) for user in bad + good)
            )
            for answer in answers[: len(bad)]:
                assert "secret" not in json.dumps(problem(answer, 500))
            for answer in answers[len(bad) :]:
                assert np.isfinite(vectors_in(answer)).all()
            whole = await client.post("/v1/users/embed", json=body_of([good[0], bad[0]]))
            problem(whole, 500)
            assert (await client.get("/readyz")).status_code == 200

    asyncio.run(test())


class Held:
    """Holds the model thread inside `encode` and remembers which services it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self.given: set[str] = set()
        real = TextEncoder.encode

        def slow(encoder: TextEncoder, users: Sequence[User]) -> np.ndarray:
            self.given |= {name for user in users for name in user}
            self.entered.set()
            assert self.go.wait(20)
            return real(encoder, users)

        monkeypatch.setattr(TextEncoder, "encode", slow)


def test_a_full_queue_is_429_and_says_when_to_come_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={"queue_size": 2})

    async def test() -> None:
        async with serving(settings) as (client, app):
            held = Held(monkeypatch)
            body = body_of([{"films": ["one"]}])
            tasks = [asyncio.ensure_future(client.post("/v1/users/embed", json=body))]
            await asyncio.to_thread(held.entered.wait, 10)
            for _ in range(2):
                tasks.append(asyncio.ensure_future(client.post("/v1/users/embed", json=body)))
            while live(app).batcher.waiting < 2:
                await asyncio.sleep(0.01)
            started = time.monotonic()
            refused = await client.post("/v1/users/embed", json=body)
            assert time.monotonic() - started < 1
            assert problem(refused, 429)["type"] == "urn:clue:problem:queue-full"
            assert int(refused.headers["retry-after"]) >= 1
            assert (await client.get("/livez")).status_code == 200
            held.go.set()
            assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}

    asyncio.run(test())


def test_an_answer_that_takes_too_long_is_504(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={"request_seconds": 0.2})

    async def test() -> None:
        async with serving(settings) as (client, _):
            held = Held(monkeypatch)
            slow = await client.post("/v1/users/embed", json=body_of([{"films": ["one"]}]))
            problem(slow, 504)
            assert "retry-after" in slow.headers
            held.go.set()

    asyncio.run(test())


def test_what_a_departed_client_asked_is_never_computed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with serving(settings) as (client, app):
            held = Held(monkeypatch)
            first = asyncio.ensure_future(
                client.post("/v1/users/embed", json=body_of([{"films": ["one"]}]))
            )
            await asyncio.to_thread(held.entered.wait, 10)
            left = asyncio.Event()
            whole = json.dumps(body_of([{"departed": ["two"]}])).encode()
            messages = [{"type": "http.request", "body": whole, "more_body": False}]

            async def receive() -> dict[str, Any]:
                if messages:
                    return messages.pop()
                await left.wait()
                return {"type": "http.disconnect"}

            async def send(_: Any) -> None: ...

            headers = [(b"content-type", b"application/json")]
            scope = {"type": "http", "method": "POST", "path": "/v1/users/embed"}
            scope |= {"headers": headers, "query_string": b"", "http_version": "1.1"}
            request = asyncio.ensure_future(app(scope, receive, send))
            while not live(app).batcher.waiting:
                await asyncio.sleep(0.01)
            left.set()
            await asyncio.wait_for(request, 5)
            assert live(app).batcher.waiting == 0
            held.go.set()
            assert (await first).status_code == 200
            assert "films" in held.given
            assert "departed" not in held.given

    asyncio.run(test())


def test_the_end_of_the_model_thread_is_seen(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> np.ndarray:
        raise SystemExit

    async def test() -> None:
        async with serving(settings) as (client, app):
            assert (await client.get("/readyz")).status_code == 200
            monkeypatch.setattr(TextEncoder, "encode", die)
            body = body_of([{"films": ["one"]}])
            problem(await client.post("/v1/users/embed", json=body), 503)
            await asyncio.to_thread(until, lambda: not live(app).batcher.alive)
            problem(await client.get("/readyz"), 503)
            problem(await client.post("/v1/users/embed", json=body), 503)
            assert (await client.get("/livez")).status_code == 200

    asyncio.run(test())


async def refused_with(settings: Settings) -> dict[str, Any]:
    """The problem that every path but /livez answers."""
    async with serving(settings) as (client, _):
        assert (await client.get("/livez")).status_code == 200
        bodies = [problem(await client.get(path), 503) for path in ("/readyz", "/v1/models")]
        posts = {
            "/v1/users/embed": body_of([{"films": ["one"]}]),
            "/v1/items/search": {"user_id": "1"},
            "/v1/users/similar": {"user_id": "1"},
        }
        bodies += [problem(await client.post(p, json=body), 503) for p, body in posts.items()]
        assert all(body == bodies[0] for body in bodies)
        return bodies[0]


def test_an_index_of_another_model_is_never_searched(
    settings: Settings, tiny_run: TinyRun, tmp_path: Path
) -> None:
    encoder = TextEncoder.load(tiny_run.run)
    other = contents(width=encoder.width)  # the same width: only the fingerprint tells
    with writing(tmp_path / "other", overwrite=False):
        publish(tmp_path / "other", other)
    changed = settings.model_copy(update={"index": tmp_path / "other"})
    refused = asyncio.run(refused_with(changed))
    assert refused["fingerprints"] == {
        "model": encoder.fingerprint,
        "index_model": other.model_fingerprint,
    }


def test_an_index_of_another_contract_is_never_searched(
    settings: Settings, tiny_run: TinyRun, tmp_path: Path
) -> None:
    """Other columns and other lengths under the fingerprint of this model's weights."""
    encoder = TextEncoder.load(tiny_run.run)
    wide, fitting = (
        replace(contents(width=width), model_fingerprint=encoder.fingerprint)
        for width in (encoder.width + 1, encoder.width)
    )
    long = replace(fitting, user_vectors=2 * fitting.user_vectors)
    for name, made, said in (("wide", wide, "numbers"), ("long", long, "of length one")):
        with writing(tmp_path / name, overwrite=False):
            publish(tmp_path / name, made)
        changed = settings.model_copy(update={"index": tmp_path / name})
        assert said in asyncio.run(refused_with(changed))["detail"]


def test_a_damaged_index_is_refused_by_name(
    settings: Settings, tiny_index: Path, tmp_path: Path
) -> None:
    _, whole = read(tiny_index)
    out = tmp_path / "damaged"
    with writing(out, overwrite=False):
        name = publish(out, whole)
    changed = settings.model_copy(update={"index": out})
    path = out / name / "arrays.safetensors"
    blob = bytearray(path.read_bytes())
    blob[-5] ^= 4
    for damaged in (bytes(blob), path.read_bytes()[:-100]):
        path.write_bytes(damaged)
        refused = asyncio.run(refused_with(changed))
        assert "arrays.safetensors" in refused["detail"]
        assert str(tmp_path) not in json.dumps(refused)


def test_a_damaged_generation_leaves_the_one_before_in_service(
    settings: Settings, tiny_index: Path, tmp_path: Path
) -> None:
    """It holds all that the store does, /readyz says so, and the next one is taken up."""
    _, whole = read(tiny_index)
    out = tmp_path / "index"
    settings = settings.model_copy(update={"index": out, "store": tmp_path / "store"})
    published = []
    with writing(out, overwrite=True):
        published += [publish(out, whole), publish(out, replace(whole, corpus_name="b"))]
    event = {"service": "films", "text": "a pan"}
    gone = whole.user_ids[0].as_py()

    async def written() -> None:
        async with serving(settings) as (client, _):
            ready = (await client.get("/readyz")).json()
            assert ready["index"] == published[1] and "fallback" not in ready
            assert (await client.put("/v1/users/ann", json={"events": [event]})).status_code == 200
            assert (await client.delete(f"/v1/users/{gone}")).status_code == 200

    async def damaged() -> None:
        async with serving(settings) as (client, _):
            ready = (await client.get("/readyz")).json()
            assert ready["index"] == published[0]
            assert published[1] in ready["fallback"] and "items.arrow" in ready["fallback"]
            assert str(tmp_path) not in ready["fallback"]
            body = {"events": [event], "k": 100}
            alike = (await client.post("/v1/users/similar", json=body)).json()["data"]
            assert alike[0]["user_id"] == "ann" and gone not in {hit["user_id"] for hit in alike}
            with writing(out, overwrite=True):
                published.append(publish(out, replace(whole, corpus_name="c")))
            while (ready := (await client.get("/readyz")).json())["index"] != published[2]:
                await asyncio.sleep(0.05)
            assert "fallback" not in ready

    asyncio.run(written())
    (out / published[1] / "items.arrow").write_bytes(b"torn")
    asyncio.run(damaged())


def test_a_missing_checkpoint_or_index_is_refused_without_naming_paths(
    settings: Settings, tmp_path: Path
) -> None:
    for key in ("checkpoint", "index"):
        changed = settings.model_copy(update={key: tmp_path / "nothing"})
        refused = asyncio.run(refused_with(changed))
        assert key in refused["detail"]
        assert str(tmp_path) not in json.dumps(refused)
