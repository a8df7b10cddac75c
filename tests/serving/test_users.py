"""Durable users over HTTP: what is written is read and searched at once, and after a restart."""

import asyncio
import os
import resource
import subprocess
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from clue.inference.text_encoder import TextEncoder
from clue.inference.universal_encoder import UniversalEncoder
from serving.generation import read
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.client import body_of, events_of, live, problem, serving, users_of, vectors_in


@pytest.fixture
def stored(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"store": tmp_path / "store"})


def events(*texts: str) -> list[dict[str, Any]]:
    return [{"service": "films", "text": text} for text in texts]


async def put(client: httpx.AsyncClient, user_id: str, body: dict[str, Any]) -> int:
    answer = await client.put(f"/v1/users/{user_id}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["seq"]


async def like(client: httpx.AsyncClient, user_id: str, **body: Any) -> list[str]:
    answer = await client.post("/v1/users/similar", json={"user_id": user_id, **body})
    assert answer.status_code == 200, answer.text
    return [hit["user_id"] for hit in answer.json()["data"]]


def test_written_appended_read_searched_deleted(stored: Settings, tiny_run: TinyRun) -> None:
    encoder = TextEncoder.load(tiny_run.run)

    async def first() -> None:
        async with serving(stored) as (client, _):
            assert await put(client, "ann", {"events": events("a pan", "bread")}) == 1
            assert (
                await put(client, "bob%2Fa%20b%3F%C3%A9", {"events": events("a pan", "bread")}) == 2
            )
            assert await like(client, "ann", k=1) == ["bob/a b?é"]
            path = "/v1/users/bob%2Fa%20b%3F%C3%A9"
            more = {"events": [{"service": "news", "text": "late", "time": "2023-11-14T22:13:20Z"}]}
            answer = await client.post(f"{path}/events", json=more)
            assert answer.json()["seq"] == 3
            user = (await client.get(path)).json()
            assert user["events"] == [
                *events("a pan", "bread"),
                {"service": "news", "text": "late", "time": 1.7e9},
            ]
            assert (user["seq"], user["as_of"], user["user_id"]) == (3, 1.7e9, "bob/a b?é")
            whole = encoder.encode([{"films": ["a pan", "bread"], "news": ["late"]}])
            np.testing.assert_allclose(user["vector"], whole[0], atol=1e-5)

    async def again() -> None:  # a restart
        async with serving(stored) as (client, _):
            whole = encoder.encode([{"films": ["a pan", "bread"], "news": ["late"]}])[0]
            body = {"vector": whole.tolist(), "k": 1}
            nearest = (await client.post("/v1/users/similar", json=body)).json()["data"]
            assert nearest[0]["user_id"] == "bob/a b?é"
            assert "ann" not in await like(client, "ann", k=100)
            answer = await client.delete("/v1/users/bob%2Fa%20b%3F%C3%A9")
            assert answer.json()["seq"] == 4
            assert "bob/a b?é" not in await like(client, "ann", k=100)
            for method in ("GET", "DELETE"):
                problem(await client.request(method, "/v1/users/bob%2Fa%20b%3F%C3%A9"), 404)
            gone = {"user_id": "bob/a b?é"}
            problem(await client.post("/v1/items/search", json=gone), 404)

    asyncio.run(first())
    asyncio.run(again())


def test_a_user_of_the_index_is_replaced_and_deleted(stored: Settings, tiny_index: Path) -> None:
    index = read(tiny_index)[1]
    one, other, third = (index.user_ids[n].as_py() for n in (0, 1, 2))

    async def test() -> None:
        async with serving(stored) as (client, app):
            problem(await client.get(f"/v1/users/{one}"), 404)  # the index alone has this user
            everybody = len(index.user_ids)
            body = events_of(users_of(index, 1)[0])
            await put(client, one, {"events": body})
            await put(client, other, {"events": body})
            assert (await like(client, one, k=2))[0] == other
            assert (await client.delete(f"/v1/users/{third}")).status_code == 200
            delta = live(app).engine.delta
            assert (len(delta), delta.num_dead) == (2, 3)
            near = await like(client, one, k=100)
            assert len(near) == 100 and third not in near and one not in near
            assert len(set(near)) == 100 and everybody > 103

    asyncio.run(test())


def test_several_users_are_written_together_or_not_at_all(stored: Settings) -> None:
    async def test() -> None:
        async with serving(stored) as (client, _):
            users = [{"user_id": f"u{n}", "events": events(f"text {n}")} for n in range(5)]
            answer = await client.post("/v1/users/upsert", json={"users": users})
            assert [one["seq"] for one in answer.json()["data"]] == [1, 2, 3, 4, 5]
            wrong = [{"user_id": "new", "events": events("x")}, {"user_id": "u1", "events": []}]
            for bad in (wrong, users * 2, [{**users[0], "user_id": "x" * 257}], users * 20):
                problem(await client.post("/v1/users/upsert", json={"users": bad}), 422)
            problem(await client.get("/v1/users/new"), 404)
            problem(await client.put(f"/v1/users/{'x' * 257}", json={"events": events("x")}), 422)
            problem(await client.put("/v1/users/a%00b", json={"events": events("x")}), 422)

    asyncio.run(test())


def test_concurrent_appends_to_one_user_are_all_kept(stored: Settings) -> None:
    settings = stored.model_copy(update={"max_events": 30})

    async def test() -> None:
        async with serving(settings) as (client, _):
            bodies = [{"events": events(f"text {n}")} for n in range(32)]
            answers = await asyncio.gather(
                *(client.post("/v1/users/busy/events", json=body) for body in bodies)
            )
            assert sorted(answer.json()["seq"] for answer in answers) == list(range(1, 33))
            kept = [
                event["text"] for event in (await client.get("/v1/users/busy")).json()["events"]
            ]
            assert len(set(kept)) == 30  # the newest, as many as a history may have

    asyncio.run(test())


def test_a_read_waits_for_the_write_that_it_names(stored: Settings) -> None:
    async def test() -> None:
        async with serving(stored) as (client, _):
            seq = await put(client, "ann", {"events": events("a pan")})
            answer = await client.get("/v1/users/ann", headers={"x-min-seq": str(seq)})
            assert answer.status_code == 200
            late = await client.get("/v1/users/ann", headers={"x-min-seq": str(seq + 1)})
            assert problem(late, 503)["type"] == "urn:clue:problem:not-yet"
            problem(await client.get("/v1/users/ann", headers={"x-min-seq": "-1"}), 422)

    asyncio.run(test())


@contextmanager
def limited() -> Generator[None]:
    """No file of this process grows beyond 100 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def filled(folder: Path) -> Generator[None]:
    """The file system of `folder` has no byte left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    yield
    filler.unlink()


@contextmanager
def small_disk(folder: Path) -> Generator[None]:
    """Mount a file system of 4 MB in memory over `folder`, which is the test's own."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def refuses_and_recovers(stored: Settings, full: AbstractContextManager[None]) -> None:
    """Have a service whose disk is full for a while refuse writes, read, search, and go on."""
    async with serving(stored) as (client, _):
        await put(client, "ann", {"events": events("a pan")})
        big = {"events": events(*(f"{n} " * 300 for n in range(500)))}
        many = {"users": [{"user_id": f"many {n}", **big} for n in range(3)]}
        with full:
            refused = [
                await client.put("/v1/users/bob", json=big),
                await client.post("/v1/users/ann/events", json=big),
                await client.post("/v1/users/upsert", json=many),
            ]
            ann = (await client.get("/v1/users/ann")).json()
            assert len(await like(client, "ann", k=3)) == 3
            assert (await client.get("/readyz")).status_code == 200
        for answer in refused:
            assert problem(answer, 507)["type"] == "urn:clue:problem:disk-full"
            assert "retry-after" in answer.headers
        assert ann["events"] == events("a pan")
        for unwritten in ("bob", "many%200", "many%202"):
            problem(await client.get(f"/v1/users/{unwritten}"), 404)
        assert await put(client, "bob", big) == 2  # by itself, without restart


def test_on_a_full_disk_reads_go_on_and_writes_are_507(stored: Settings) -> None:
    asyncio.run(refuses_and_recovers(stored, limited()))


def test_on_a_disk_without_a_byte_left_too(settings: Settings, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk):
        stored = settings.model_copy(update={"store": disk / "store"})
        asyncio.run(refuses_and_recovers(stored, filled(disk)))


def test_without_a_store_no_user_is_kept(settings: Settings) -> None:
    async def test() -> None:
        async with serving(settings) as (client, _):
            answer = await client.put("/v1/users/ann", json={"events": events("a pan")})
            assert problem(answer, 404)["type"] == "urn:clue:problem:no-store"

    asyncio.run(test())


def test_exclude_seen_leaves_out_what_a_stored_user_did(stored: Settings, tiny_index: Path) -> None:
    index = read(tiny_index)[1]
    ids, texts = index.item_ids.to_pylist(), index.item_texts.to_pylist()
    films = np.flatnonzero(index.item_service == index.services.index("films"))

    async def test() -> None:
        async with serving(stored) as (client, _):
            seen_rows = films[:20].tolist()
            history = [
                {"service": "films", "text": texts[row], "item_id": ids[row]} for row in seen_rows
            ]
            await put(client, "ann", {"events": history})
            body = {"user_id": "ann", "service": "films", "k": 100}
            for seen in (False, True):
                answer = await client.post("/v1/items/search", json={**body, "exclude_seen": seen})
                hits = {hit["item_id"] for hit in answer.json()["data"]}
                assert len(hits) == 100
                assert hits.isdisjoint(ids[row] for row in seen_rows) == seen

    asyncio.run(test())


def test_as_of_reads_the_stored_history_until_then(
    tiny_universal: TinyRun, universal_index: Path, tmp_path: Path
) -> None:
    settings = Settings(
        checkpoint=tiny_universal.run, index=universal_index, store=tmp_path / "store"
    )
    encoder = UniversalEncoder.load(tiny_universal.run)
    times = [1.70e9, 1.71e9, 1.72e9]
    history = [
        {"service": "shop", "text": f"a pan {n}", "time": time, "amount": 3.0 * n}
        for n, time in enumerate(times)
    ]

    async def test() -> None:
        async with serving(settings) as (client, app):
            await put(client, "ann", {"events": history})
            user = (await client.get("/v1/users/ann")).json()
            assert (user["as_of"], user["events"]) == (times[-1], history)
            for as_of, kept in ((1.715e9, 2), (1.75e9, 3), (None, 3)):
                moved = {} if as_of is None else {"as_of": as_of}
                embed = {"users": [{"events": history[:kept]}], **moved}
                vector = vectors_in(await client.post("/v1/users/embed", json=embed))[0]
                for path in ("/v1/items/search", "/v1/users/similar"):
                    body: dict[str, Any] = {"k": 5}
                    by_id = await client.post(path, json={**body, "user_id": "ann", **moved})
                    by_vector = await client.post(path, json={**body, "vector": vector.tolist()})
                    scores = [hit["score"] for hit in by_vector.json()["data"]]
                    if path == "/v1/users/similar":  # by the vector they are their own neighbour
                        scores = [
                            hit["score"]
                            for hit in by_vector.json()["data"]
                            if hit["user_id"] != "ann"
                        ]
                    found = [hit["score"] for hit in by_id.json()["data"]][: len(scores)]
                    np.testing.assert_allclose(found, scores, atol=1e-5)
            early = {"user_id": "ann", "as_of": 1.0e9}
            problem(await client.post("/v1/items/search", json=early), 422)
            base = live(app).engine.index.some_users(1)[0].user_id
            known = {"user_id": base, "as_of": 1.75e9}  # of whom no history is stored
            problem(await client.post("/v1/items/search", json=known), 422)
            unknown = {"events": [{**history[0], "colour": "red"}]}
            problem(await client.put("/v1/users/bob", json=unknown), 422)
            assert encoder.fields

    asyncio.run(test())


def test_embedding_users_writes_nothing(stored: Settings) -> None:
    async def test() -> None:
        async with serving(stored) as (client, app):
            body = body_of([{"films": ["one"]}])
            assert (await client.post("/v1/users/embed", json=body)).status_code == 200
            store = live(app).store
            assert store is not None and store.state().seq == 0

    asyncio.run(test())
