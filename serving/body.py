"""Request bodies: counted before they are parsed, and parsed strictly.

Stock uvicorn + FastAPI took a body of 108 MB for a schema of 512 events: 1.3 GB of memory and an
event loop stalled for 7 s. Here nothing is parsed before it was counted.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, get_type_hints
from urllib.parse import quote, unquote

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.auth import require
from serving.live import live_service, refuse_overload
from serving.problems import Problem, refuse, respond
from serving.turns import Turn, Turns

# Parsing 64 kB takes about 1 ms; what is longer leaves the event loop to others meanwhile.
OFF_LOOP_BYTES = 64_000
NO_BODY = {"type": "missing", "loc": ("body",), "msg": "Field required"}


class BodyLimit:
    """ASGI middleware: hands on a whole body of at most `max_bytes` that came within `seconds`.

    Else it answers 413 or 408 and closes the connection. After a 413 what still comes is dropped
    for as long: a close before it resets the connection, and half of the clients that sent 100 MB
    lost their answer to that.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        """Stands before `app`."""
        self.app = app
        self.max_bytes = max_bytes
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event stream (ASGI)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.seconds):
                body = await self._read(scope, receive)
        except TimeoutError:
            detail = f"the body did not arrive within {self.seconds:g} s"
            await refuse(_closing(408, "slow-body", detail), scope, receive, send)
            return
        except Problem as problem:
            await respond(problem, scope)(scope, receive, partial(_keep_open, send))
            with suppress(TimeoutError):
                async with asyncio.timeout(self.seconds):
                    await _drop_rest(receive)
            await send({"type": "http.response.body"})
            return
        if body is not None:  # None: the client left before its body was whole
            await self.app(scope, _replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.max_bytes:
            raise self._too_large()
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self.max_bytes:  # a chunked body declares no length
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> Problem:
        detail = f"a body has at most {self.max_bytes} bytes; send fewer users"
        return _closing(413, "body-too-large", detail)


async def _keep_open(send: Send, message: Message) -> None:
    """Send a message of a response, whose end is still to come."""
    is_body = message["type"] == "http.response.body"
    await send({**message, "more_body": True} if is_body else message)


async def _drop_rest(receive: Receive) -> None:
    message = await receive()
    while message["type"] == "http.request" and message.get("more_body", False):
        message = await receive()


class StrictRequest(Request):
    """A request whose JSON is UTF-8 without BOM, NaN, Infinity or a key given twice."""

    async def json(self) -> Any:
        """Return the parsed body; raises Problem 400."""
        body = await self.body()
        if len(body) > OFF_LOOP_BYTES:
            return await run_in_threadpool(parse_json, body)
        return parse_json(body)


class StrictRoute(APIRoute):
    """A route that reads its body as StrictRequest and takes nothing but application/json."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler behind the two checks."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            if request.method in ("POST", "PUT", "PATCH"):
                _check_headers(request)
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


class UserRoute(StrictRoute):
    """A strict route of a user, whose id is one segment of the path, read as it was sent.

    In the decoded path an id may hold slashes, and one that is not UTF-8 holds U+FFFD as another
    does; Starlette's pattern lets an id go without the line break at its end.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return how far the route fits the path, and the id in it."""
        sent = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1")
        match, known = super().matches({**scope, "path": sent})
        try:
            values = {k: unquote(v, errors="strict") for k, v in known["path_params"].items()}
        except KeyError:  # another path
            return match, known
        except UnicodeDecodeError:
            return Match.NONE, {}
        return match, {**known, "path_params": values}


class ModelRoute(StrictRoute):
    """A strict route that asks the model thread: refused unread where too much waits for it.

    Its endpoint takes a `body`, the request and the service, which are handed over as FastAPI
    would: its own resolving of what an endpoint declares takes .08 ms of one core, as long as to
    parse and check a body of 35 events. A request to be answered after a write goes that way.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler behind the look at the queue."""
        by_fastapi = super().get_route_handler()
        schema: TypeAdapter[Any] = TypeAdapter(get_type_hints(self.endpoint)["body"])

        async def plainly(request: Request) -> Response:
            _check_headers(request)
            strict = StrictRequest(request.scope, request.receive)
            has_body = bool(await strict.body())
            tree = await strict.json() if has_body else None
            require(request, "read")
            live = await live_service(request)
            if not has_body:
                raise RequestValidationError([NO_BODY])
            try:
                body = schema.validate_python(tree, from_attributes=True)  # as FastAPI does
            except ValidationError as error:
                faults = error.errors(include_url=False, include_context=False, include_input=False)
                where = [{**fault, "loc": ("body", *fault["loc"])} for fault in faults]
                raise RequestValidationError(where) from None
            return await self.endpoint(body, request, live)

        async def unless_full(request: Request) -> Response:
            turns: Turns = request.app.state.turns
            refuse_overload(request, turns.begun)
            turn = request.scope["state"]["turn"] = Turn(turns)
            handle = by_fastapi if "x-min-seq" in request.headers else plainly
            try:
                await turn.begin()
                return await handle(request)
            finally:
                turn.end()

        return unless_full


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON text; raises Problem 400 naming the rule it breaks."""
    try:
        return json.loads(
            body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant
        )
    except UnicodeDecodeError:
        raise _malformed("the body is not UTF-8") from None
    except RecursionError:
        raise _malformed("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise _malformed(f"the body is not JSON at character {error.pos}") from None
    except ValueError:  # Python refuses integers of more than 4,300 digits
        raise _malformed("the body holds a number that is too long") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise _malformed("an object gives the same key twice")
    return tree


def _no_constant(_: str) -> float:
    raise _malformed("NaN and Infinity are not JSON")


def _malformed(detail: str) -> Problem:
    return Problem(400, "malformed-json", detail)


def _check_headers(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "wrong-content-type", "send content-type: application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "wrong-content-encoding", "send the body uncompressed")


def _closing(status: int, kind: str, detail: str) -> Problem:
    return Problem(status, kind, detail, headers={"connection": "close"})


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that yields the body once and then whatever the connection says."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed
