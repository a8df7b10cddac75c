"""Around every request: its id, its times, what is counted, its headers and its line in the log."""

import itertools
import logging
import re
import secrets
import time
from collections.abc import Iterable
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import get_current_span
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import Metrics
from serving.problems import Problem, refuse
from serving.settings import Settings
from serving.trace import Trace, trace_of

log = logging.getLogger("clue.serving.requests")

# an id is one of its process's: urandom for each lets go of the interpreter, and the model takes it
PROCESS, _numbers = secrets.token_hex(12), itertools.count()
LEFT = 499  # nothing was answered: the client was not there any more
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CLOSED = b"default-src 'none'; frame-ancestors 'none'"
# What FastAPI's page of the API loads; the explorer's page brings a policy of its own.
DOCS = (
    b"default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    b"style-src 'unsafe-inline' https://cdn.jsdelivr.net; connect-src 'self'; "
    b"img-src data: https://fastapi.tiangolo.com; frame-ancestors 'none'"
)
POLICY = b"content-security-policy"
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
    POLICY: CLOSED,
}


class Observed:
    """ASGI middleware, the outermost: nothing is answered that it does not see."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, log_requests: bool) -> None:
        """Stand before `app`."""
        self.app = app
        self.metrics = metrics
        self.log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event stream (ASGI)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        trace = Trace(request_id_of(scope["headers"]))
        scope.setdefault("state", {})["trace"] = trace
        status = LEFT

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _describe(scope)  # before the answer's end, which ends the span
                headers = message["headers"] = list(message["headers"])
                self._add_headers(headers, scope, started)
            await send(message)

        try:
            await self.app(scope, receive, observed)
        except Exception:
            log.exception("a fault of the service", extra={"request_id": trace.request_id})
            if status == LEFT:
                detail = "the service failed; its log says how"
                await refuse(Problem(500, "internal-error", detail), scope, receive, observed)
        finally:
            _describe(scope)
            self._count(scope, status, time.perf_counter() - started)

    def _add_headers(
        self, headers: list[tuple[bytes, bytes]], scope: Scope, started: float
    ) -> None:
        """Add to the headers of an answer, whose names are in lower case (ASGI)."""
        trace = trace_of(scope)
        named = {name for name, _ in headers}
        if scope["path"] == "/docs" and POLICY not in named:
            headers.append((POLICY, DOCS))
            named.add(POLICY)
        headers.extend(each for each in HEADERS.items() if each[0] not in named)
        times = {**trace.seconds, "total": time.perf_counter() - started}
        known = {f"x-{stage}-time": f"{1000 * seconds:.2f}" for stage, seconds in times.items()}
        known["x-request-id"] = trace.request_id
        if trace.tokens:
            known["x-tokens"] = str(trace.tokens)
        # so that the client's next request goes elsewhere
        if scope["app"].state.draining and b"connection" not in named:
            known["connection"] = "close"
        headers.extend(
            (name.encode("ascii"), value.encode("ascii")) for name, value in known.items()
        )

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        trace = trace_of(scope)
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if route != "none" else "any"
        self.metrics.count(route, method, status, seconds)
        for stage, spent in trace.seconds.items():
            self.metrics.stages.labels(stage).observe(spent)
        if trace.problem is not None:
            self.metrics.rejected.labels(trace.problem).inc()
        is_fault = status >= 500 and status != 503  # a probe is answered 503 all through a start
        if self.log_requests or is_fault:
            level = logging.ERROR if is_fault else logging.INFO
            log.log(level, "%s %s %d", method, route, status, extra=_fields(scope, seconds))


def telemetry_of(settings: Settings) -> TelemetryConfig:
    """Return what FastAPI makes and exports of OpenTelemetry: spans of requests, or nothing."""
    return {
        "tracing": settings.tracing,
        "auto_configure": settings.tracing,
        "metrics": False,  # /metrics has them
        "logs": False,
        "operation_spans": False,
    }


def _describe(scope: Scope) -> None:
    """Write what is known of a request into its span, where there is one.

    A path and a query name users: the span has the route instead, and nothing of the body.
    """
    span = get_current_span()
    if not span.is_recording():
        return
    trace = trace_of(scope)
    known = {"url.path": getattr(scope.get("route"), "path", "none"), "url.query": ""}
    times = {f"clue.{stage}_seconds": spent for stage, spent in trace.seconds.items()}
    span.set_attributes(
        {
            **known,
            **times,
            "clue.request_id": trace.request_id,
            "clue.tokens": trace.tokens,
            "clue.problem": trace.problem or "",
        }
    )


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the client's id of the request where it is one, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value.decode("latin-1")):
            return value.decode("latin-1")
    return f"{PROCESS}{next(_numbers):08x}"


def _fields(scope: Scope, seconds: float) -> dict[str, Any]:
    """Return what a line of the log says beside its text: nothing of the body, no key."""
    trace, caller = trace_of(scope), scope["state"].get("caller")
    times = {f"{stage}_ms": round(1000 * spent, 2) for stage, spent in trace.seconds.items()}
    known = {"problem": trace.problem, "key": caller and caller.name, "tokens": trace.tokens}
    return {
        "request_id": trace.request_id,
        "total_ms": round(1000 * seconds, 2),
        **times,
        **{name: value for name, value in known.items() if value},
    }
