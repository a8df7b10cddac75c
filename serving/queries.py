"""From a valid body to the model thread's query, and the operator's limits on the way."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from clue.inference.encoder import Encoder
from clue.inference.item_id_encoder import ItemIdEncoder
from serving.engine import Engine, History, Query
from serving.generation import is_unit
from serving.index import Index, Search
from serving.problems import Problem, invalid
from serving.schemas import EmbedRequest, Event, SearchItemsRequest, SimilarUsersRequest, Target
from serving.settings import Settings

NOTHING = np.empty(0, np.int64)
Errors: TypeAlias = list[tuple[str, str]]  # (JSON pointer, what is wrong there)


def embed_query(body: EmbedRequest, encoder: Encoder, settings: Settings) -> Query:
    """Return the query of an embed request; Problem 422 with all that is wrong in its events."""
    if len(body.users) > settings.max_users:
        raise invalid([("/users", f"more than {settings.max_users} users; send several requests")])
    errors: Errors = []
    histories = [
        history_of(user.events, f"/users/{number}/events", encoder, settings, errors)
        for number, user in enumerate(body.users)
    ]
    if errors:
        raise invalid(errors)
    return Query(histories=histories)


def items_query(body: SearchItemsRequest, engine: Engine, settings: Settings) -> Query:
    """Return the query of an item search; Problem as `embed_query`, and 404 for an unknown user."""
    index = engine.index
    service = None
    if body.service is not None:
        if body.service not in index.services:
            known = "no items of this service; GET /v1/models lists the services of the index"
            raise invalid([("/service", known)])
        service = index.services.index(body.service)
    query, row = _target(body, engine, settings)
    exclude = NOTHING
    if body.exclude_seen and row is not None:
        exclude = np.unique(index.seen_by(row)).astype(np.int64)
    elif body.exclude_seen and body.events is not None:
        exclude = _rows_in(body.events, query.histories[0], engine)
    search = Search(kind="items", k=body.k, exclude=exclude, service=service)
    return replace(query, search=search)


def users_query(body: SimilarUsersRequest, engine: Engine, settings: Settings) -> Query:
    """Return the query of a user search; raises as `items_query` does."""
    query, row = _target(body, engine, settings)
    exclude = NOTHING if row is None else np.array([row], np.int64)
    return replace(query, search=Search(kind="users", k=body.k, exclude=exclude))


def history_of(
    events: Sequence[Event], pointer: str, encoder: Encoder, settings: Settings, errors: Errors
) -> History:
    """Return what the model reads of each event, oldest first. `pointer` is where they stand.

    By timestamp when every event has one, ties in the order given; else in the order given.
    `errors` gets what is wrong: too many events, an event without what is read, unknown items.
    """
    if len(events) > settings.max_events:
        errors.append((pointer, f"more than {settings.max_events} events; send the newest"))
        return []
    before = len(errors)
    read: list[tuple[str, str]] = []
    for number, event in enumerate(events):
        fault = _fault(event, encoder, settings)
        if fault is not None:
            errors.append((f"{pointer}/{number}/{fault[0]}", fault[1]))
        else:
            read.append((event.service, _what(event, encoder) or ""))
    if len(errors) > before:
        return []
    for number, key in enumerate(encoder.input_keys(read)):
        if not key:
            errors.append((f"{pointer}/{number}/{encoder.reads}", "has nothing the model can read"))
    times = [event.timestamp for event in events if event.timestamp is not None]
    if len(times) < len(events):
        return read
    return [read[position] for position in np.argsort(times, kind="stable")]


def _what(event: Event, encoder: Encoder) -> str | None:
    return event.item_id if encoder.reads == "item_id" else event.text


def _fault(event: Event, encoder: Encoder, settings: Settings) -> tuple[str, str] | None:
    """Return the field of an event that the model cannot read and why; None where it can."""
    if len((event.text or "").encode()) > settings.max_text_bytes:
        return "text", f"is longer than {settings.max_text_bytes} bytes"
    what = _what(event, encoder)
    if what is None:
        return encoder.reads, f"the model reads the {encoder.reads} of an event; give it"
    if encoder.reads == "item_id" and event.service not in encoder.services:
        return "service", "the model knows no such service; GET /v1/models lists those it knows"
    if isinstance(encoder, ItemIdEncoder) and (event.service, what) not in encoder.rows:
        return "item_id", "the model knows no such item of this service; leave the event out"
    return None


def _rows_in(events: Sequence[Event], history: History, engine: Engine) -> np.ndarray:
    """Return the rows of the items of `events`: by item id, and by what the model reads."""
    services = [service for service, _ in history]
    read = zip(services, engine.encoder.input_keys(history), strict=True)
    ids = [(event.service, event.item_id) for event in events if event.item_id is not None]
    return np.union1d(engine.index.rows_read(read), engine.index.rows_of(ids)).astype(np.int64)


def unseen(histories: Sequence[History], services: Sequence[str]) -> list[str]:
    """Return the services of `histories` that are not among `services`, sorted."""
    return sorted({name for history in histories for name, _ in history}.difference(services))


def _target(body: Target, engine: Engine, settings: Settings) -> tuple[Query, int | None]:
    """Return the query for the user that `body` means, and their row where it names one."""
    if body.k > settings.max_k:
        raise invalid([("/k", f"is at most {settings.max_k}")])
    if body.events is not None:
        errors: Errors = []
        history = history_of(body.events, "/events", engine.encoder, settings, errors)
        if errors:
            raise invalid(errors)
        return Query(histories=[history]), None
    if body.vector is not None:
        return Query(vector=_unit(body.vector, engine.index)), None
    assert body.user_id is not None  # the schema wants one of the three
    row = engine.index.user_row(body.user_id)
    if row is None:
        raise Problem(404, "unknown-user", "the index holds no such user; send its events")
    return Query(vector=engine.index.user_vector(row)), row


def _unit(vector: Sequence[float], index: Index) -> np.ndarray:
    if len(vector) != index.width:
        raise invalid([("/vector", f"has {index.width} coordinates in this model")])
    if not is_unit(np.asarray(vector)):
        raise invalid([("/vector", "is not of length one; divide it by its norm")])
    return np.asarray(vector, np.float32)
