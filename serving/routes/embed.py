"""Vectors of users whose events are in the request."""

import numpy as np
from fastapi import APIRouter, Request, Response

from serving.auth import READ
from serving.body import ModelRoute
from serving.encodings import OCTETS, leading, octets, wants_octets, written
from serving.engine import chosen
from serving.live import Ready, ask, json_response
from serving.problems import REFUSALS, invalid
from serving.queries import embed_query, unseen
from serving.schemas import EmbedAnswer, EmbedRequest

router = APIRouter(prefix="/v1", route_class=ModelRoute, responses=REFUSALS, dependencies=[READ])


@router.post(
    "/users/embed",
    response_model=EmbedAnswer,
    responses={200: {"content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def embed_users(body: EmbedRequest, request: Request, live: Ready) -> Response:
    """Return one vector per user, over all services together, of the wanted blocks.

    With `accept: application/octet-stream` they are little-endian float32, row after row, and
    x-rows, x-width, x-blocks, x-model and x-index say the rest.
    """
    engine, as_octets = live.engine, wants_octets(request)
    encoder = engine.encoder
    if as_octets and body.encoding_format != "float":
        raise invalid([("/encoding_format", f"is float where {OCTETS} is accepted")])
    query = embed_query(body, encoder, live.settings)

    def wanted(vectors: np.ndarray) -> tuple[np.ndarray, dict[str, tuple[int, int]]]:
        return leading(*chosen(vectors, encoder.blocks, body.blocks), body.dimensions)

    wanted(np.empty((0, encoder.width)))  # refuses before anything is computed
    vectors, blocks = wanted((await ask(live, engine, request, query)).vectors)
    if as_octets:
        return octets(vectors, blocks, engine.stamp)
    rows = written(vectors, blocks, body.encoding_format)
    data = [{"user_id": u.user_id, **row} for u, row in zip(body.users, rows, strict=True)]
    strangers = unseen(query.histories, encoder.services)
    return json_response(
        {**engine.stamp, "data": data, "blocks": blocks, "unseen_services": strangers}
    )
