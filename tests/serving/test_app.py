import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from clue.embed import Encoder
from serving.generation import Contents, publish, read, writing
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.conftest import live, serving
from tests.serving.planted import contents

User = Mapping[str, Sequence[str]]


def users_of(index: Contents, count: int, *, seed: int = 0) -> list[dict[str, list[str]]]:
    """Users of one to all services with 1 to 40 catalogue texts in each."""
    rng = np.random.default_rng(seed)
    texts = index.item_texts.to_pylist()
    users: list[dict[str, list[str]]] = []
    for number in range(count):
        user: dict[str, list[str]] = {}
        for name in index.services[: 1 + number % len(index.services)]:
            own = np.flatnonzero(index.item_service == index.services.index(name))
            user[name] = [texts[i] for i in rng.choice(own, rng.integers(1, 41))]
        users.append(user)
    return users


def events_of(user: User) -> list[dict[str, str]]:
    return [{"service": name, "text": text} for name, texts in user.items() for text in texts]


def body_of(users: Sequence[User]) -> dict[str, Any]:
    return {"users": [{"events": events_of(user)} for user in users]}


def vectors_in(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array([one["vector"] for one in answer.json()["data"]], np.float32)


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    return body


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_http_equals_python_whatever_shares_the_batch(
    settings: Settings, tiny_run: TinyRun, tiny_index: Path
) -> None:
    users = users_of(read(tiny_index)[1], 40)
    truth = np.concatenate([Encoder.load(tiny_run.run).embed_users([user]) for user in users])

    async def test() -> None:
        async with serving(settings) as (client, app):
            url = "/v1/users/embed"
            together = vectors_in(await client.post(url, json=body_of(users)))
            alone = [vectors_in(await client.post(url, json=body_of([user]))) for user in users]
            answers = await asyncio.gather(*(client.post(url, json=body_of([u])) for u in users))
            at_once = np.concatenate([vectors_in(answer) for answer in answers])
        assert not live(app).batcher.alive  # the thread ends with the application
        for found in (together, np.concatenate(alone), at_once):
            np.testing.assert_allclose(found, truth, atol=1e-5, rtol=0)
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)

    asyncio.run(test())


def test_events_are_read_in_the_order_of_their_times(settings: Settings, tiny_run: TinyRun) -> None:
    encoder = Encoder.load(tiny_run.run)
    # More than the encoder reads, so that the order decides which are read at all.
    texts = [f"text {n}" for n in range(encoder.max_events + 20)]
    plain = events_of({"films": texts})
    timed = [{**event, "timestamp": 10.0 * n} for n, event in enumerate(plain)]
    mixed = [timed[n] for n in np.random.default_rng(0).permutation(len(timed))]
    partly = [{**mixed[0], "timestamp": None}, *mixed[1:]]  # so the order given counts
    expected = {
        "plain": (plain, texts),
        "timed": (timed, texts),
        "mixed": (mixed, texts),
        "partly": (partly, [event["text"] for event in mixed]),
        "equal times": ([{**event, "timestamp": 5.0} for event in plain], texts),
    }
    truths = {
        name: encoder.embed_users([{"films": order}])[0] for name, (_, order) in expected.items()
    }
    assert not np.allclose(truths["partly"], truths["plain"], atol=1e-4)

    async def test() -> None:
        async with serving(settings) as (client, _):
            for name, (events, _) in expected.items():
                body = {"users": [{"events": events}]}
                found = vectors_in(await client.post("/v1/users/embed", json=body))[0]
                np.testing.assert_allclose(found, truths[name], atol=1e-5, err_msg=name)

    asyncio.run(test())


def test_an_answer_says_whose_it_is(settings: Settings, tiny_run: TinyRun) -> None:
    encoder = Encoder.load(tiny_run.run)
    known = encoder.services[0]
    users = [
        {"user_id": "né\U0001f600", "events": [{"service": known, "text": "tea"}]},
        {"events": [{"service": "horses", "text": "<pad> \u200b\ufeff\u202e عربي \U0001f600"}]},
        {"events": [{"service": "chess", "text": " "}]},
    ]

    async def test() -> None:
        async with serving(settings) as (client, app):
            answer = await client.post("/v1/users/embed", json={"users": users})
            assert vectors_in(answer).shape == (3, encoder.width)
            body = answer.json()
            assert body["model"] == encoder.fingerprint
            assert body["index"] == live(app).engine.index.name
            assert [one["user_id"] for one in body["data"]] == ["né\U0001f600", None, None]
            assert body["unseen_services"] == ["chess", "horses"]
            models = (await client.get("/v1/models")).json()
            assert models["data"][0]["id"] == models["index"]["model"] == encoder.fingerprint
            assert models["data"][0]["width"] == encoder.width
            assert models["limits"]["users"] == settings.max_users
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["model"]) == (200, encoder.fingerprint)
            assert (await client.get("/livez")).status_code == 200
            paths = (await client.get("/openapi.json")).json()["paths"]
            assert set(paths) == {
                *("/livez", "/readyz", "/v1/models", "/v1/users/embed"),
                *("/v1/items/search", "/v1/users/similar"),
            }

    asyncio.run(test())


