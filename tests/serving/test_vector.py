"""A stored user's vector alone: that of the whole user, after every write."""

import asyncio
from pathlib import Path

import numpy as np

from serving.encodings import OCTETS
from serving.settings import Settings
from tests.serving.client import problem, serving

PATH = "/v1/users/ann%2Fb"


def test_it_is_the_whole_users_after_every_write(settings: Settings, tmp_path: Path) -> None:
    stored = settings.model_copy(update={"store": tmp_path / "store"})

    async def test() -> None:
        async with serving(stored) as (client, _):
            problem(await client.get(f"{PATH}/vector"), 404)
            checked = 0
            for number, text in enumerate(("a pan", "bread", "late news"), 1):
                body = {"events": [{"service": "films", "text": text}]}
                call = client.put(PATH, json=body) if number == 1 else None
                written = await (call or client.post(f"{PATH}/events", json=body))
                assert written.json()["seq"] == number
                whole, alone = (await client.get(PATH)).json(), (await client.get(f"{PATH}/vector"))
                known = alone.json()
                vector = np.array(known["vector"], np.float32)
                assert vector.tolist() == np.float32(whole["vector"]).tolist()
                assert {name: known[name] for name in known if name != "vector"} == {
                    name: whole[name] for name in ("model", "index", "user_id", "seq", "blocks")
                }
                octets = await client.get(f"{PATH}/vector", headers={"accept": OCTETS})
                floats = np.frombuffer(octets.content, "<f4")
                assert floats.tolist() == vector.tolist()
                assert octets.headers["x-model"] == known["model"]
                checked += 1
            assert checked == 3
            seen = {"x-min-seq": "3"}
            assert (await client.get(f"{PATH}/vector", headers=seen)).status_code == 200
            late = await client.get(f"{PATH}/vector", headers={"x-min-seq": "4"})
            assert problem(late, 503)["type"] == "urn:clue:problem:not-yet"
            wrong = await client.get(f"{PATH}/vector", headers={"x-min-seq": "-1"})
            assert problem(wrong, 422)["errors"][0]["pointer"] == "/x-min-seq"
            assert (await client.delete(PATH)).status_code == 200
            gone = problem(await client.get(f"{PATH}/vector"), 404)
            assert gone["type"] == "urn:clue:problem:unknown-user"

    asyncio.run(test())


def test_without_a_store_there_is_none(settings: Settings) -> None:
    async def test() -> None:
        async with serving(settings) as (client, _):
            no_store = problem(await client.get(f"{PATH}/vector"), 404)
            assert no_store["type"] == "urn:clue:problem:no-store"

    asyncio.run(test())
