"""Durable users: written, appended to, read and deleted."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated
from weakref import WeakValueDictionary

import numpy as np
from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic_core import to_json

from serving.auth import READ, WRITE
from serving.body import UserRoute
from serving.durable import write
from serving.engine import Answer, Engine, Query, columns_of, is_comparable
from serving.histories import (
    Errors,
    from_bytes,
    history_of,
    last_moment,
    moment_of,
    newest,
    readable,
    to_bytes,
)
from serving.live import FOLLOW_SECONDS, Live, Ready, Seen, ask, elsewhere, json_response
from serving.problems import REFUSALS, Problem, invalid
from serving.rows import StoredUser
from serving.schemas import Name
from serving.search_queries import unknown_user
from serving.store import Store
from serving.user_schemas import (
    AppendRequest,
    StoredAnswer,
    UpsertManyRequest,
    UpsertRequest,
    UpsertUser,
    Written,
    WrittenAnswer,
)
from serving.writes import Conflict, Delete, Upsert

TRIES = 20

router = APIRouter(prefix="/v1", route_class=UserRoute, responses=REFUSALS, dependencies=[READ])
UserId = Annotated[Name, Path(description="at most 256 bytes")]
# Appends to one user come one after the other; another worker's are told by Conflict.
_turns: "WeakValueDictionary[str, asyncio.Lock]" = WeakValueDictionary()


async def store_of(live: Ready) -> Store:
    """Return the store; raises Problem 404 where the service has none."""
    if live.store is None:
        raise Problem(404, "no-store", "this service keeps no users; start it with CLUE_STORE")
    return live.store


Stored = Annotated[Store, Depends(store_of)]


@router.post("/users/upsert", response_model=WrittenAnswer, dependencies=[WRITE])
async def upsert_users(
    body: UpsertManyRequest, request: Request, live: Ready, store: Stored
) -> Response:
    """Write several users, all of them or none."""
    settings = live.settings
    if len(body.users) > settings.max_users:
        raise invalid([("/users", f"more than {settings.max_users} users; send several requests")])
    if len({user.user_id for user in body.users}) < len(body.users):
        raise invalid([("/users", "names a user twice")])
    engine, numbers = await _upsert(live, store, request, body.users, "/users")
    data = [
        {"user_id": user.user_id, "seq": seq} for user, seq in zip(body.users, numbers, strict=True)
    ]
    return json_response({**engine.stamp, "data": data})


@router.put("/users/{user_id}", response_model=Written, dependencies=[WRITE])
async def upsert_user(
    user_id: UserId, body: UpsertRequest, request: Request, live: Ready, store: Stored
) -> Response:
    """Write a user's whole history; the answer comes when it is on the disk and searchable."""
    user = UpsertUser(user_id=user_id, events=body.events, as_of=body.as_of)
    engine, numbers = await _upsert(live, store, request, [user], "")
    return json_response({**engine.stamp, "user_id": user_id, "seq": numbers[0]})


@router.post("/users/{user_id}/events", response_model=Written, dependencies=[WRITE])
async def append_events(
    user_id: UserId, body: AppendRequest, request: Request, live: Ready, store: Stored
) -> Response:
    """Add events to a stored user, or begin their history with them."""
    errors: Errors = []
    moment = moment_of(body.as_of)
    history_of(body.events, "/events", live.engine.encoder, live.settings, errors, moment)
    if errors:
        raise invalid(errors)
    turn = _turns.setdefault(user_id, asyncio.Lock())
    async with turn:
        for _ in range(TRIES):
            old = store.user(user_id)
            events = from_bytes(old.events) if old and old.events else []
            events = newest([*events, *body.events], live.settings.max_events)
            engine = live.engine
            history = readable(events, engine.encoder, live.settings, moment)
            answer = await ask(live, engine, request, Query(histories=[history], as_of=[moment]))
            user = UpsertUser.model_construct(user_id=user_id, events=events, as_of=body.as_of)
            (made,) = _writes(engine, [user], answer)
            made = replace(made, if_seq=old.seq if old else 0)
            try:
                (seq,) = await write(store, [made])
            except Conflict:
                continue
            await searchable(live, [user_id])
            return json_response({**live.engine.stamp, "user_id": user_id, "seq": seq})
    detail = "this user is written by too many at once; come again"
    raise Problem(409, "conflict", detail, headers={"retry-after": "1"})


