"""An in-process client of the service, and what its requests and answers hold."""

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI

from serving.app import create_app
from serving.contents import Contents
from serving.live import Live
from serving.settings import Settings

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


@asynccontextmanager
async def serving(settings: Settings) -> AsyncGenerator[tuple[httpx.AsyncClient, FastAPI]]:
    """An in-process client of a started application."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        await app.state.loading
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client, app


def live(app: FastAPI) -> Live:
    assert isinstance(app.state.service, Live)
    return app.state.service
