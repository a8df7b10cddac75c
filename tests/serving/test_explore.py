"""Histories, ids and the map that the page shows, against the generation they are read from."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from serving.generation import read
from serving.population import map_of
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.client import problem, serving
from tests.serving.planted import unit

MAP, IDS, HISTORIES = "/v1/explore/map", "/v1/explore/users", "/v1/explore/histories"


@pytest.fixture
def settings(tiny_universal: TinyRun, universal_index: Path) -> Settings:
    return Settings(checkpoint=tiny_universal.run, index=universal_index)


def test_the_axes_are_those_of_a_planted_plane() -> None:
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.standard_normal((12, 2)))[0]
    spread = rng.standard_normal((500, 2)) * [3, 1]
    vectors = (spread @ plane.T + 0.01 * rng.standard_normal((500, 12))).astype(np.float32)
    made = map_of(vectors)
    np.testing.assert_allclose(np.abs(made.axes @ plane), np.eye(2), atol=0.05)
    assert made.explained > 0.99 and made.points.shape == (500, 2)
    centred = spread - spread.mean(0)
    places = made.places(vectors)
    assert abs(np.corrcoef(places[:, 0], centred[:, 0])[0, 1]) > 0.99
    again = map_of(vectors)
    np.testing.assert_array_equal(made.points, again.points)
    assert map_of(unit(rng, 400, 12)).explained < 0.3
    assert map_of(vectors[:0]).points.shape == (0, 2)
    assert map_of(vectors[:1]).explained == 0


def test_the_routes_tell_what_the_generation_holds(settings: Settings) -> None:
    _, contents = read(settings.index)
    ids = contents.user_ids.to_pylist()

    async def test() -> None:
        async with serving(settings) as (client, _):
            made = (await client.get(MAP)).json()
            start, stop = made["columns"]
            assert stop - start == contents.user_vectors.shape[1] == len(made["mean"])
            assert len(made["points"]) == min(2000, len(ids))
            asked = {"user_ids": [ids[3], "nobody", ids[0]], "newest": 2}
            data = (await client.post(HISTORIES, json=asked)).json()["data"]
            assert [each["user_id"] for each in data] == [ids[3], ids[0]]
            for user in data:
                row = ids.index(user["user_id"])
                first, last = contents.seen_offsets[row : row + 2]
                seen = contents.seen_values[first:last]
                assert sum(each["events"] for each in user["services"]) == len(seen)
                for own in user["services"]:
                    service = contents.services.index(own["service"])
                    rows = seen[contents.item_service[seen] == service]
                    newest = [contents.item_ids[int(item)].as_py() for item in rows[-2:]]
                    assert [item["item_id"] for item in own["newest"]] == newest
                place = (contents.user_vectors[row] - made["mean"]) @ np.array(made["axes"]).T
                np.testing.assert_allclose(user["at"], place, atol=1e-4)
            begun = (await client.get(IDS, params={"prefix": ids[5][:-1], "limit": 3})).json()
            assert begun["data"] == [i for i in ids if i.startswith(ids[5][:-1])][:3]
            drawn = (await client.get(IDS, params={"limit": 7})).json()["data"]
            assert len(set(drawn)) == 7 and set(drawn) <= set(ids)
            assert (await client.get(IDS, params={"prefix": "zzz"})).json()["data"] == []
            for body in ({"user_ids": []}, {"user_ids": ["a"] * 101}, {"user_ids": ["a"], "x": 1}):
                problem(await client.post(HISTORIES, json=body), 422)
            problem(await client.get(IDS, params={"limit": 0}), 422)

    asyncio.run(test())


def test_users_written_since_are_on_the_map_and_those_deleted_are_not(
    settings: Settings, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"store": tmp_path / "store"})
    ids = read(settings.index)[1].user_ids.to_pylist()
    one, other = ids[3], ids[4]
    events = [
        {"service": "films", "text": "later", "time": 3.0},
        {"service": "films", "text": "first", "item_id": "f1", "time": 1.0},
        {"service": "news", "text": "bread", "time": 2.0},
        {"service": "nowhere", "text": "x", "time": 4.0},
    ]

    async def test() -> None:
        async with serving(settings) as (client, _):
            made = (await client.get(MAP)).json()
            start, stop = made["columns"]
            for user_id in (one, f"{one}-new"):
                body = {"events": events}
                assert (await client.put(f"/v1/users/{user_id}", json=body)).status_code == 200
            assert (await client.delete(f"/v1/users/{other}")).status_code == 200
            asked = {"user_ids": [f"{one}-new", other, one], "newest": 1}
            data = (await client.post(HISTORIES, json=asked)).json()["data"]
            assert [each["user_id"] for each in data] == [f"{one}-new", one]
            vector = np.array((await client.get(f"/v1/users/{one}")).json()["vector"])[start:stop]
            vector /= np.linalg.norm(vector)
            place = (vector - made["mean"]) @ np.array(made["axes"]).T
            for user in data:
                np.testing.assert_allclose(user["at"], place, atol=1e-4)
                own = {each["service"]: each for each in user["services"]}
                assert {name: each["events"] for name, each in own.items()} == {
                    "films": 2,
                    "news": 1,
                }
                assert own["films"]["newest"] == [{"item_id": "", "text": "later"}]
            begun = (await client.get(IDS, params={"prefix": one, "limit": 5})).json()["data"]
            assert begun == [one, f"{one}-new"]
            assert other not in (await client.get(IDS, params={"prefix": other})).json()["data"]

    asyncio.run(test())
