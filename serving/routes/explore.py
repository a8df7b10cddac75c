"""What the explorer page shows beside the searches: users by id, their histories, and the map."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from serving.auth import READ
from serving.body import StrictRoute
from serving.catalogue import Catalogue
from serving.engine import Engine
from serving.histories import from_bytes, order_of
from serving.live import Live, Ready, elsewhere, json_response
from serving.problems import REFUSALS
from serving.schemas import ID_BYTES, Answer, Columns, Event, Name, Strict, pair_of
from serving.vectors import KnownUser, Vectors

MOST_USERS = 100
MOST_NEWEST = 50
Place = Annotated[tuple[float, float], pair_of("number")]

router = APIRouter(
    prefix="/v1/explore", route_class=StrictRoute, responses=REFUSALS, dependencies=[READ]
)


class HistoriesRequest(Strict):
    """Users of the index or the store, and how many of their newest events of a service."""

    user_ids: Annotated[list[Name], Field(min_length=1, max_length=MOST_USERS)]
    newest: int = Field(default=5, ge=0, le=MOST_NEWEST)


class Met(BaseModel):
    """An item that a user met; "" for what a stored event does not say."""

    item_id: str
    text: str


class InService(BaseModel):
    """How many events a user has in a service, and the newest of them, oldest first."""

    service: str
    events: int
    newest: list[Met]


class UserHistory(BaseModel):
    """A user: their place on the map, and the services that they have events in."""

    user_id: str
    at: Place
    services: list[InService]


class HistoriesAnswer(Answer):
    """The users in the order of the request, without those that no search finds."""

    data: list[UserHistory]


class UserIds(Answer):
    """Ids of users, ascending."""

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
    made = await elsewhere(live, engine, engine.index.map)
    columns = engine.encoder.similarity_columns
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
    known = await elsewhere(live, engine, _ids, engine.index, prefix, limit)
    ids = [user_id for user_id in known if engine.delta.keeps(user_id)]
    ids = sorted({*ids, *engine.delta.ids_from(prefix, limit)}) if prefix else ids
    return json_response({**engine.stamp, "data": ids[:limit]})


@router.post("/histories", response_model=HistoriesAnswer)
async def histories(body: HistoriesRequest, live: Ready) -> Response:
    """Return what users did: those of the generation, and those written since."""
    engine = live.engine
    made = await elsewhere(live, engine, _histories, live, engine, body)
    return json_response({**engine.stamp, "data": made})


def _ids(index: Vectors, prefix: str, limit: int) -> list[str]:
    if prefix:
        return index.ids_from(prefix, limit)
    return [user.user_id for user in index.some_users(limit)]


def _histories(live: Live, engine: Engine, body: HistoriesRequest) -> list[dict[str, Any]]:
    made = (_history(live, engine, user_id, body.newest) for user_id in body.user_ids)
    return [one for one in made if one is not None]


def _history(live: Live, engine: Engine, user_id: str, newest: int) -> dict[str, Any] | None:
    """Return where a user lies and what they did; None of who was deleted or never there."""
    index, vector = engine.index, engine.delta.vector(user_id)
    if vector is not None:
        stored = None if live.store is None else live.store.user(user_id)
        if stored is None or stored.events is None:  # deleted a moment ago
            return None
        services = _stored_services(from_bytes(stored.events), index.catalogue.services, newest)
    elif engine.delta.keeps(user_id) and (known := index.user(user_id)) is not None:
        services, vector = _services(index.catalogue, known, newest), known.vector
    else:
        return None
    return {
        "user_id": user_id,
        "at": index.map().places(vector[None])[0].tolist(),
        "services": services,
    }


def _services(catalogue: Catalogue, user: KnownUser, newest: int) -> list[dict[str, Any]]:
    services: list[dict[str, Any]] = []
    for service in np.flatnonzero(user.events).tolist():
        seen = catalogue.among(user.seen, service)
        items = [catalogue.item(row) for row in seen[len(seen) - min(newest, len(seen)) :].tolist()]
        services.append(
            {
                "service": catalogue.services[service],
                "events": int(user.events[service]),
                "newest": [{"item_id": item_id, "text": text} for item_id, _, text in items],
            }
        )
    return services


def _stored_services(
    events: Sequence[Event], services: Sequence[str], newest: int
) -> list[dict[str, Any]]:
    ordered = [events[n] for n in order_of(events)]
    made: list[dict[str, Any]] = []
    for service in services:
        own = [event for event in ordered if event.service == service]
        last = [
            {"item_id": event.item_id or "", "text": event.text or event.item_id or ""}
            for event in own[len(own) - min(newest, len(own)) :]
        ]
        if own:
            made.append({"service": service, "events": len(own), "newest": last})
    return made
