"""The HTTP service.

    export OMP_NUM_THREADS=1 CLUE_CHECKPOINT=runs/demo CLUE_INDEX=indexes/demo
    uvicorn --factory serving.app:create_app

One process has one model thread; more processes (`--workers`) are the way to more throughput.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from pydantic_core import to_json

from clue.inference import encoder as inference
from clue.inference.universal_encoder import UniversalEncoder
from serving.batcher import Batcher, BatcherStopped, QueueFull
from serving.body import BodyLimit, StrictRoute
from serving.engine import Answer, Engine, Query, chosen, columns_of, cost_of
from serving.generation import BrokenIndex
from serving.index import Index
from serving.problems import Problem, ProblemBody, install
from serving.queries import embed_query, items_query, unseen, users_query
from serving.schemas import (
    ID_BYTES,
    EmbedAnswer,
    EmbedRequest,
    Health,
    ItemsAnswer,
    ModelsAnswer,
    SearchItemsRequest,
    SimilarUsersRequest,
    UsersAnswer,
)
from serving.settings import Settings

log = logging.getLogger("clue.serving")

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": "refused (RFC 9457)",
        "model": ProblemBody,
        "content": {"application/problem+json": {}},
    }
    for status in ("4XX", "5XX")
}


@dataclass(frozen=True, eq=False)
class Live:
    """What answers requests: the model, its index, and the thread that owns both."""

    settings: Settings
    engine: Engine
    batcher: Batcher[Query, Answer]

    def stamp(self) -> dict[str, Any]:
        """Return what every answer says about its origin."""
        return {"model": self.engine.encoder.fingerprint, "index": self.engine.index.name}


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
        yield
        await asyncio.to_thread(live.batcher.stop)

    app = FastAPI(title="CLUE", lifespan=lifespan, redirect_slashes=False)
    app.add_middleware(BodyLimit, max_bytes=chosen.max_body_bytes, seconds=chosen.body_seconds)
    install(app)
    app.include_router(health)
    app.include_router(router)
    return app


def load(settings: Settings) -> Live | Problem:
    """Load the model and the index, check that they belong together, and encode once.

    Gives the Problem that every request gets instead when one of these fails.
    """
    try:
        encoder = inference.load(settings.checkpoint)
    except (OSError, ValueError) as error:
        log.error("checkpoint %s: %s", settings.checkpoint, error)
        return _not_ready("the checkpoint cannot be loaded; the log says why")
    try:
        index = Index.load(settings.index)
    except BrokenIndex as error:
        log.error("index %s: %s", settings.index, error)
        return _not_ready(f"the index is broken: {error}")
    except (OSError, ValueError) as error:
        log.error("index %s: %s", settings.index, error)
        return _not_ready("the index cannot be loaded; the log says why")
    prints = {"model": encoder.fingerprint, "index_model": index.model_fingerprint}
    if prints["model"] != prints["index_model"]:
        log.error("the index was built by another model: %s", prints)
        detail = "the index was built by another model; build it again with this checkpoint"
        return _not_ready(detail, fingerprints=prints)
    engine = Engine(encoder, index, threads=settings.torch_threads)
    # The first encode of a process is slow; it also shows that the weights give a vector at all.
    item_id, service, text = index.item(0)
    event = (service, item_id if encoder.reads == "item_id" else text)
    first = engine.run([Query(histories=[[event]])])[0]
    if isinstance(first, Exception):
        log.error("warm-up: %s", first)
        return _not_ready("the model gives no finite vector")
    batcher = Batcher(
        engine.run,
        queue_size=settings.queue_size,
        batch_cost=settings.batch_tokens,
        max_wait_seconds=settings.request_seconds,
    )
    return Live(settings, engine, batcher)


def live_service(request: Request) -> Live:
    """Return what answers requests; raises Problem 503 when nothing does."""
    service: Live | Problem = request.app.state.service
    if isinstance(service, Problem):
        raise service.with_traceback(None)  # else each raise of the one object would lengthen it
    if not service.batcher.alive:
        raise _not_ready("the model thread has ended; restart the service")
    return service


Ready = Annotated[Live, Depends(live_service)]
health = APIRouter(responses=REFUSALS)
router = APIRouter(prefix="/v1", route_class=StrictRoute, responses=REFUSALS)


@health.get("/livez", response_model=Health)
async def livez() -> Response:
    """Says that the event loop runs; asks nothing of the model."""
    return _json({"status": "alive"})


@health.get("/readyz", response_model=Health)
async def readyz(live: Ready) -> Response:
    """Says that model, index and model thread answer; 503 with the reason when not."""
    return _json({"status": "ready", **live.stamp()})


@router.get("/models", response_model=ModelsAnswer)
async def models(live: Ready) -> Response:
    """Says which model and index are served, and the limits of a request."""
    encoder, index, settings = live.engine.encoder, live.engine.index, live.settings
    model = {
        "id": encoder.fingerprint,
        "width": encoder.width,
        "services": encoder.services,
        "max_events": encoder.max_events,
        "reads": encoder.reads,
        "blocks": columns_of(encoder.blocks),
        "similarity": (encoder.similarity_columns.start, encoder.similarity_columns.stop),
        "ranking": (encoder.ranking_columns.start, encoder.ranking_columns.stop),
        "fields": encoder.fields if isinstance(encoder, UniversalEncoder) else {},
        "clocks": encoder.clocks if isinstance(encoder, UniversalEncoder) else {},
        "max_item_tokens": encoder.max_item_tokens,
    }
    generation = {
        "id": index.name,
        "model": index.model_fingerprint,
        "corpus": index.corpus_fingerprint,
        "corpus_name": index.corpus_name,
        "templates": index.templates,
        "services": index.services,
        "items": index.num_items,
        "users": index.num_users,
    }
    limits = {
        "users": settings.max_users,
        "events_per_user": settings.max_events,
        "text_bytes": settings.max_text_bytes,
        "id_bytes": ID_BYTES,
        "body_bytes": settings.max_body_bytes,
        "k": settings.max_k,
        "seconds": settings.request_seconds,
    }
    return _json({"data": [model], "index": generation, "limits": limits})


@router.post("/users/embed", response_model=EmbedAnswer)
async def embed_users(body: EmbedRequest, request: Request, live: Ready) -> Response:
    """Return one vector per user, over all services together, of the wanted blocks."""
    encoder = live.engine.encoder
    query = embed_query(body, encoder, live.settings)
    answer = await ask(live, request, query)
    vectors, blocks = chosen(answer.vectors, encoder.blocks, body.blocks)
    data = [
        {"user_id": user.user_id, "vector": vector}
        for user, vector in zip(body.users, vectors.tolist(), strict=True)
    ]
    strangers = unseen(query.histories, encoder.services)
    made = {**live.stamp(), "data": data, "blocks": blocks, "unseen_services": strangers}
    return _json(made)


@router.post("/items/search", response_model=ItemsAnswer)
async def search_items(body: SearchItemsRequest, request: Request, live: Ready) -> Response:
    """Return the catalogue items that fit a user best, by the columns in which items rank."""
    index = live.engine.index
    answer = await ask(live, request, items_query(body, live.engine, live.settings))
    assert answer.hits is not None
    data: list[dict[str, Any]] = []
    for row, score in zip(answer.hits.rows.tolist(), answer.hits.scores.tolist(), strict=True):
        item_id, service, text = index.item(row)
        data.append({"item_id": item_id, "service": service, "text": text, "score": score})
    return _json({**live.stamp(), "data": data})


@router.post("/users/similar", response_model=UsersAnswer)
async def similar_users(body: SimilarUsersRequest, request: Request, live: Ready) -> Response:
    """Return the users of the index most like a user, by the columns that compare users."""
    index = live.engine.index
    answer = await ask(live, request, users_query(body, live.engine, live.settings))
    assert answer.hits is not None
    hits = zip(answer.hits.rows.tolist(), answer.hits.scores.tolist(), strict=True)
    data = [{"user_id": index.user_id(row), "score": score} for row, score in hits]
    return _json({**live.stamp(), "data": data})


async def ask(live: Live, request: Request, query: Query) -> Answer:
    """Return the model thread's answer.

    Raises Problem 429 when too much waits, 504 when the time is over, 503 when the thread has
    ended. A client that leaves takes its query out of the queue.
    """
    cost = cost_of(query, live.engine.encoder)
    work = asyncio.ensure_future(live.batcher.submit(query, cost))
    left = asyncio.ensure_future(_departure(request))
    try:
        done, _ = await asyncio.wait(
            (work, left),
            timeout=live.settings.request_seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if work in done:
            return work.result()
    except QueueFull as full:
        retry = {"retry-after": str(full.retry_seconds)}
        detail = "too many requests wait; come again after Retry-After seconds"
        raise Problem(429, "queue-full", detail, headers=retry) from None
    except BatcherStopped:
        raise _not_ready("the model thread has ended; restart the service") from None
    finally:
        work.cancel()
        left.cancel()
    if left in done:
        raise Problem(499, "client-closed", "the client left before the answer was ready")
    detail = f"no answer within {live.settings.request_seconds:g} s; send less or come again"
    raise Problem(504, "too-slow", detail, headers={"retry-after": "1"})


async def _departure(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _not_ready(detail: str, *, fingerprints: dict[str, str] | None = None) -> Problem:
    extra = {"fingerprints": fingerprints} if fingerprints else None
    return Problem(503, "not-ready", detail, headers={"retry-after": "5"}, extra=extra)


def _json(value: dict[str, Any]) -> Response:
    """Return the JSON response without FastAPI's encoder, which takes 1,657 µs for 768 floats."""
    return Response(to_json(value), media_type="application/json")
