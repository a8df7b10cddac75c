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
from starlette.datastructures import MutableHeaders
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
CLOSED = "default-src 'none'; frame-ancestors 'none'"
# What FastAPI's page of the API loads; the explorer's page brings a policy of its own.
DOCS = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net; connect-src 'self'; "
    "img-src data: https://fastapi.tiangolo.com; frame-ancestors 'none'"
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
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
                self._add_headers(MutableHeaders(scope=message), scope, started)
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

    def _add_headers(self, headers: MutableHeaders, scope: Scope, started: float) -> None:
        trace = trace_of(scope)
        headers["x-request-id"] = trace.request_id
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        headers.setdefault("content-security-policy", DOCS if scope["path"] == "/docs" else CLOSED)
        for stage, seconds in trace.seconds.items():
            headers[f"x-{stage}-time"] = f"{1000 * seconds:.2f}"
        if trace.tokens:
            headers["x-tokens"] = str(trace.tokens)
        headers["x-total-time"] = f"{1000 * (time.perf_counter() - started):.2f}"
        if scope["app"].state.draining:  # so that the client's next request goes elsewhere
            headers["connection"] = "close"

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        trace = trace_of(scope)
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if route != "none" else "any"
        self.metrics.requests.labels(route, method, status).inc()
        self.metrics.seconds.labels(route).observe(seconds)
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
