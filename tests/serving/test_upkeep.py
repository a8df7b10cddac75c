"""Generations come and go under a running service: no error, no mixed answer, nobody lost."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from fastapi import FastAPI

from serving.build_index import BuildConfig, build
from serving.generation import current, names
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.client import live, problem, serving

SIMILAR = "/v1/users/similar"


@pytest.fixture
def settings(tiny_run: TinyRun, tmp_path: Path) -> Settings:
    out = tmp_path / "index"
    build(BuildConfig(checkpoint=tiny_run.run, corpus=tiny_run.corpus, out=out))
    return Settings(
        checkpoint=tiny_run.run,
        index=out,
        store=tmp_path / "store",
        models=tiny_run.run.parent,
        rebuild_users=1000,
    )


def candidate_of(settings: Settings, other: TinyRun) -> str:
    """Index the corpus by another model, not to be served yet; return the generation."""
    config = BuildConfig(
        checkpoint=other.run,
        corpus=other.corpus,
        out=settings.index,
        overwrite=True,
        activate=False,
    )
    return build(config)


async def put(client: httpx.AsyncClient, user_id: str, *texts: str) -> None:
    events = [{"service": "films", "text": text} for text in texts]
    answer = await client.put(f"/v1/users/{user_id}", json={"events": events})
    assert answer.status_code == 200, answer.text


async def served(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    """Wait until `name` is served; every answer meanwhile is whole."""
    for _ in range(2400):
        answer = await client.post(SIMILAR, json={"user_id": "ann", "k": 3})
        assert answer.status_code == 200 and len(answer.json()["data"]) == 3, answer.text
        if answer.json()["index"] == name:
            return answer.json()
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} was never served")


def builders() -> set[int]:
    """Return the priorities (nice) of what builds generations for this process now."""
    priorities: set[int] = set()
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if "serving.rebuild" in child.cmdline():
                priorities.add(child.nice())
    return priorities


async def rebuilt(app: FastAPI, before: str) -> set[int]:
    """Wait until another generation than `before` is served; return its builders' priorities."""
    priorities: set[int] = set()
    for _ in range(2400):
        if live(app).engine.index.catalogue.name != before:
            break
        priorities |= builders()
        await asyncio.sleep(0.05)
    return priorities


class Load:
    """Requests of several kinds at a time; each answer is whole and of one generation."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.over = False
        self.answers: Counter[str] = Counter()
        self.vectors: dict[tuple[str, str], np.ndarray] = {}

    async def run(self) -> None:
        """Ask until it is over; a vector is that of the model that the answer names."""
        events = [{"service": "films", "text": "a pan"}]
        bodies: list[tuple[str, dict[str, Any]]] = [
            ("/v1/users/embed", {"users": [{"events": events}]}),
            ("/v1/items/search", {"events": events, "service": "films", "k": 3}),
            (SIMILAR, {"events": events, "k": 3}),
        ]
        while not self.over:
            for path, body in bodies:
                answer = await self.client.post(path, json=body)
                assert answer.status_code == 200, answer.text
                made = answer.json()
                self.answers[made["index"]] += 1
                if path == "/v1/users/embed":
                    vector = np.array(made["data"][0]["vector"])
                    kept = self.vectors.setdefault((made["index"], made["model"]), vector)
                    np.testing.assert_allclose(vector, kept, atol=1e-5)
                else:
                    assert len(made["data"]) == 3

    async def end(self, asking: Sequence["asyncio.Task[None]"], generations: set[str]) -> None:
        """Stop, and see that both generations answered, each by its own model."""
        self.over = True
        await asyncio.gather(*asking)
        assert set(self.answers) == generations
        indexes, models = zip(*self.vectors, strict=True)
        assert len(self.vectors) == len(set(indexes)) == len(set(models)) == len(generations)


def test_a_model_is_activated_and_rolled_back_with_all_users(
    settings: Settings, tiny_universal: TinyRun
) -> None:
    settings_small = settings.model_copy(update={"rebuild_users": 3})

    async def test() -> None:
        async with serving(settings) as (client, app):
            first = live(app).engine.index.catalogue.name
            for n in range(40):
                await put(client, f"u{n}", f"text {n}")
            await put(client, "ann", "a pan")
            candidate = await asyncio.to_thread(candidate_of, settings, tiny_universal)
            path = f"/v1/models/{candidate}:activate"
            load = Load(client)
            asking = [asyncio.create_task(load.run()) for _ in range(4)]
            problem(await client.post("/v1/models/000009-aaaaaaaaaaaa:activate", json={}), 404)
            assert (await client.post(path, json={})).status_code == 202
            answer = await served(client, candidate)
            listed = (await client.get("/v1/models")).json()
            assert [g["served"] for g in listed["generations"]] == [False, True]
            assert listed["activating"] is None and answer["model"] == listed["data"][0]["id"]
            assert len(live(app).engine.delta) == 41 and not live(app).engine.delta.missing
            await put(client, "bob", "a pan")
            answer = await client.post(SIMILAR, json={"user_id": "bob", "k": 1})
            assert answer.json()["data"][0]["user_id"] == "ann"
            # and back: bob has to be embedded by the first model
            assert (await client.post(f"/v1/models/{first}:activate", json={})).status_code == 202
            await served(client, first)
            await load.end(asking, {first, candidate})
            answer = await client.post(SIMILAR, json={"user_id": "bob", "k": 1})
            assert answer.json()["data"][0]["user_id"] == "ann"

    async def again() -> None:
        """Enough has changed: a generation is built, giving way, and holds everybody."""
        async with serving(settings_small) as (client, app):
            until = live(app).engine.index.catalogue.name
            priorities = await rebuilt(app, until)
            assert max(priorities) == min(psutil.Process().nice() + 10, 19)
            assert current(settings.index) == live(app).engine.index.catalogue.name != until
            assert len(live(app).engine.delta) == 0
            answer = await client.post(SIMILAR, json={"user_id": "bob", "k": 1})
            assert answer.json()["data"][0]["user_id"] == "ann"
            assert until in names(settings.index)  # to roll back to

    asyncio.run(test())
    asyncio.run(again())


def test_deleted_users_leave_every_generation_in_time(settings: Settings) -> None:
    settings = settings.model_copy(update={"forget_seconds": 3.0})

    async def test() -> None:
        async with serving(settings) as (client, app):
            first = live(app).engine.index.catalogue.name
            await put(client, "ann", "a pan")
            user_id = live(app).engine.index.some_users(6)[5].user_id
            assert (await client.delete(f"/v1/users/{user_id}")).status_code == 200
            for _ in range(2400):
                if names(settings.index) != [first] and first not in names(settings.index):
                    break
                await asyncio.sleep(0.05)
            (left,) = names(settings.index)
            assert left == live(app).engine.index.catalogue.name
            assert live(app).engine.index.user(user_id) is None
            assert live(app).engine.index.user("ann") is not None

    asyncio.run(test())
