"""What the explorer page shows beside the searches: users by id, their histories, and the map."""

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from serving.auth import READ
from serving.body import StrictRoute
from serving.index import Index
from serving.live import Ready, json_response
from serving.problems import REFUSALS
from serving.schemas import ID_BYTES, Answer, Columns, Name, Strict, pair_of

MOST_USERS = 100
MOST_NEWEST = 50
Place = Annotated[tuple[float, float], pair_of("number")]

router = APIRouter(
    prefix="/v1/explore", route_class=StrictRoute, responses=REFUSALS, dependencies=[READ]
)


class HistoriesRequest(Strict):
    """Users of the index, and how many of their newest events in each service are wanted."""

    user_ids: Annotated[list[Name], Field(min_length=1, max_length=MOST_USERS)]
    newest: int = Field(default=5, ge=0, le=MOST_NEWEST)


class Met(BaseModel):
    """An item that a user met."""

    item_id: str
    text: str


class InService(BaseModel):
    """How many events a user has in a service, and the newest of them, oldest first."""

    service: str
    events: int
    newest: list[Met]


class UserHistory(BaseModel):
    """A user of the index: their place on the map, and the services that they have events in."""

    user_id: str
    at: Place
    services: list[InService]


class HistoriesAnswer(Answer):
    """The users in the order of the request, without those that the generation does not hold."""

    data: list[UserHistory]


class UserIds(Answer):
    """Ids of users of the index, ascending."""

    data: list[str]


class MapAnswer(Answer):
    """The users on the two main axes of the vectors by which they are compared.

    A user lies at axes @ (v - mean), where v is what stands in `columns` of their vector, at unit
    length.
    """

    points: list[Place] = Field(description="a sample of the users")
    axes: list[list[float]]
    mean: list[float]
    columns: Columns
    explained: float = Field(description="the share of the variance on the two axes")


@router.get("/map", response_model=MapAnswer)
async def population_map(live: Ready) -> Response:
    """Return the map of the population, and what places another user on it."""
    engine = live.engine
    made, columns = engine.index.map, engine.encoder.similarity_columns
    tree = {
        **engine.stamp,
        "points": np.round(made.points, 4).tolist(),
        "axes": made.axes.tolist(),
        "mean": made.mean.tolist(),
        "columns": (columns.start, columns.stop),
        "explained": made.explained,
    }
    return json_response(tree)


@router.get("/users", response_model=UserIds)
async def users(
    live: Ready,
    prefix: Annotated[str, Query(max_length=ID_BYTES)] = "",
    limit: Annotated[int, Query(ge=1, le=MOST_USERS)] = 20,
) -> Response:
    """Return ids that begin with `prefix`; without one, those of users drawn from all."""
    engine = live.engine
    index = engine.index
    rows = index.rows_from(prefix, limit) if prefix else _drawn(index, limit)
    ids = [index.user_id(row) for row in rows if engine.delta.keeps(row)]
    return json_response({**engine.stamp, "data": [i for i in ids if i.startswith(prefix)]})


@router.post("/histories", response_model=HistoriesAnswer)
async def histories(body: HistoriesRequest, live: Ready) -> Response:
    """Return what users of the index did, as the generation has it."""
    engine = live.engine
    index = engine.index
    known = [row for row in map(index.user_row, body.user_ids) if row is not None]
    rows = [row for row in known if engine.delta.keeps(row)]  # no history of who was deleted
    data = [_history(index, row, body.newest) for row in rows]
    return json_response({**engine.stamp, "data": data})


def _drawn(index: Index, limit: int) -> list[int]:
    """Return rows of users, those with events in several services first: the same at every call."""
    drawn = np.random.default_rng(0).permutation(index.num_users)[: 20 * limit]
    several = np.array([np.count_nonzero(index.filters.events_of(row)) for row in drawn])
    return np.sort(drawn[np.argsort(-several, kind="stable")][:limit]).tolist()


def _history(index: Index, row: int, newest: int) -> dict[str, Any]:
    counts = index.filters.events_of(row)
    services: list[dict[str, Any]] = []
    for service in np.flatnonzero(counts).tolist():
        met = index.seen_in(row, service)
        items = [index.item(item) for item in met[len(met) - min(newest, len(met)) :].tolist()]
        services.append(
            {
                "service": index.services[service],
                "events": len(met),
                "newest": [{"item_id": item_id, "text": text} for item_id, _, text in items],
            }
        )
    at = index.map.places(index.user_vector(row)[None])[0]
    return {"user_id": index.user_id(row), "at": at.tolist(), "services": services}
