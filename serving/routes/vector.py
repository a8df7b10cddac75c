"""A stored user's vector alone, for those who look one up at each page view."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response

from serving.auth import READ, require
from serving.body import UserRoute
from serving.encodings import OCTETS, octets, wants_octets
from serving.engine import columns_of
from serving.live import Seen, after_write, json_response, live_service, not_ready
from serving.problems import REFUSALS, invalid
from serving.routes.users import UserId, not_stored, nothing_read, store_of
from serving.user_schemas import VectorAnswer


class LeanRoute(UserRoute):
    """A route of the role read whose endpoint takes a user's id, the service and the request.

    They are handed over as they are: FastAPI's own resolving of what an endpoint declares takes
    0.1 ms of one core, as long as all else that a look-up costs.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler."""

        async def lean(request: Request) -> Response:
            require(request, "read")
            live = await after_write(await live_service(request), _min_seq(request))
            return await self.endpoint(request.path_params["user_id"], live, request)

        return lean


router = APIRouter(prefix="/v1", route_class=LeanRoute, responses=REFUSALS, dependencies=[READ])


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


def _min_seq(request: Request) -> int | None:
    """Return the write that a request wants to see; raises Problem 422 where it names none."""
    said = request.headers.get("x-min-seq")
    if said is None:
        return None
    if not (said.isascii() and said.isdigit() and len(said) < 19):
        raise invalid([("/x-min-seq", "is the seq of a write, a whole number from 0 on")])
    return int(said)
