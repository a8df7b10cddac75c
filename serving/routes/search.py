"""Items that fit a user, and users who are like them."""

from typing import Any

from fastapi import APIRouter, Request, Response

from serving.auth import READ
from serving.body import ModelRoute
from serving.live import Ready, ask, json_response
from serving.problems import REFUSALS
from serving.search_queries import items_query, users_query
from serving.search_schemas import (
    ItemsAnswer,
    SearchItemsRequest,
    SimilarUsersRequest,
    UsersAnswer,
)

router = APIRouter(prefix="/v1", route_class=ModelRoute, responses=REFUSALS, dependencies=[READ])


@router.post("/items/search", response_model=ItemsAnswer)
async def search_items(body: SearchItemsRequest, request: Request, live: Ready) -> Response:
    """Return the items that fit a user best, or that are most like a text."""
    index = live.engine.index
    answer = await ask(live, request, items_query(body, live.engine, live.settings))
    assert answer.hits is not None
    data: list[dict[str, Any]] = []
    for row, score in zip(answer.hits.rows.tolist(), answer.hits.scores.tolist(), strict=True):
        item_id, service, text = index.item(row)
        data.append({"item_id": item_id, "service": service, "text": text, "score": score})
    return json_response({**live.stamp(), "data": data})


@router.post("/users/similar", response_model=UsersAnswer)
async def similar_users(body: SimilarUsersRequest, request: Request, live: Ready) -> Response:
    """Return the users of the index most like a user."""
    index = live.engine.index
    answer = await ask(live, request, users_query(body, live.engine, live.settings))
    assert answer.hits is not None
    hits = zip(answer.hits.rows.tolist(), answer.hits.scores.tolist(), strict=True)
    data = [{"user_id": index.user_id(row), "score": score} for row, score in hits]
    return json_response({**live.stamp(), "data": data})
