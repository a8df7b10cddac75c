"""The HTTP service.

    export OMP_NUM_THREADS=1 CLUE_CHECKPOINT=runs/demo CLUE_INDEX=indexes/demo
    uvicorn --factory serving.app:create_app

One process has one model thread; more processes (`--workers`) are the way to more throughput.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from serving.batcher import Batcher
from serving.body import BodyLimit
from serving.durable import Durable
from serving.engine import Query, run_all
from serving.generation import CURRENT, BrokenIndex, current
from serving.live import Live, not_ready
from serving.loading import NotServable, load_engine
from serving.problems import Problem, install
from serving.routes import embed, health, models, search, users
from serving.rows import BrokenStore
from serving.settings import Settings
from serving.store import Store, StoreBusy, StoreFull
from serving.store_lock import StoreRefused
from serving.upkeep import Upkeep, watch

log = logging.getLogger("clue.serving")

ROUTERS = (health.router, models.router, embed.router, search.router, users.router)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the ASGI application; model and index are loaded when it starts up.

    Settings come from the environment when not given. Where the model or the index cannot be loaded
    or do not belong together the process still starts: /livez is 200, /readyz and every /v1 path
    are 503 and say why.
    """
    chosen = settings or Settings()  # pyright: ignore[reportCallIssue]

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.state.service = await asyncio.to_thread(load, chosen)
        if isinstance(app.state.service, Problem):
            yield
            return
        live: Live = app.state.service
        live.batcher.start()
        async with kept_up(live):
            yield
        await asyncio.to_thread(live.batcher.stop)

    app = FastAPI(title="CLUE", lifespan=lifespan, redirect_slashes=False)
    app.add_middleware(BodyLimit, max_bytes=chosen.max_body_bytes, seconds=chosen.body_seconds)
    install(app)
    for router in ROUTERS:
        app.include_router(router)
    return app


@asynccontextmanager
async def kept_up(live: Live) -> AsyncGenerator[None]:
    """Keep the service in step with its store and its generations; close the store at the end."""
    durable = None if live.store is None else Durable(live, live.store)
    tasks = [asyncio.create_task(watch(live, durable))]
    if durable is not None:
        tasks.append(asyncio.create_task(durable.follow()))
        tasks.append(asyncio.create_task(Upkeep(live, durable).run()))
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if live.store is not None:
        await asyncio.to_thread(live.store.close)


def load(settings: Settings) -> Live | Problem:
    """Load the model and the index, check that they belong together, and encode once.

    Return the Problem that every request gets instead when one of these fails.
    """
    store = None
    try:
        store = None if settings.store is None else Store(settings.store)
        engine = load_engine(settings, current(settings.index), store)
        # The first encode of a process is slow; it shows too that the weights give a vector at all.
        item_id, service, text = engine.index.item(0)
        event = (service, item_id if engine.encoder.reads == "item_id" else text)
        first = engine.run([Query(histories=[[event]])])[0]
        if isinstance(first, Exception):
            raise NotServable("the model gives no finite vector")
    except (OSError, ValueError, StoreFull, StoreBusy) as error:
        log.error("checkpoint %s, index %s: %s", settings.checkpoint, settings.index, error)
        if store is not None:
            store.close()
        return _refusal(settings, error)
    batcher = Batcher(
        run_all,
        queue_size=settings.queue_size,
        batch_cost=settings.batch_tokens,
        max_wait_seconds=settings.request_seconds,
    )
    return Live(settings, engine, batcher, store)


def _refusal(settings: Settings, error: Exception) -> Problem:
    """Return what a service says that cannot start; it names no path."""
    if isinstance(error, NotServable):
        return not_ready(str(error), fingerprints=error.fingerprints)
    if isinstance(error, BrokenIndex):
        return not_ready(f"the index is broken: {error}")
    if isinstance(error, (StoreRefused, BrokenStore, StoreFull, StoreBusy)):
        return not_ready(f"the store cannot be opened: {error}")
    what = "checkpoint" if (settings.index / CURRENT).is_file() else "index"
    return not_ready(f"the {what} cannot be loaded; the log says why")
