"""The service over a model of item ids: what the model says, and events that it cannot read."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.evaluation.encode import last_states
from clue.inference.item_id_encoder import ItemIdEncoder
from serving.engine import Query, cost_of
from serving.generation import read
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.client import problem, serving, vectors_in
from tests.serving.malformed import malformed

EMBED, ITEMS, USERS = "/v1/users/embed", "/v1/items/search", "/v1/users/similar"


@pytest.fixture
def settings(tiny_items: TinyRun, items_index: Path) -> Settings:
    return Settings(checkpoint=tiny_items.run, index=items_index)


@pytest.fixture(scope="module")
def encoder(tiny_items: TinyRun) -> ItemIdEncoder:
    return ItemIdEncoder.load(tiny_items.run)


def histories(encoder: ItemIdEncoder, count: int) -> list[list[tuple[str, str]]]:
    """Users who did 1 to 30 things, in all services in turn."""
    rng, keys = np.random.default_rng(0), list(encoder.rows)
    return [[keys[n] for n in rng.choice(len(keys), 1 + 29 * u // count)] for u in range(count)]


def body(history: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"service": service, "item_id": item_id} for service, item_id in history]


def test_http_equals_python(settings: Settings, encoder: ItemIdEncoder) -> None:
    users = histories(encoder, 20)
    truth = encoder.encode_events(users)
    alone = {user[0][0]: [item for s, item in user if s == user[0][0]] for user in users[-1:]}

    async def test() -> None:
        async with serving(settings) as (client, _):
            asked = {"users": [{"events": body(user)} for user in users]}
            together = await client.post(EMBED, json=asked)
            assert together.json()["unseen_services"] == []
            # a kernel on another number of threads than a former test left rounds otherwise
            np.testing.assert_allclose(vectors_in(together), truth, atol=1e-6)
            ((service, ids),) = alone.items()
            one = {"users": [{"events": body([(service, item) for item in ids])}]}
            found = vectors_in(await client.post(EMBED, json=one))
            np.testing.assert_allclose(found, encoder.encode([alone]), atol=1e-6)
            # times decide, not the order given, across services too
            timed = [{**event, "timestamp": float(n)} for n, event in enumerate(body(users[-1]))]
            late = {"users": [{"events": timed[::-1]}]}
            found = vectors_in(await client.post(EMBED, json=late))
            np.testing.assert_allclose(found[0], truth[-1], atol=1e-6)
            models = (await client.get("/v1/models")).json()["data"][0]
            assert (models["reads"], models["width"]) == ("item_id", encoder.width)
            assert models["services"] == list(encoder.services)

    asyncio.run(test())


def test_items_found_are_the_model_s_own_top(settings: Settings, encoder: ItemIdEncoder) -> None:
    users, keys = histories(encoder, 12), list(encoder.rows)
    rows = Ragged.from_lists([[encoder.rows[event] for event in user] for user in users])
    states = last_states(encoder.model, rows)
    logits = (states.double() @ encoder.model.decoder.item.weight.detach().double().T).numpy()
    checked = 0

    async def test() -> None:
        nonlocal checked
        async with serving(settings) as (client, _):
            for user, scores in zip(users, logits, strict=True):
                seen = np.isin(np.arange(len(keys)), [encoder.rows[event] for event in user])
                for exclude in (False, True):
                    asked = {"events": body(user), "k": 20, "exclude_seen": exclude}
                    answer = await client.post(ITEMS, json=asked)
                    assert answer.status_code == 200, answer.text
                    hits = answer.json()["data"]
                    found = [encoder.rows[hit["service"], hit["item_id"]] for hit in hits]
                    allowed = np.where(seen & exclude, -np.inf, scores)
                    best = np.sort(allowed)[::-1][:20]
                    np.testing.assert_allclose(allowed[found], best, rtol=0, atol=1e-6)
                    assert len(set(found)) == 20
                    checked += 1

    asyncio.run(test())
    assert checked == 24


def test_the_index_holds_users_as_python_gives_them(
    items_index: Path, tiny_items: TinyRun, encoder: ItemIdEncoder
) -> None:
    corpus, index = Corpus.open(tiny_items.corpus), read(items_index)[1]
    np.testing.assert_array_equal(index.item_vectors, encoder.encode_catalogue(corpus))
    rows = {name: row for row, name in enumerate(corpus.user_ids.to_pylist())}
    users: list[list[tuple[str, str]]] = []
    for name in index.user_ids.to_pylist()[::9]:
        done = [
            (time, service, corpus.item_ids[int(item)].as_py())
            for number, service in enumerate(corpus.services)
            for time, item in zip(
                corpus.timestamps_of(number)[rows[name]].tolist(),
                corpus.items_of(number)[rows[name]],
                strict=True,
            )
        ]
        done.sort(key=lambda event: event[0])
        users.append([(service, item_id) for _, service, item_id in done])
    assert len(users) > 20
    truth = encoder.encode_events(users)
    np.testing.assert_allclose(index.user_vectors[::9], truth, atol=1e-6)


def test_what_the_model_cannot_read_is_named(settings: Settings, encoder: ItemIdEncoder) -> None:
    service, item_id = next(iter(encoder.rows))
    other = next(name for name in encoder.services if (name, item_id) not in encoder.rows)
    good = {"service": service, "item_id": item_id}
    wrong: dict[str, list[dict[str, Any]]] = {
        "service": [{**good, "service": "horses"}, {**good, "service": "\U0001f600"}],
        "item_id": [
            {**good, "item_id": "nothing"},
            {**good, "service": other},
            {"service": service},
            {"service": service, "text": "tea"},
            {**good, "item_id": None},
            {**good, "item_id": ""},
            {**good, "item_id": 7},
            {**good, "item_id": "x" * 257},
            {**good, "item_id": "a\0"},
        ],
        "text": [{**good, "text": "x" * 2049}, {**good, "text": ""}, {**good, "text": 1}],
    }
    checked = 0

    async def test() -> None:
        nonlocal checked
        async with serving(settings) as (client, _):
            for field, events in wrong.items():
                for event in events:
                    for path in (EMBED, ITEMS, USERS):
                        mine = {"events": [good, event]}
                        asked = {"users": [mine]} if path == EMBED else mine
                        refused = problem(await client.post(path, json=asked), 422)
                        where = "/users/0" if path == EMBED else ""
                        pointers = [error["pointer"] for error in refused["errors"]]
                        assert pointers == [f"{where}/events/1/{field}"]
                        checked += 1
            for path in (EMBED, ITEMS, USERS):
                asked = {"users": [{"events": []}]} if path == EMBED else {"events": []}
                problem(await client.post(path, json=asked), 422)
            # a client may send both: the model takes what it reads
            both = {"users": [{"events": [{**good, "text": "tea"}]}]}
            expected = encoder.encode_events([[(service, item_id)]])
            found = vectors_in(await client.post(EMBED, json=both))
            np.testing.assert_array_equal(found, expected)

    asyncio.run(test())
    assert checked == 14 * 3


def test_a_model_of_texts_asks_for_texts(tiny_run: TinyRun, tiny_index: Path) -> None:
    async def test() -> None:
        settings = Settings(checkpoint=tiny_run.run, index=tiny_index)
        async with serving(settings) as (client, _):
            event = {"service": "shop", "item_id": "1"}
            asked = {"users": [{"events": [{"service": "shop", "text": "tea"}, event]}]}
            (error,) = problem(await client.post(EMBED, json=asked), 422)["errors"]
            assert error["pointer"] == "/users/0/events/1/text"
            assert "reads the text" in error["detail"]
            models = (await client.get("/v1/models")).json()["data"][0]
            assert models["reads"] == "text"

    asyncio.run(test())


def test_an_item_id_costs_one_token_whatever_its_length(encoder: ItemIdEncoder) -> None:
    query = Query(histories=[[("shop", "x" * 200)] * 3, [("shop", "y")]])
    assert cost_of(query, encoder) == 4


def test_malformed_requests_are_4xx_problems(settings: Settings, items_index: Path) -> None:
    index = read(items_index)[1]
    refused = 0

    async def test() -> None:
        nonlocal refused
        async with serving(settings) as (client, _):
            for bad in malformed(index.item_vectors.shape[1], index.user_ids[0].as_py()):
                content = b"".join(bad.content) if isinstance(bad.content, list) else bad.content
                answer = await client.request(
                    bad.method, bad.path, content=content, headers=bad.headers
                )
                assert 400 <= answer.status_code < 500, (bad.kind, answer.text[:200])
                problem(answer, answer.status_code)
                refused += 1

    asyncio.run(test())
    assert refused >= 250


def test_all_faults_of_a_request_are_named_at_once(
    settings: Settings, encoder: ItemIdEncoder
) -> None:
    service, item_id = next(iter(encoder.rows))
    good = {"service": service, "item_id": item_id}
    new = {"service": service, "item_id": "new"}

    async def test() -> None:
        async with serving(settings) as (client, _):
            users = [{"events": [new, good, new, {"service": "attic", "item_id": "1"}]}]
            users += [{"events": [good]}, {"events": [{"service": service}]}]
            refused = problem(await client.post(EMBED, json={"users": users}), 422)
            assert [error["pointer"] for error in refused["errors"]] == [
                "/users/0/events/0/item_id",
                "/users/0/events/2/item_id",
                "/users/0/events/3/service",
                "/users/2/events/0/item_id",
            ]
            refused = problem(await client.post(ITEMS, json={"events": [new] * 30}), 422)
            assert len(refused["errors"]) == 20

    asyncio.run(test())
