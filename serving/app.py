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

from clue.inference import encoder as inference
from serving.batcher import Batcher
from serving.body import BodyLimit
from serving.durable import durable_users, engine_of, open_store
from serving.engine import Query, run_all
from serving.generation import BrokenIndex
from serving.index import Index
from serving.live import Live, not_ready
from serving.problems import Problem, install
from serving.routes import embed, health, models, search, users
from serving.settings import Settings

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
        async with durable_users(live):
            yield
        await asyncio.to_thread(live.batcher.stop)

    app = FastAPI(title="CLUE", lifespan=lifespan, redirect_slashes=False)
    app.add_middleware(BodyLimit, max_bytes=chosen.max_body_bytes, seconds=chosen.body_seconds)
    install(app)
    for router in ROUTERS:
        app.include_router(router)
    return app


def load(settings: Settings) -> Live | Problem:
    """Load the model and the index, check that they belong together, and encode once.

    Return the Problem that every request gets instead when one of these fails.
    """
    try:
        encoder = inference.load(settings.checkpoint)
    except (OSError, ValueError) as error:
        log.error("checkpoint %s: %s", settings.checkpoint, error)
        return not_ready("the checkpoint cannot be loaded; the log says why")
    try:
        index = Index.load(settings.index)
    except BrokenIndex as error:
        log.error("index %s: %s", settings.index, error)
        return not_ready(f"the index is broken: {error}")
    except (OSError, ValueError) as error:
        log.error("index %s: %s", settings.index, error)
        return not_ready("the index cannot be loaded; the log says why")
    prints = {"model": encoder.fingerprint, "index_model": index.model_fingerprint}
    if prints["model"] != prints["index_model"]:
        log.error("the index was built by another model: %s", prints)
        detail = "the index was built by another model; build it again with this checkpoint"
        return not_ready(detail, fingerprints=prints)
    store = None if settings.store is None else open_store(settings.store)
    if isinstance(store, Problem):
        return store
    engine = engine_of(encoder, index, store, threads=settings.torch_threads)
    if isinstance(engine, Problem):
        return engine
    # The first encode of a process is slow; it also shows that the weights give a vector at all.
    item_id, service, text = index.item(0)
    event = (service, item_id if encoder.reads == "item_id" else text)
    first = engine.run([Query(histories=[[event]])])[0]
    if isinstance(first, Exception):
        log.error("warm-up: %s", first)
        return not_ready("the model gives no finite vector")
    batcher = Batcher(
        run_all,
        queue_size=settings.queue_size,
        batch_cost=settings.batch_tokens,
        max_wait_seconds=settings.request_seconds,
    )
    return Live(settings, engine, batcher, store)
