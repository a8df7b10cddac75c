"""Items that fit a user, and users who are like them."""

from typing import Any

from fastapi import APIRouter, Request, Response

from serving.auth import READ
from serving.body import ModelRoute
from serving.live import Seen, ask, elsewhere, json_response
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
async def search_items(body: SearchItemsRequest, request: Request, live: Seen) -> Response:
    """Return the items that fit a user best, or that are most like a text."""
    engine = live.engine
    given = (body, engine, live.settings, live.store)
    query = await elsewhere(live, engine, items_query, *given)
    answer = await ask(live, engine, request, query)
    assert answer.hits is not None
    data: list[dict[str, Any]] = []
    for row, score in zip(answer.hits.rows.tolist(), answer.hits.scores.tolist(), strict=True):
        item_id, service, text = engine.index.catalogue.item(row)
        data.append({"item_id": item_id, "service": service, "text": text, "score": score})
    return json_response({**engine.stamp, "data": data})


@router.post("/users/similar", response_model=UsersAnswer)
async def similar_users(body: SimilarUsersRequest, request: Request, live: Seen) -> Response:
    """Return the users of the index most like a user."""
    engine = live.engine
    given = (body, engine, live.settings, live.store)
    query = await elsewhere(live, engine, users_query, *given)
    answer = await ask(live, engine, request, query)
    assert answer.users is not None
    data = [{"user_id": user_id, "score": score} for user_id, score in answer.users]
    return json_response({**engine.stamp, "data": data})
