"""Milvus is slow, refuses, cuts, is killed or answers noise: requests end, the rest goes on."""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from serving.app import create_app
from serving.generation import read
from serving.milvus import breaker
from serving.milvus.link import Link as MilvusLink
from serving.milvus.publish import PublishConfig, bring
from serving.settings import Settings
from serving.vectors import VectorsAway
from tests.conftest import TinyRun
from tests.object_store import Link, link_to
from tests.serving.client import live, problem, serving
from tests.serving.milvus.server import running_milvus

SECONDS = 0.4
SLACK = 1.0  # of a busy machine, past the deadline of a call
AWAY = "urn:clue:problem:vectors-away"


@dataclass
class Published:
    """A running Milvus that has the index of the tiny run, behind a link that breaks."""

    link: Link
    settings: Settings
    ids: list[str]


@pytest.fixture(scope="module")
def published(
    tiny_run: TinyRun, tiny_index: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Published]:
    root = tmp_path_factory.mktemp("faults")
    with running_milvus(root / "data") as port, link_to(port) as link:
        uri, out = f"http://127.0.0.1:{port}", root / "index"
        bring(PublishConfig(index=tiny_index, out=out, uri=uri, kind="FLAT"))
        settings = Settings(
            checkpoint=tiny_run.run,
            index=out,
            vectors="milvus",
            milvus_uri=f"http://127.0.0.1:{link.port}",
            milvus_seconds=SECONDS,
        )
        yield Published(link, settings, read(tiny_index)[1].user_ids.to_pylist())


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "OPEN_SECONDS", 0.5)


@asynccontextmanager
async def started(
    published: Published, store: Path
) -> AsyncGenerator[tuple[httpx.AsyncClient, FastAPI]]:
    settings = published.settings.model_copy(update={"store": store})
    async with serving(settings) as (client, app):
        yield client, app


