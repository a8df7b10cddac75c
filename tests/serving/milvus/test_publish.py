"""A generation comes to Milvus whole, a running service takes it up, the next takes its room."""

import asyncio
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from serving.base_index import recall_of
from serving.contents import Contents
from serving.generation import names, publish, read, writing
from serving.milvus.generations import MilvusGenerations
from serving.milvus.publish import PublishConfig, bring
from serving.milvus.tables import Tables, key_of
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.client import live, serving
from tests.serving.contract.arena import items, users
from tests.serving.planted import contents, unit


def source(root: Path, made: Contents) -> Path:
    with writing(root, overwrite=True):
        publish(root, made)
    return root


def config_of(root: Path, port: int, index: Path, **more: Any) -> PublishConfig:
    uri, prefix = f"http://127.0.0.1:{port}", f"p_{root.name}"
    config = PublishConfig(index=index, out=root / "out", uri=uri, prefix=prefix, kind="FLAT")
    return replace(config, **more)


def settings_of(root: Path, config: PublishConfig, checkpoint: Path) -> Settings:
    return Settings(
        checkpoint=checkpoint,
        index=config.out,
        store=root / "store",
        vectors="milvus",
        milvus_uri=config.uri,
        milvus_prefix=config.prefix,
        milvus_seconds=10,
    )


def holds(tables: Tables, name: str, user_id: str) -> bool:
    keys = [key_of(user_id)]
    return tables.link.call("get", tables.users(name), ids=keys, read=len) > 0


@pytest.mark.cluster
def test_what_a_killed_command_left_goes_and_the_generation_before_stays(
    milvus: int, tmp_path: Path
) -> None:
    index = source(tmp_path / "source", contents())
    config = config_of(tmp_path, milvus, index, overwrite=True)
    made = [bring(config)]
    generations = MilvusGenerations(settings_of(tmp_path, config, tmp_path))
    with closing(generations):
        tables = generations.tables
        assert generations.current() == made[0]
        dead = "000009-0123456789ab"  # of which there is no record
        tables.create_users(dead, 8, {"index_type": "FLAT"})
        assert tables.names() == [made[0], dead]
        source(tmp_path / "source", contents(seed=1))
        made.append(bring(config))
        source(tmp_path / "source", contents(seed=2))
        made.append(bring(config))
        assert len(set(made)) == 3 and tables.names() == names(config.out) == made[1:]
        assert generations.current() == made[2]
        assert tables.record(made[0]) is None and tables.record(made[1]) is not None
        waiting = bring(replace(config, activate=False))
        assert generations.current() == made[2] and waiting in tables.names()


@pytest.mark.cluster
def test_the_recall_of_a_graph_is_measured_and_what_is_said(milvus: int, tmp_path: Path) -> None:
    made = contents(items=1600, users=1500, width=32)
    index = source(tmp_path / "source", made)
    config = config_of(tmp_path, milvus, index, kind="HNSW")
    name = bring(config)
    generations = MilvusGenerations(settings_of(tmp_path, config, tmp_path))
    with closing(generations):
        opened = generations.open(name)
        said = {what: built.recall for what, built in opened.built.items()}
        assert (
            said.keys() == {"users", "items"} and min(float(r or 0) for r in said.values()) > 0.95
        )
        queries = unit(np.random.default_rng(5), 40, 32)
        rows = {user_id: row for row, user_id in enumerate(made.user_ids.to_pylist())}
        near = opened.nearest_users([*queries], [users(10)] * 40, [None] * 40, ())
        hits = opened.nearest_items([*queries], [items(10)] * 40)
        truth = [np.argsort(-(made.user_vectors @ query))[:10] for query in queries]
        found = [np.array([rows[user_id] for user_id, _ in each]) for each in near]
        assert recall_of(found, truth) > 0.95
        truth = [np.argsort(-(made.item_vectors @ query))[:10] for query in queries]
        assert recall_of([each.rows for each in hits], truth) > 0.95


def test_an_id_that_milvus_cannot_hold_is_named(milvus: int, tmp_path: Path) -> None:
    ids = [*(f"user {n}" for n in range(24)), "z" * 600]
    made = replace(contents(), user_ids=pa.array(sorted(ids), pa.large_string()))
    config = config_of(tmp_path, milvus, source(tmp_path / "source", made))
    with pytest.raises(ValueError, match="user 24 has an id of over 512 bytes"):
        bring(config)


def test_long_histories_keep_their_newest(milvus: int, tmp_path: Path) -> None:
    seen = np.arange(13_000) % 60
    made = replace(
        contents(users=1),
        seen_values=seen.astype(np.int32),
        seen_offsets=np.array([0, len(seen)], np.int64),
    )
    config = config_of(tmp_path, milvus, source(tmp_path / "source", made))
    name = bring(config)
    generations = MilvusGenerations(settings_of(tmp_path, config, tmp_path))
    with closing(generations):
        known = generations.open(name).user("user 0")
        assert known is not None and known.events.tolist() == [6500, 6500, 0]
        np.testing.assert_array_equal(known.seen, seen[-12_000:])


async def served(client: httpx.AsyncClient, name: str) -> None:
    """Wait until `name` answers; meanwhile each answer is whole."""
    while True:
        body = {"user_id": "ann", "k": 3}
        answer = await client.post("/v1/users/similar", json=body)
        assert answer.status_code == 200 and len(answer.json()["data"]) == 3, answer.text
        if answer.json()["index"] == name:
            return
        await asyncio.sleep(0.02)


def test_a_running_service_takes_up_what_is_published_and_what_is_asked_for(
    milvus: int, tiny_run: TinyRun, tiny_index: Path, tmp_path: Path
) -> None:
    """Users written before are in all of them, and the way back is open."""
    config = config_of(tmp_path, milvus, tiny_index, overwrite=True)
    first = bring(config)
    settings = settings_of(tmp_path, config, tiny_run.run)
    settings = settings.model_copy(update={"forget_seconds": 1.0})
    events = [{"service": "films", "text": "a pan"}]

    async def test() -> None:
        async with serving(settings) as (client, app):
            assert (await client.put("/v1/users/ann", json={"events": events})).status_code == 200
            gone = read(tiny_index)[1].user_ids[7].as_py()
            assert (await client.delete(f"/v1/users/{gone}")).status_code == 200
            second = await asyncio.to_thread(bring, config)
            await served(client, second)
            answer = await client.post(f"/v1/models/{first}:activate", json={})
            assert answer.status_code == 202, answer.text
            await served(client, first)
            generations = live(app).generations
            assert isinstance(generations, MilvusGenerations)
            for name in (first, second):
                while await asyncio.to_thread(holds, generations.tables, name, gone):
                    await asyncio.sleep(0.05)
            assert await asyncio.to_thread(holds, generations.tables, first, "ann")
            known = (await client.get("/v1/models")).json()
            assert [each["id"] for each in known["generations"]] == [first, second]
            assert known["index"]["searched_by"]["users"]["kind"] == "milvus FLAT"
            metrics = (await client.get("/metrics")).text
            assert "clue_vectors_away 0.0" in metrics

    asyncio.run(asyncio.wait_for(test(), 60))
