"""Vectors of users whose events are in the request."""

from fastapi import APIRouter, Request, Response

from serving.auth import READ
from serving.body import StrictRoute
from serving.engine import chosen
from serving.live import Ready, ask, json_response
from serving.problems import REFUSALS
from serving.queries import embed_query, unseen
from serving.schemas import EmbedAnswer, EmbedRequest

router = APIRouter(prefix="/v1", route_class=StrictRoute, responses=REFUSALS, dependencies=[READ])


@router.post("/users/embed", response_model=EmbedAnswer)
async def embed_users(body: EmbedRequest, request: Request, live: Ready) -> Response:
    """Return one vector per user, over all services together, of the wanted blocks."""
    engine = live.engine
    encoder = engine.encoder
    query = embed_query(body, encoder, live.settings)
    answer = await ask(live, engine, request, query)
    vectors, blocks = chosen(answer.vectors, encoder.blocks, body.blocks)
    data = [
        {"user_id": user.user_id, "vector": vector}
        for user, vector in zip(body.users, vectors.tolist(), strict=True)
    ]
    strangers = unseen(query.histories, encoder.services)
    made = {**engine.stamp, "data": data, "blocks": blocks, "unseen_services": strangers}
    return json_response(made)
