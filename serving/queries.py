"""From a valid body to the model thread's query, and the operator's limits on the way."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from clue.inference.encoder import Encoder
from clue.inference.item_id_encoder import ItemIdEncoder
from serving.engine import Engine, History, Query
from serving.index import Index, Search, is_unit
from serving.problems import Problem, invalid
from serving.schemas import EmbedRequest, Event, SearchItemsRequest, SimilarUsersRequest, Target
from serving.settings import Settings

NOTHING = np.empty(0, np.int64)


def embed_query(body: EmbedRequest, encoder: Encoder, settings: Settings) -> Query:
    """Return the query of an embed request; Problem 422 beyond a limit or for unknown items."""
    if len(body.users) > settings.max_users:
        raise invalid([("/users", f"more than {settings.max_users} users; send several requests")])
    histories = [
        history_of(user.events, f"/users/{number}/events", encoder, settings)
        for number, user in enumerate(body.users)
    ]
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
        exclude = index.seen_in(query.histories[0])
    search = Search(kind="items", k=body.k, exclude=exclude, service=service)
    return replace(query, search=search)


def users_query(body: SimilarUsersRequest, engine: Engine, settings: Settings) -> Query:
    """Return the query of a user search; raises as `items_query` does."""
    query, row = _target(body, engine, settings)
    exclude = NOTHING if row is None else np.array([row], np.int64)
    return replace(query, search=Search(kind="users", k=body.k, exclude=exclude))


def history_of(
    events: Sequence[Event], pointer: str, encoder: Encoder, settings: Settings
) -> History:
    """Return what the model reads of each event, oldest first. `pointer` is where they stand.

    By timestamp when every event has one, ties in the order given; else in the order given. Raises
    Problem 422 beyond a limit, for an event without what is read, and for unknown items.
    """
    if len(events) > settings.max_events:
        raise invalid([(pointer, f"more than {settings.max_events} events; send the newest")])
    read = [
        _read(event, f"{pointer}/{number}", encoder, settings)
        for number, event in enumerate(events)
    ]
    times = [event.timestamp for event in events if event.timestamp is not None]
    if len(times) < len(events):
        return read
    return [read[place] for place in np.argsort(times, kind="stable")]


def _read(event: Event, pointer: str, encoder: Encoder, settings: Settings) -> tuple[str, str]:
    """Return the service and what the model reads of an event: its text, or its item id."""
    if len((event.text or "").encode()) > settings.max_text_bytes:
        raise invalid([(f"{pointer}/text", f"is longer than {settings.max_text_bytes} bytes")])
    what = event.item_id if encoder.reads == "item_id" else event.text
    if what is None:
        needed = f"the model reads the {encoder.reads} of an event; give it"
        raise invalid([(f"{pointer}/{encoder.reads}", needed)])
    if encoder.reads == "item_id" and event.service not in encoder.services:
        unknown = "the model knows no such service; GET /v1/models lists those it knows"
        raise invalid([(f"{pointer}/service", unknown)])
    if isinstance(encoder, ItemIdEncoder) and (event.service, what) not in encoder.rows:
        unknown = "the model knows no such item of this service; leave the event out"
        raise invalid([(f"{pointer}/item_id", unknown)])
    return event.service, what


def unseen(histories: Sequence[History], services: Sequence[str]) -> list[str]:
    """Return the services of `histories` that are not among `services`, sorted."""
    return sorted({name for history in histories for name, _ in history}.difference(services))


def _target(body: Target, engine: Engine, settings: Settings) -> tuple[Query, int | None]:
    """Return the query for the user that `body` means, and her row where it names one."""
    if body.k > settings.max_k:
        raise invalid([("/k", f"is at most {settings.max_k}")])
    if body.events is not None:
        history = history_of(body.events, "/events", engine.encoder, settings)
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
