"""The HTTP service.

    export OMP_NUM_THREADS=1 CLUE_CHECKPOINT=runs/demo CLUE_INDEX=indexes/demo
    uvicorn --factory serving.app:create_app --http serving.protocol:DeadlineProtocol

One process has one model thread; more processes (`--workers`) are the way to more throughput.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from clue.inference import encoder as inference
from serving.auth import Guard, check_routes
from serving.batcher import Batcher
from serving.body import BodyLimit
from serving.engine import Answer, BadVector, Engine, Query
from serving.generation import BrokenIndex
from serving.index import Index
from serving.keys import ApiKey
from serving.live import Live, not_ready
from serving.metrics import Metrics
from serving.observe import Observed
from serving.problems import Problem, install
from serving.routes import embed, explore, health, models, openai, operations, page, search
from serving.server import drain_on_sigterm
from serving.settings import Settings

log = logging.getLogger("clue.serving")

ROUTERS = (
    health.router,
    page.router,
    operations.router,
    models.router,
    embed.router,
    openai.router,
    search.router,
    explore.router,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the ASGI application; model and index are loaded when it starts up.

    Settings come from the environment when not given. Where the model or the index cannot be loaded
    or do not belong together the process still starts: /livez is 200, /readyz and every /v1 path
    are 503 and say why.
    """
    chosen = settings or Settings()  # pyright: ignore[reportCallIssue]

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        loading = app.state.loading = asyncio.create_task(_begin(app, chosen))
        drain_on_sigterm(lambda: setattr(app.state, "draining", True), chosen.drain_seconds)
        yield
        await loading
        if isinstance(app.state.service, Live):
            await asyncio.to_thread(app.state.service.batcher.stop)

    app = FastAPI(title="CLUE", lifespan=lifespan, redirect_slashes=False)
    app.state.service = not_ready("the model and the index are being loaded", kind="loading")
    app.state.draining = False
    app.state.metrics = Metrics()
    # the last one added is the outermost
    app.add_middleware(BodyLimit, max_bytes=chosen.max_body_bytes, seconds=chosen.body_seconds)
    app.add_middleware(Guard, keys=_keys(chosen), rate=chosen.rate)
    if chosen.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=chosen.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["authorization", "content-type", "x-api-key", "x-request-timeout-ms"],
        )
    app.add_middleware(Observed, metrics=app.state.metrics, log_requests=chosen.log_requests)
    install(app)
    check_routes(ROUTERS)
    for router in ROUTERS:
        app.include_router(router)
    return app


def _keys(settings: Settings) -> tuple[ApiKey, ...]:
    keys = settings.api_keys()
    if not keys:
        log.warning(
            "NO API KEYS: whoever is on this machine may do everything, other machines nothing; "
            "set CLUE_KEYS to serve them (python -m serving.auth makes a key)"
        )
    return keys


async def _begin(app: FastAPI, settings: Settings) -> None:
    """Load, and answer from then on; until then all but /livez is 503."""
    service = await asyncio.to_thread(load, settings, app.state.metrics)
    if isinstance(service, Live):
        service.batcher.start()
    app.state.service = service


def load(settings: Settings, metrics: Metrics) -> Live | Problem:
    """Load the model and the index, check that they belong together, and encode once.

    Return the Problem that every request gets instead when one of these fails.
    """
    try:
        encoder = inference.load(settings.checkpoint)
    except (OSError, ValueError) as error:
        log.error("checkpoint %s: %s", settings.checkpoint, error)
        return not_ready("the checkpoint cannot be loaded; the log says why")
    try:
        index = Index.load(settings.index, settings.choice)
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
    engine = Engine(encoder, index, threads=settings.torch_threads)
    # The first encode of a process is slow; it also shows that the weights give a vector at all.
    item_id, service, text = index.item(0)
    event = (service, item_id if encoder.reads == "item_id" else text)
    first = engine.run([Query(histories=[[event]])])[0]
    if isinstance(first, Exception):
        log.error("warm-up: %s", first)
        return not_ready("the model gives no finite vector")

    def observe(answers: Sequence[Answer | Exception], cost: int) -> None:
        metrics.batches.observe(len(answers))
        metrics.batch_tokens.observe(cost)
        metrics.tokens.inc(cost)
        metrics.bad_vectors.inc(sum(isinstance(each, BadVector) for each in answers))
        metrics.queue.set(batcher.waiting)

    batcher = Batcher(
        engine.run,
        queue_size=settings.queue_size,
        batch_cost=settings.batch_tokens,
        max_wait_seconds=settings.request_seconds,
        observe=observe,
    )
    metrics.serve(
        {"model": encoder.fingerprint, "index": index.name, "corpus": index.corpus_fingerprint}
    )
    return Live(settings, engine, batcher, metrics)
