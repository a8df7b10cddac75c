"""A stored user's vector alone: that of the whole user, after every write."""

import asyncio
from pathlib import Path

import numpy as np

from serving.encodings import OCTETS
from serving.live import not_ready
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


def test_the_look_up_answers_as_the_route(settings: Settings, tmp_path: Path) -> None:
    """A body length sends a request to the route; all but its id and its time is equal."""
    stored = settings.model_copy(update={"store": tmp_path / "store"})
    own = ("x-request-id", "x-total-time")

    async def test() -> None:
        async with serving(stored) as (client, app):
            body = {"events": [{"service": "films", "text": "a pan"}]}
            for name in ("ann:b@c", "gone"):
                assert (await client.put(f"/v1/users/{name}", json=body)).status_code == 200
            assert (await client.delete("/v1/users/gone")).status_code == 200
            checked: list[int] = []
            paths = [
                f"/v1/users/{name}/vector" for name in ("ann:b@c", "gone", "nobody", "a" * 257)
            ]
            ready = app.state.service
            for path in [*paths, "while loading"]:
                if path == "while loading":
                    path, app.state.service = paths[0], not_ready("loading")
                for accept in ("*/*", OCTETS):
                    by_look_up = await client.get(path, headers={"accept": accept})
                    by_route = await client.get(
                        path, headers={"accept": accept, "content-length": "0"}
                    )
                    assert by_look_up.status_code == by_route.status_code
                    assert by_look_up.content == by_route.content
                    headers = [
                        {k: v for k, v in answer.headers.items() if k not in own}
                        for answer in (by_look_up, by_route)
                    ]
                    assert headers[0] == headers[1]
                    checked.append(by_look_up.status_code)
            app.state.service = ready
            assert checked == [200, 200, 404, 404, 404, 404, 422, 422, 503, 503]
            metrics = (await client.get("/metrics")).text
            label = 'route="/v1/users/{user_id}/vector",status="200"'
            assert f'clue_requests_total{{method="GET",{label}}} 4.0' in metrics

    asyncio.run(test())


def test_without_a_store_there_is_none(settings: Settings) -> None:
    async def test() -> None:
        async with serving(settings) as (client, _):
            no_store = problem(await client.get(f"{PATH}/vector"), 404)
            assert no_store["type"] == "urn:clue:problem:no-store"

    asyncio.run(test())
