"""Every 4xx and 5xx as RFC 9457 `application/problem+json`, never echoing what was sent.

Not echoing is what keeps a bad request a 4xx: FastAPI's own 422 repeats the input, and NaN, 1e999
or a lone surrogate cannot be written as JSON, so the refusal itself became a 500.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from serving.trace import trace_of

MOST_ERRORS = 20
OPENAI_PATH = "/v1/embeddings"


class FieldError(BaseModel):
    """Where in the body (a JSON pointer) and what is wrong there."""

    pointer: str
    detail: str


class ProblemBody(BaseModel):
    """The body of every refusal (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None


class OpenAIDetail(BaseModel):
    """What was wrong, and with which parameter."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIError(BaseModel):
    """The body of every refusal of /v1/embeddings."""

    error: OpenAIDetail


def refusals(model: type[BaseModel], kind: str) -> dict[int | str, dict[str, Any]]:
    """Return how OpenAPI describes the refusals of a route: bodies of `model`, of a media type."""
    # serving.document adds the models themselves
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    one: dict[str, Any] = {"description": "refused", "content": {kind: {"schema": schema}}}
    return {"4XX": one, "5XX": one}


REFUSALS = refusals(ProblemBody, "application/problem+json")
OPENAI_REFUSALS = refusals(OpenAIError, "application/json")


class Problem(HTTPException):
    """A refusal: raise it anywhere under a route.

    `kind` is a stable slug that clients may switch on, `detail` one sentence with the next step;
    neither may hold anything the client sent, but that a pointer names an unknown field of an
    event. `extra` adds members to the body.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """`status` is a 4xx or 5xx."""
        super().__init__(status, detail, headers)
        self.kind = kind
        self.extra = extra or {}


def invalid(errors: Sequence[tuple[str, str]]) -> Problem:
    """Return the 422 for (JSON pointer, what is wrong) pairs, the first 20 of them."""
    # a body of 66,000 bad events needs no 66,000 lines
    listed = [{"pointer": pointer, "detail": detail} for pointer, detail in errors[:MOST_ERRORS]]
    detail = "the body does not fit the schema; errors says where, /openapi.json what is expected"
    return Problem(422, "invalid-body", detail, extra={"errors": listed})


def respond(problem: Problem, scope: Scope) -> Response:
    """Return the response of a refusal; ASCII JSON, so that no text can fail to encode."""
    trace_of(scope).problem = problem.kind
    if scope["path"] == OPENAI_PATH:
        return _as_openai(problem)
    body = {
        "type": f"urn:clue:problem:{problem.kind}",
        "title": problem.kind.replace("-", " ").capitalize(),
        "status": problem.status_code,
        "detail": problem.detail,
        **problem.extra,
    }
    return Response(
        json.dumps(body, allow_nan=False),
        problem.status_code,
        problem.headers,
        media_type="application/problem+json",
    )


def _as_openai(problem: Problem) -> Response:
    """Return the response as OpenAI's clients read errors; what a schema refuses is a 400 there."""
    status = 400 if problem.status_code == 422 else problem.status_code
    error: dict[str, str | None] = {
        "message": problem.detail,
        "type": "invalid_request_error",
        "param": None,
        "code": problem.kind.replace("-", "_"),
    }
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    error["type"] = kinds.get(status, "server_error" if status >= 500 else error["type"])
    listed = problem.extra.get("errors")
    if listed:
        error["param"] = listed[0]["pointer"].removeprefix("/").replace("/", ".")
        error["message"] = f"{error['param']}: {listed[0]['detail']}"
    content = json.dumps({"error": error}, allow_nan=False)
    return Response(content, status, problem.headers, media_type="application/json")


async def refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a refusal before there is a route."""
    await respond(problem, scope)(scope, receive, send)


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Make `app` of these routes answer each refusal with a problem body; Observed does faults."""
    app.state.routes = routes
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors: list[tuple[str, str]] = []
    for problem in error.errors():
        # The first part of a location says "body"; the last one of an unknown field is the field's
        # name, which the client chose.
        unknown = problem["type"] == "extra_forbidden"
        where = problem["loc"][1:-1] if unknown else problem["loc"][1:]
        what = "unknown field" if unknown else problem["msg"].removeprefix("Value error, ")
        errors.append(("".join(f"/{part}" for part in where), what))
    return respond(invalid(errors), request.scope)


_WORDS = {
    404: ("unknown-path", "there is no such path; GET /openapi.json lists them"),
    405: ("wrong-method", "this path takes other methods; the Allow header lists them"),
}


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, Problem):
        return respond(error, request.scope)
    kind, detail = _WORDS.get(error.status_code, ("refused", "the request cannot be served"))
    headers = dict(error.headers or {})
    if error.status_code == 405:  # Starlette's own names those of the first route of the path alone
        headers = {**headers, "Allow": ", ".join(sorted(_methods(request)))}
    return respond(Problem(error.status_code, kind, detail, headers=headers), request.scope)


def _methods(request: Request) -> set[str]:
    """Return the methods of all routes of a path."""
    routes: Sequence[BaseRoute] = request.app.state.routes
    fitting = [route for route in routes if route.matches(request.scope)[0] != Match.NONE]
    return {method for route in fitting for method in getattr(route, "methods", ())}
