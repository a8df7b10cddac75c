"""What answers requests: the model, its index and the thread that owns both; one per process."""

import asyncio
import time
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from pydantic_core import to_json

from serving.batcher import Batcher, BatcherStopped, QueueFull
from serving.engine import Answer, Engine, Query, cost_of
from serving.metrics import Metrics
from serving.problems import Problem
from serving.settings import Settings
from serving.store import Store

FOLLOW_SECONDS = 0.02  # how often a worker looks for what the others have written
SEEN_SECONDS = 1.0


@dataclass(eq=False)
class Live:
    """What answers requests: the model, its index, and the thread that owns both.

    `engine` is replaced when another generation is served: a request reads it once, at its start,
    and is answered by what it has read. `store` holds the durable users, where there are such.
    """

    settings: Settings
    engine: Engine
    batcher: Batcher[tuple[Engine, Query], Answer]
    metrics: Metrics
    store: Store | None = None

    def serve(self, engine: Engine) -> None:
        """Answer by `engine` from the next request on."""
        self.engine = engine
        corpus = engine.index.corpus_fingerprint
        self.metrics.serve({**engine.stamp, "corpus": corpus})


def live_service(request: Request) -> Live:
    """Return what answers requests; raises Problem 503 when nothing does."""
    service: Live | Problem = request.app.state.service
    if isinstance(service, Problem):
        raise service.with_traceback(None)  # else each raise of the one object would lengthen it
    if not service.batcher.alive:
        raise not_ready("the model thread has ended; restart the service")
    return service


Ready = Annotated[Live, Depends(live_service)]


async def after_write(
    live: Ready,
    x_min_seq: Annotated[
        int | None,
        Header(ge=0, description="the seq of a write, perhaps of another worker, to be seen"),
    ] = None,
) -> Live:
    """Return what answers requests once it has seen the write that the request names.

    Raises Problem 503 where that has not come within a second.
    """
    deadline = time.monotonic() + SEEN_SECONDS
    while x_min_seq is not None and live.engine.delta.applied < x_min_seq:
        if live.store is None or time.monotonic() > deadline:
            detail = "no such write is known here yet; come again"
            raise Problem(503, "not-yet", detail, headers={"retry-after": "1"})
        await asyncio.sleep(FOLLOW_SECONDS / 2)
    return live


Seen = Annotated[Live, Depends(after_write)]


async def ask(live: Live, engine: Engine, request: Request, query: Query) -> Answer:
    """Return the model thread's answer by `engine`.

    Raises Problem 429 when too much waits, 504 when the time is over, 503 when the thread has
    ended. A client that leaves takes its query out of the queue.
    """
    cost = cost_of(query, engine.encoder)
    work = asyncio.ensure_future(live.batcher.submit((engine, query), cost))
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
        raise not_ready("the model thread has ended; restart the service") from None
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


def not_ready(
    detail: str, *, fingerprints: dict[str, str] | None = None, kind: str = "not-ready"
) -> Problem:
    """Return the 503 of a service that cannot answer."""
    extra = {"fingerprints": fingerprints} if fingerprints else None
    return Problem(503, kind, detail, headers={"retry-after": "5"}, extra=extra)


def json_response(value: dict[str, Any], status: int = 200) -> Response:
    """Return the JSON response without FastAPI's encoder, which takes 1,657 µs for 768 floats."""
    return Response(to_json(value), status, media_type="application/json")