@router.get("/users/{user_id}", response_model=StoredAnswer)
async def stored_user(user_id: UserId, request: Request, live: Seen, store: Stored) -> Response:
    """Return a stored user: the events as sent, and the vector."""
    user = store.user(user_id)
    if user is None or user.events is None:
        raise not_stored()
    engine = live.engine
    made = store.vector(user_id, engine.encoder.fingerprint)
    if made is not None and made.seq == user.seq and len(made.vector):
        vector = made.vector
    else:
        vector = await _embedded(live, engine, request, user)
    events = from_bytes(user.events) if user.as_of is None else []
    known = {
        **engine.stamp,
        "user_id": user_id,
        "seq": user.seq,
        "as_of": last_moment(events) if user.as_of is None else user.as_of,
        "vector": vector.tolist(),
        "blocks": columns_of(engine.encoder.blocks),
    }
    # the events go out as they lie in the store: nothing is parsed and written again
    whole = to_json(known)[:-1] + b',"events":' + user.events + b"}"
    return Response(whole, media_type="application/json")


@router.delete("/users/{user_id}", response_model=Written, dependencies=[WRITE])
async def delete_user(user_id: UserId, live: Ready, store: Stored) -> Response:
    """Delete a user: history, vectors and every search at once, old generations after a while."""
    engine = live.engine
    user = store.user(user_id)
    if user is None:
        known = await elsewhere(live, engine, engine.index.user, user_id) is not None
    else:
        known = user.events is not None
    if not known:
        raise unknown_user()
    (seq,) = await write(store, [Delete(user_id=user_id)])
    return json_response({**engine.stamp, "user_id": user_id, "seq": seq})


async def _upsert(
    live: Live, store: Store, request: Request, users: Sequence[UpsertUser], pointer: str
) -> tuple[Engine, list[int]]:
    """Embed and write users; return the engine that finds them, and the numbers of the writes."""
    engine = live.engine
    errors: Errors = []
    moments = [moment_of(user.as_of) for user in users]
    histories = [
        history_of(
            user.events,
            f"{pointer}/{number}/events" if pointer else "/events",
            engine.encoder,
            live.settings,
            errors,
            moment,
        )
        for number, (user, moment) in enumerate(zip(users, moments, strict=True))
    ]
    if errors:
        raise invalid(errors)
    answer = await ask(live, engine, request, Query(histories=histories, as_of=moments))
    numbers = await write(store, _writes(engine, users, answer))
    await searchable(live, [user.user_id for user in users])
    return live.engine, numbers


async def searchable(live: Live, user_ids: Sequence[str]) -> None:
    """Return when the model of now has embedded users that an earlier one had when they came."""
    deadline = time.monotonic() + live.settings.request_seconds
    while not live.engine.delta.missing.keys().isdisjoint(user_ids):
        if time.monotonic() > deadline:
            raise Problem(504, "too-slow", "written, but not yet embedded by the model of now")
        await asyncio.sleep(FOLLOW_SECONDS)


def _writes(engine: Engine, users: Sequence[UpsertUser], answer: Answer) -> list[Upsert]:
    for vector in answer.vectors:
        if not is_comparable(engine.encoder, vector):
            raise invalid([("/events", "give no vector by which users are compared")])
    return [
        Upsert(
            user_id=user.user_id,
            events=to_bytes(user.events),
            as_of=None if user.as_of is None else float(user.as_of),
            model=engine.encoder.fingerprint,
            vector=vector,
        )
        for user, vector in zip(users, answer.vectors, strict=True)
    ]


def not_stored() -> Problem:
    """Return the 404 of a user whom the store has not."""
    return Problem(404, "unknown-user", "the store holds no such user; PUT their events")


def nothing_read() -> Problem:
    """Return the 422 of a user of whom the model reads nothing."""
    return invalid([("/events", "of this user hold nothing that the model can read")])


async def _embedded(live: Live, engine: Engine, request: Request, user: StoredUser) -> np.ndarray:
    """Return the vector (E,) of a stored user whom the model of now has not embedded yet."""
    moment = moment_of(user.as_of)
    events = from_bytes(user.events or b"[]")
    history = readable(events, engine.encoder, live.settings, moment)
    if not history:
        raise nothing_read()
    answer = await ask(live, engine, request, Query(histories=[history], as_of=[moment]))
    return answer.vectors[0]
