"""The HTTP service.

    export OMP_NUM_THREADS=1 CLUE_CHECKPOINT=runs/demo CLUE_INDEX=indexes/demo
    uvicorn --factory serving.app:create_app --http serving.protocol:DeadlineProtocol

One process has one model thread; more processes (`--workers`) are the way to more throughput.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

import clue
from serving.auth import Guard, check_routes
from serving.body import BodyLimit
from serving.document import document
from serving.gate import Gate, gate_of
from serving.keys import ApiKey
from serving.live import Live, not_ready
from serving.metrics import Metrics
from serving.observe import Observed, telemetry_of
from serving.problems import Problem, install
from serving.routes import (
    embed,
    explore,
    health,
    models,
    openai,
    operations,
    page,
    search,
    users,
    vector,
)
from serving.server import drain_on_sigterm, share_interpreter
from serving.settings import Settings
from serving.start import AWAY, begin, end, load
from serving.turns import Turns

log = logging.getLogger("clue.serving")

ROUTERS = (  # a request is compared with one after the other
    vector.router,
    embed.router,
    search.router,
    users.router,
    openai.router,
    health.router,
    page.router,
    operations.router,
    models.router,
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
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Gate]]:
        gate = gate_of(chosen, app.state.metrics)
        loading = app.state.loading = asyncio.create_task(_begin(app, chosen, gate))
        share_interpreter()
        drain_on_sigterm(lambda: setattr(app.state, "draining", True), chosen.drain_seconds)
        yield {"gate": gate}  # to the protocol below
        app.state.draining = True  # nothing is loaded any more
        await loading
        if isinstance(app.state.service, Live):
            await end(app.state.service, app.state.tasks)

    app = FastAPI(
        title="CLUE",
        version=clue.__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry=telemetry_of(chosen),
    )
    app.state.service = not_ready("the model and the index are being loaded", kind="loading")
    app.state.draining = False
    app.state.turns = Turns()
    app.state.metrics = Metrics()
    # the last one added is the outermost
    app.add_middleware(BodyLimit, max_bytes=chosen.max_body_bytes, seconds=chosen.body_seconds)
    app.add_middleware(vector.LookUp)
    app.add_middleware(Guard, keys=_keys(chosen), rate=chosen.rate)
    if chosen.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=chosen.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["authorization", "content-type", "x-api-key", "x-request-timeout-ms"],
        )
    app.add_middleware(Observed, metrics=app.state.metrics, log_requests=chosen.log_requests)
    install(app, [route for router in ROUTERS for route in router.routes])
    check_routes(ROUTERS)
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = partial(document, app)
    return app


def _keys(settings: Settings) -> tuple[ApiKey, ...]:
    keys = settings.api_keys()
    if not keys:
        log.warning(
            "NO API KEYS: whoever is on this machine may do everything, other machines nothing; "
            "set CLUE_KEYS to serve them (python -m serving.auth makes a key)"
        )
    return keys


async def _begin(app: FastAPI, settings: Settings, gate: Gate) -> None:
    """Load, and answer from then on; until then all but /livez is 503."""
    given = (settings, app.state.metrics, lambda: gate.inside)
    service = await asyncio.to_thread(load, *given)
    while isinstance(service, Problem) and service.kind == AWAY and not app.state.draining:
        app.state.service = service
        await asyncio.sleep(1)
        service = await asyncio.to_thread(load, *given)
    if isinstance(service, Live):
        app.state.tasks = begin(service)
    app.state.service = service
