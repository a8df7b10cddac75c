"""What answers requests: the model, its index and the thread that owns both; one per process."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Depends, Header, Request, Response
from pydantic import WithJsonSchema

from serving.batcher import Batcher, BatcherStopped, QueueFull, TooLate
from serving.engine import Answer, BadVector, Engine, Query, cost_of
from serving.generations import Generations
from serving.metrics import Metrics
from serving.problems import Problem
from serving.settings import Settings
from serving.store import Store
from serving.trace import trace_of
from serving.turns import end_turn
from serving.vectors import VectorsAway

log = logging.getLogger("clue.serving")

FOLLOW_SECONDS = 0.02  # how often a worker looks for what the others have written
SEEN_SECONDS = 1.0
WAITING_THREADS = 64

Made = TypeVar("Made")


@dataclass(eq=False)
class Live:
    """What answers requests: the model, its index, and the thread that owns both.

    `engine` is replaced when another generation is served: a request reads it once, at its start,
    and is answered by what it has read. `store` holds the durable users, where there are such.
    `fallback` says why an earlier generation answers than the one that should. `waiting` are the
    threads that wait for vectors on another machine, where they are there.
    """

    settings: Settings
    engine: Engine
    batcher: Batcher[tuple[Engine, Query], Answer]
    metrics: Metrics
    generations: Generations
    store: Store | None = None
    fallback: str = ""
    waiting: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(WAITING_THREADS, "clue-waiting")
    )

    def serve(self, engine: Engine, fallback: str = "") -> None:
        """Answer by `engine` from the next request on."""
        self.engine, self.fallback = engine, fallback
        corpus = engine.index.catalogue.corpus_fingerprint
        self.metrics.serve({**engine.stamp, "corpus": corpus})


async def live_service(request: Request) -> Live:
    """Return what answers requests; raises Problem 503 when nothing does."""
    service: Live | Problem = request.app.state.service
    if isinstance(service, Problem):
        raise service.with_traceback(None)  # else each raise of the one object would lengthen it
    if not service.batcher.alive:
        raise ended()
    return service


Ready = Annotated[Live, Depends(live_service)]


async def after_write(
    live: Ready,
    x_min_seq: Annotated[
        int | None,
        Header(ge=0, description="the seq of a write, perhaps of another worker, to be seen"),
        WithJsonSchema({"type": "integer", "minimum": 0}),  # a header is never null
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
    """Return the model thread's answer by `engine`, and note its times in the request's trace.

    Raises Problem 429 when too much waits, 504 when the time is over, 503 when the thread has
    ended. A client that leaves takes its query out of the queue.
    """
    encoder, trace = engine.encoder, trace_of(request.scope)
    trace.tokens = cost_of(query, encoder)
    known = set(encoder.services)
    strange = sum(name not in known for history in query.histories for name, _ in history)
    live.metrics.unknown_services.inc(strange)
    seconds = allowed_seconds(request, live.settings)
    submitted = time.perf_counter()
    try:
        work = live.batcher.submit((engine, query), trace.tokens, seconds)
    except (QueueFull, BatcherStopped) as refusal:
        raise too_full(refusal) if isinstance(refusal, QueueFull) else ended() from None
    if query.search is not None and engine.index.remote:
        work = asyncio.ensure_future(_found(live, engine, query, work))
    left = asyncio.ensure_future(_departure(request))
    live.metrics.queue.set(live.batcher.waiting)
    end_turn(request.scope)  # what is left is to wait
    done: set[Any] = set()
    try:
        done, _ = await asyncio.wait(
            (work, left), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if work in done:
            answer = work.result()
            trace.seconds = {"queue": answer.started - submitted, **answer.seconds}
            return answer
    except TooLate:
        pass
    except BadVector as bad:
        log.error("%s", bad)
        detail = "the model gave no finite vector for this; the fault is not the request's"
        raise Problem(500, "bad-vector", detail) from None
    except BatcherStopped:
        raise ended() from None
    finally:
        work.cancel()
        left.cancel()
    if left in done:
        raise Problem(499, "client-closed", "the client left before the answer was ready")
    detail = f"no answer within {seconds:g} s; send less or come again"
    raise Problem(504, "too-slow", detail, headers={"retry-after": "1"})


async def elsewhere(live: Live, engine: Engine, work: Callable[..., Made], *given: Any) -> Made:
    """Return what `work` makes of what is given; it may wait for the vectors of another machine.

    Raises Problem 503 where they are away, at the latest when the link's own time is over.
    """
    if not engine.index.remote:
        return work(*given)
    try:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(live.waiting, work, *given)
    except VectorsAway as away:
        retry = {"retry-after": str(away.retry_seconds)}
        raise Problem(503, "vectors-away", f"{away}; come again", headers=retry) from None


async def _found(
    live: Live, engine: Engine, query: Query, encoded: "asyncio.Future[Answer]"
) -> Answer:
    """Return the model thread's answer with what another machine finds by it."""
    answer = await encoded
    if answer.sought is None:
        return answer
    begun = time.perf_counter()
    hits, users = await elsewhere(live, engine, engine.search, query, answer.sought)
    times = {**answer.seconds, "search": time.perf_counter() - begun}
    return replace(answer, hits=hits, users=users, seconds=times, sought=None)


def allowed_seconds(request: Request, settings: Settings) -> float:
    """Return how long a request may take: as long as it says, and at most as the settings say.

    Raises Problem 400 where X-Request-Timeout-Ms is no count of milliseconds.
    """
    said = request.headers.get("x-request-timeout-ms")
    if said is None:
        return settings.request_seconds
    if not (said.isascii() and said.isdigit() and 0 < len(said) < 10 and int(said) > 0):
        detail = "x-request-timeout-ms is a whole number of milliseconds, at least 1"
        raise Problem(400, "wrong-timeout", detail)
    return min(int(said) / 1000, settings.request_seconds)


def too_full(full: QueueFull) -> Problem:
    """Return the 429 of a service that cannot answer in time."""
    retry = {"retry-after": str(full.retry_seconds)}
    detail = "too many requests wait; come again after Retry-After seconds"
    return Problem(429, "queue-full", detail, headers=retry)


def refuse_overload(request: Request, coming: int) -> None:
    """Raise Problem 429 where the model thread could not answer in time, before a body is parsed.

    So many requests are `coming` that were let in and are not with the thread yet.

    To parse and check a body of 125 kB costs more than all else that a refusal does.
    """
    service: Live | Problem = request.app.state.service
    if isinstance(service, Live):
        full = service.batcher.refusal(allowed_seconds(request, service.settings), coming)
        if full is not None:
            raise too_full(full)


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


def ended() -> Problem:
    """Return the 503 of a service whose model thread has ended."""
    return not_ready("the model thread has ended; restart the service")


def json_response(value: dict[str, Any], status: int = 200) -> Response:
    """Return the JSON response; NumPy arrays are lists of the shortest numbers that read the same.

    768 floats take 30 µs so, 44 µs as a list, and 1,657 µs by FastAPI's own encoder.
    """
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")