@contextmanager
def broken(link: Link, **how: Any) -> Generator[None]:
    before = {name: getattr(link, name) for name in how}
    for name, value in how.items():
        setattr(link, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(link, name, value)


async def timed(ask: Callable[[], Any]) -> tuple[httpx.Response, float]:
    begun = time.monotonic()
    return await ask(), time.monotonic() - begun


FAULTS: dict[str, dict[str, Any]] = {
    "slow": {"delay": 1.5},
    "refuses": {"down": True},
    "cuts": {"cuts": 1 << 30, "cut_after": 3},
    "noise": {"noise": True},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_request_ends_and_the_rest_goes_on(
    published: Published, fault: str, tmp_path: Path
) -> None:
    known = published.ids[3]
    events = [{"service": "films", "text": "a pan"}]

    async def test() -> None:
        async with started(published, tmp_path / "store") as (client, app):
            body = {"user_id": known, "k": 3}
            before = await client.post("/v1/users/similar", json=body)
            assert before.status_code == 200 and len(before.json()["data"]) == 3
            ready = (await client.get("/readyz")).json()
            assert ready["status"] == "ready"
            assert (await client.put("/v1/users/ann", json={"events": events})).status_code == 200
            with broken(published.link, **FAULTS[fault]):
                await _while_away(client, body, events)
            while (answer := await client.post("/v1/users/similar", json=body)).status_code != 200:
                assert answer.json()["type"] == AWAY
                await asyncio.sleep(0.1)
            assert answer.json()["data"] == before.json()["data"]
            for _ in range(100):  # the look once a second has seen it too
                if (await client.get("/readyz")).json() == ready:
                    break
                await asyncio.sleep(0.05)
            assert (await client.get("/readyz")).json() == ready
            near = await client.post("/v1/users/similar", json={"events": events, "k": 2})
            assert {hit["user_id"] for hit in near.json()["data"]} == {"ann", "bob"}
            assert (await client.delete("/v1/users/bob")).status_code == 200
            assert live(app).batcher.alive

    asyncio.run(asyncio.wait_for(test(), 60))


async def _while_away(
    client: httpx.AsyncClient, body: dict[str, Any], events: list[dict[str, str]]
) -> None:
    vector = (await client.get("/v1/users/ann/vector")).json()["vector"]
    asks = [
        lambda: client.post("/v1/users/similar", json=body),
        lambda: client.post("/v1/users/similar", json={"events": events, "k": 3}),
        lambda: client.post("/v1/items/search", json={"vector": vector, "k": 3}),
        lambda: client.delete("/v1/users/nobody"),
        lambda: client.get("/v1/explore/users?prefix=u"),
        lambda: client.post("/v1/explore/histories", json={"user_ids": [body["user_id"]]}),
        lambda: client.post("/v1/items/search", json={"events": events, "k": 3}),
    ]
    for answer, took in await asyncio.gather(*map(timed, asks)):
        assert problem(answer, 503)["type"] == AWAY and "Milvus" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) >= 1
        assert "127.0.0.1" not in answer.text and took < 2 * SECONDS + SLACK
    state = (await client.get("/readyz")).json()
    assert state["status"] == "degraded" and state["vectors"].startswith("Milvus ")
    refused = 0
    for _ in range(20):
        answer, took = await timed(asks[1])
        assert problem(answer, 503)["type"] == AWAY and took < SECONDS + SLACK
        refused += took < SECONDS / 2  # not even asked
    assert refused >= 10
    assert (await client.get("/livez")).status_code == 200
    assert (await client.get("/startupz")).status_code == 200
    assert (await client.get("/v1/models")).status_code == 200
    embedded = await client.post("/v1/users/embed", json={"users": [{"events": events}]})
    assert embedded.status_code == 200
    assert (await client.put("/v1/users/bob", json={"events": events})).status_code == 200
    for name in ("ann", "bob"):
        assert (await client.get(f"/v1/users/{name}/vector")).json()["vector"] == vector
        assert (await client.get(f"/v1/users/{name}")).json()["events"] == events


def test_a_service_that_starts_while_milvus_is_away_begins_when_it_comes(
    published: Published, tmp_path: Path
) -> None:
    async def test() -> None:
        with broken(published.link, down=True):
            settings = published.settings.model_copy(update={"store": tmp_path / "store"})
            app = create_app(settings)
            async with app.router.lifespan_context(app):
                transport = httpx.ASGITransport(app, raise_app_exceptions=False)
                async with httpx.AsyncClient(
                    transport=transport, base_url="http://localhost"
                ) as client:
                    await _waits(client)
                    published.link.down = False
                    while (await client.get("/readyz")).status_code != 200:
                        await asyncio.sleep(0.05)
                    body = {"user_id": published.ids[0], "k": 2}
                    assert (await client.post("/v1/users/similar", json=body)).status_code == 200

    asyncio.run(test())


async def _waits(client: httpx.AsyncClient) -> None:
    while (answer := await client.get("/readyz")).json()["type"] != AWAY:
        await asyncio.sleep(0.05)
    assert "Milvus" in problem(answer, 503)["detail"]
    assert (await client.get("/livez")).status_code == 200


@pytest.mark.cluster
def test_milvus_is_killed_and_started_again(
    published: Published, tiny_index: Path, tmp_path: Path
) -> None:
    """With all that it held, the users written to it before among them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri, data = f"http://127.0.0.1:{port}", tmp_path / "data"
    own = {"milvus_uri": uri, "index": tmp_path / "index", "store": tmp_path / "store"}
    settings = published.settings.model_copy(update=own)
    events = [{"service": "films", "text": "a pan"}]
    body = {"events": events, "k": 1}

    async def test() -> None:
        milvus = running_milvus(data, port)
        milvus.__enter__()
        bring(PublishConfig(index=tiny_index, out=settings.index, uri=uri, kind="FLAT"))
        async with serving(settings) as (client, app):
            assert (await client.put("/v1/users/ann", json={"events": events})).status_code == 200
            one = live(app)
            assert one.store is not None
            while one.engine.index.store_seq < 1:  # the upkeep's own turn
                await asyncio.sleep(0.05)
            milvus.__exit__(None, None, None)
            answer = await client.post("/v1/users/similar", json=body)
            assert problem(answer, 503)["type"] == AWAY
            with running_milvus(data, port):
                while (await client.post("/v1/users/similar", json=body)).status_code != 200:
                    await asyncio.sleep(0.1)
                answer = await client.post("/v1/users/similar", json=body)
                assert answer.json()["data"][0]["user_id"] == "ann"
                known = await asyncio.to_thread(one.engine.index.user, "ann")
                assert known is not None and known.events.sum() == 1

    asyncio.run(asyncio.wait_for(test(), 60))


def test_an_answer_that_says_nothing_is_none(published: Published) -> None:
    link = MilvusLink(str(published.settings.milvus_uri), "", seconds=2)
    for wrong in (lambda answer: answer["missing"], lambda answer: answer[99], float):
        with pytest.raises(VectorsAway, match="what is no answer"):
            link.call("list_collections", read=wrong)
    with pytest.raises(VectorsAway, match=r"has refused \(100\)"):
        link.call("describe_collection", "no_such", read=dict)
    assert link.call_if_there("describe_alias", "no_such", read=dict) is None
    assert "clue_generations" in link.call("list_collections", read=list)
    link.close()
