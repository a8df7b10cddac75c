"""A stored user's vector alone, for those who look one up at each page view."""

import re

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.auth import READ, require
from serving.body import UserRoute
from serving.encodings import OCTETS, octets, wants_octets
from serving.engine import columns_of
from serving.live import Live, Seen, json_response, live_service, not_ready
from serving.problems import REFUSALS, Problem, respond
from serving.routes.users import UserId, not_stored, nothing_read, store_of
from serving.user_schemas import VectorAnswer

# an id that is sent as it is: RFC 3986 writes only such characters of a segment without a percent
PLAIN = re.compile(rb"/v1/users/([A-Za-z0-9._~!$&'()*+,;=:@-]{1,256})/vector")
UNUSUAL = {b"content-length", b"transfer-encoding", b"x-min-seq"}

router = APIRouter(prefix="/v1", route_class=UserRoute, responses=REFUSALS, dependencies=[READ])


@router.get(
    "/users/{user_id}/vector",
    response_model=VectorAnswer,
    responses={200: {"content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def stored_vector(user_id: UserId, live: Seen, request: Request) -> Response:
    """Return a stored user's vector as of the last write, without their events.

    With `accept: application/octet-stream` it is little-endian float32, and x-width, x-blocks,
    x-model and x-index say the rest. 503 where the model of now has not embedded the user yet.
    """
    store, engine = await store_of(live), live.engine
    # the write that comes next deletes it: a vector that is there is that of the last one
    made = store.vector(user_id, engine.encoder.fingerprint)
    if made is None:
        user = store.user(user_id)
        if user is None or user.events is None:
            raise not_stored()
        raise not_ready("the model of now has not embedded this user yet; come again")
    if not len(made.vector):
        raise nothing_read()
    blocks = columns_of(engine.encoder.blocks)
    if wants_octets(request):
        return octets(made.vector[None], blocks, engine.stamp)
    known = {**engine.stamp, "user_id": user_id, "seq": made.seq, "blocks": blocks}
    return json_response({**known, "vector": made.vector})


ROUTE = next(each for each in router.routes if isinstance(each, APIRoute))


class LookUp:
    """ASGI middleware, behind the guard: answers a plain request for a stored vector by itself.

    As the route would, to which all others go on. The layers, the routing and the resolving of
    FastAPI take .06 ms of one core between them, more than the look-up and the answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Stand before `app`."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event stream (ASGI)."""
        user_id = _plainly_wanted(scope) if scope["type"] == "http" else None
        if user_id is None:
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        scope["route"] = ROUTE  # by which it is counted
        try:
            require(request, "read")
            live: Live = await live_service(request)
            response = await stored_vector(user_id, live, request)
        except Problem as problem:
            response = respond(problem, scope)
        await response(scope, receive, send)


def _plainly_wanted(scope: Scope) -> str | None:
    """Return whose vector a request wants that has no body, no query and nothing to wait for."""
    plain = PLAIN.fullmatch(scope.get("raw_path") or b"")
    if plain is None or scope["method"] != "GET" or scope["query_string"]:
        return None
    if any(name in UNUSUAL for name, _ in scope["headers"]):
        return None
    return plain[1].decode("ascii")
