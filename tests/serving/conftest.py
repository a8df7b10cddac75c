from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from serving.app import Live, create_app
from serving.build_index import BuildConfig, build
from serving.settings import Settings
from tests.conftest import TinyRun


@pytest.fixture(scope="session")
def tiny_index(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the tiny run's corpus by its model."""
    out = tmp_path_factory.mktemp("indexes") / "tiny"
    build(BuildConfig(checkpoint=tiny_run.run, corpus=tiny_run.corpus, out=out))
    return out


@pytest.fixture
def settings(tiny_run: TinyRun, tiny_index: Path) -> Settings:
    return Settings(checkpoint=tiny_run.run, index=tiny_index)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncGenerator[tuple[httpx.AsyncClient, FastAPI]]:
    """An in-process client of a started application."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://clue") as client:
            yield client, app


def live(app: FastAPI) -> Live:
    assert isinstance(app.state.service, Live)
    return app.state.service
