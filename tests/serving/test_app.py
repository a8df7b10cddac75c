import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from clue.inference.text_encoder import TextEncoder
from serving.generation import read
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.client import body_of, events_of, live, problem, serving, users_of, vectors_in


def test_http_equals_python_whatever_shares_the_batch(
    settings: Settings, tiny_run: TinyRun, tiny_index: Path
) -> None:
    users = users_of(read(tiny_index)[1], 40)
    truth = np.concatenate([TextEncoder.load(tiny_run.run).encode([user]) for user in users])

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
    encoder = TextEncoder.load(tiny_run.run)
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
    truths = {name: encoder.encode([{"films": order}])[0] for name, (_, order) in expected.items()}
    assert not np.allclose(truths["partly"], truths["plain"], atol=1e-4)

    async def test() -> None:
        async with serving(settings) as (client, _):
            for name, (events, _) in expected.items():
                body = {"users": [{"events": events}]}
                found = vectors_in(await client.post("/v1/users/embed", json=body))[0]
                np.testing.assert_allclose(found, truths[name], atol=1e-5, err_msg=name)

    asyncio.run(test())


def test_an_answer_says_whose_it_is(settings: Settings, tiny_run: TinyRun) -> None:
    encoder = TextEncoder.load(tiny_run.run)
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
            assert body["index"] == live(app).engine.index.catalogue.name
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
            assert set(paths) >= {
                *("/livez", "/readyz", "/startupz", "/metrics", "/v1/models", "/v1/users/embed"),
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
                truth = engine.encoder.encode([history])[0].tolist()
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


def test_an_item_is_seen_by_its_id_and_by_what_the_model_reads(
    settings: Settings, tiny_index: Path
) -> None:
    index = read(tiny_index)[1]
    ids, texts = index.item_ids.to_pylist(), index.item_texts.to_pylist()
    wide = settings.model_copy(update={"max_k": 1000})
    checked = 0

    async def test() -> None:
        nonlocal checked
        async with serving(wide) as (client, _):
            for row in range(0, len(ids), len(ids) // 10):
                service = index.services[index.item_service[row]]
                same = {"service": service, "text": texts[row].upper().replace(" ", "\N{NBSP}")}
                renamed = {"service": service, "text": "another name", "item_id": ids[row]}
                for event in (same, renamed):
                    asked = {"events": [event], "k": 1000, "service": service}
                    for exclude in (False, True):
                        answer = await client.post(
                            "/v1/items/search", json={**asked, "exclude_seen": exclude}
                        )
                        hits = [hit["item_id"] for hit in answer.json()["data"]]
                        assert (ids[row] in hits) != exclude
                        checked += 1

    asyncio.run(test())
    assert checked >= 40


def test_values_of_a_log_that_http_does_not_take_are_refused_where_they_stand(
    settings: Settings,
) -> None:
    event = {"service": "shop", "text": "tea"}
    wrong = {
        "timestamp": [1.7e12, 1.7e15, "2023-11-14T22:13:20", "1700000000"],
        "time": ["2023-11-14", "2023-06-31T00:00:00Z", "9999-01-01T00:00:00Z", True],
        "amount": [3.0],
        "item_id": [123, 123.0],
        "service": [7, None],
    }
    checked = 0

    async def test() -> None:
        nonlocal checked
        async with serving(settings) as (client, _):
            for field, values in wrong.items():
                for value in values:
                    body = {"users": [{"events": [event, {**event, field: value}]}]}
                    answer = await client.post("/v1/users/embed", json=body)
                    (error,) = problem(answer, 422)["errors"]
                    assert error["pointer"] == f"/users/0/events/1/{field}", (field, value)
                    checked += 1
            absent = {"users": [{"events": [{**event, "item_id": None, "timestamp": None}]}]}
            assert (await client.post("/v1/users/embed", json=absent)).status_code == 200
            templates = (await client.get("/v1/models")).json()["index"]["templates"]
            assert set(templates.values()) == {"{title}"} and len(templates) == 3

    asyncio.run(test())
    assert checked == 13