def test_items_found_are_the_nearest_of_all(settings: Settings, tiny_index: Path) -> None:
    index = read(tiny_index)[1]
    ids = index.item_ids.to_pylist()
    checked = 0

    async def nearest(client: httpx.AsyncClient, body: dict[str, Any], allowed: np.ndarray) -> None:
        nonlocal checked
        vector = np.array(body.pop("truth"), np.float32)
        answer = await client.post("/v1/items/search", json=body)
        assert answer.status_code == 200, answer.text
        hits = answer.json()["data"]
        scores = np.where(allowed, index.item_vectors @ vector, -2)
        assert len(hits) == min(body["k"], allowed.sum())
        best = np.sort(scores)[::-1][: len(hits)]
        np.testing.assert_allclose([hit["score"] for hit in hits], best, atol=1e-5)
        for hit in hits:  # items of equal text tie, so that which of them is found is free
            service = index.services.index(hit["service"])
            row = next(
                r
                for r, i in enumerate(ids)
                if i == hit["item_id"] and index.item_service[r] == service
            )
            assert allowed[row]
            assert hit["text"] == index.item_texts[row].as_py()
            np.testing.assert_allclose(hit["score"], scores[row], atol=1e-5)
        checked += 1

    async def test() -> None:
        async with serving(settings) as (client, app):
            engine = live(app).engine
            everything = np.ones(len(ids), bool)
            for row in range(0, len(index.user_ids), max(1, len(index.user_ids) // 12)):
                seen = np.zeros(len(ids), bool)
                seen[index.seen_values[index.seen_offsets[row] : index.seen_offsets[row + 1]]] = (
                    True
                )
                name, vector = index.user_ids[row].as_py(), index.user_vectors[row].tolist()
                user = {"user_id": name, "k": 9, "truth": vector}
                await nearest(client, dict(user), everything)
                await nearest(client, {**user, "exclude_seen": True, "k": 100}, ~seen)
                for number, service in enumerate(index.services):
                    own = index.item_service == number
                    by_vector = {"vector": vector, "k": 5, "truth": vector, "service": service}
                    await nearest(client, by_vector, own)
            texts = index.item_texts.to_pylist()
            for history in users_of(index, 6, seed=1):
                seen = np.array(
                    [
                        text in history.get(index.services[s], ())
                        for s, text in zip(index.item_service, texts, strict=True)
                    ]
                )
                truth = engine.encoder.embed_users([history])[0].tolist()
                by_events = {"events": events_of(history), "k": 20, "truth": truth}
                await nearest(client, dict(by_events), everything)
                await nearest(client, {**by_events, "exclude_seen": True}, ~seen)

    asyncio.run(test())
    assert checked >= 12 * 5


def test_users_found_are_the_nearest_and_never_oneself(
    settings: Settings, tiny_index: Path
) -> None:
    index = read(tiny_index)[1]
    ids = index.user_ids.to_pylist()
    checked = 0

    async def test() -> None:
        nonlocal checked
        async with serving(settings) as (client, _):
            for row in range(0, len(ids), max(1, len(ids) // 20)):
                scores = index.user_vectors @ index.user_vectors[row]
                by_vector = {"vector": index.user_vectors[row].tolist(), "k": 3}
                hits = (await client.post("/v1/users/similar", json=by_vector)).json()["data"]
                assert hits[0]["score"] == pytest.approx(1, abs=1e-5)
                np.testing.assert_allclose(
                    [hit["score"] for hit in hits], np.sort(scores)[::-1][:3], atol=1e-5
                )
                by_id = {"user_id": ids[row], "k": 5}
                hits = (await client.post("/v1/users/similar", json=by_id)).json()["data"]
                assert ids[row] not in {hit["user_id"] for hit in hits}
                scores[row] = -2
                for hit, best in zip(hits, np.sort(scores)[::-1][:5], strict=True):
                    assert hit["score"] == pytest.approx(
                        scores[ids.index(hit["user_id"])], abs=1e-5
                    )
                    assert hit["score"] == pytest.approx(best, abs=1e-5)
                checked += 1
            answer = await client.post(
                "/v1/users/similar", json={"events": [{"service": "s", "text": "tea"}], "k": 100}
            )
            assert len(answer.json()["data"]) == min(100, len(ids))

    asyncio.run(test())
    assert checked >= 20


def test_a_vector_that_is_none_is_a_fault_and_fails_its_user_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Encoder.embed_users

    def poisoned(self: Encoder, users: Sequence[User]) -> np.ndarray:
        vectors = real(self, users)
        for row, user in enumerate(users):
            if "poison" in user:
                vectors[row] = {"nan": np.nan, "zero": 0.0, "inf": np.inf}[user["poison"][0]]
            if "crash" in user:
                raise ArithmeticError("secret text")
        return vectors

    async def test() -> None:
        async with serving(settings) as (client, _):
            monkeypatch.setattr(Encoder, "embed_users", poisoned)
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
    """Holds the model thread inside `embed_users` and remembers which services it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self.given: set[str] = set()
        real = Encoder.embed_users

        def slow(encoder: Encoder, users: Sequence[User]) -> np.ndarray:
            self.given |= {name for user in users for name in user}
            self.entered.set()
            assert self.go.wait(20)
            return real(encoder, users)

        monkeypatch.setattr(Encoder, "embed_users", slow)


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
            monkeypatch.setattr(Encoder, "embed_users", die)
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
    encoder = Encoder.load(tiny_run.run)
    other = contents(width=encoder.width)  # the same width: only the fingerprint tells
    with writing(tmp_path / "other", overwrite=False):
        publish(tmp_path / "other", other)
    changed = settings.model_copy(update={"index": tmp_path / "other"})
    refused = asyncio.run(refused_with(changed))
    assert refused["fingerprints"] == {
        "model": encoder.fingerprint,
        "index_model": other.model_fingerprint,
    }


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


def test_a_missing_checkpoint_or_index_is_refused_without_naming_paths(
    settings: Settings, tmp_path: Path
) -> None:
    for key in ("checkpoint", "index"):
        changed = settings.model_copy(update={key: tmp_path / "nothing"})
        refused = asyncio.run(refused_with(changed))
        assert key in refused["detail"]
        assert str(tmp_path) not in json.dumps(refused)
