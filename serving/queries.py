"""From a valid body to the model thread's query, and the operator's limits on the way."""

from collections.abc import Sequence

import numpy as np

from serving.engine import History, Query
from serving.index import Index, Search, is_unit
from serving.problems import Problem, invalid
from serving.schemas import EmbedRequest, Event, SearchItemsRequest, SimilarUsersRequest, Target
from serving.settings import Settings

NOTHING = np.empty(0, np.int64)


def embed_query(body: EmbedRequest, settings: Settings) -> Query:
    """Gives the query of an embed request; raises Problem 422 beyond a limit."""
    if len(body.users) > settings.max_users:
        raise invalid([("/users", f"more than {settings.max_users} users; send several requests")])
    for number, user in enumerate(body.users):
        _limit_events(user.events, f"/users/{number}/events", settings)
    return Query(histories=[history_of(user.events) for user in body.users])


def items_query(body: SearchItemsRequest, index: Index, settings: Settings) -> Query:
    """Gives the query of an item search; Problem 422 beyond a limit, 404 for an unknown user."""
    service = None
    if body.service is not None:
        if body.service not in index.services:
            known = "no items of this service; GET /v1/models lists the services of the index"
            raise invalid([("/service", known)])
        service = index.services.index(body.service)
    row = _check_target(body, index, settings)
    exclude = NOTHING
    if body.exclude_seen and row is not None:
        exclude = np.unique(index.seen_by(row)).astype(np.int64)
    elif body.exclude_seen and body.events is not None:
        exclude = index.seen_in((event.service, event.text) for event in body.events)
    search = Search(kind="items", k=body.k, exclude=exclude, service=service)
    return _target_query(body, row, index, search)


def users_query(body: SimilarUsersRequest, index: Index, settings: Settings) -> Query:
    """Gives the query of a user search; raises as `items_query` does."""
    row = _check_target(body, index, settings)
    exclude = NOTHING if row is None else np.array([row], np.int64)
    return _target_query(body, row, index, Search(kind="users", k=body.k, exclude=exclude))


def history_of(events: Sequence[Event]) -> History:
    """Gives the texts of each service, oldest first.

    By timestamp when every event has one, ties in the order given; else in the order given.
    """
    ordered = list(events)
    times = [event.timestamp for event in events]
    if all(time is not None for time in times):
        ordered.sort(key=lambda event: event.timestamp or 0.0)
    history: dict[str, list[str]] = {}
    for event in ordered:
        history.setdefault(event.service, []).append(event.text)
    return history


def unseen(histories: Sequence[History], services: Sequence[str]) -> list[str]:
    """Gives the services of `histories` that are not among `services`, sorted."""
    return sorted({name for history in histories for name in history}.difference(services))


def _check_target(body: Target, index: Index, settings: Settings) -> int | None:
    """Checks what `body` asks for against the limits; gives the user's row when it names one."""
    if body.k > settings.max_k:
        raise invalid([("/k", f"is at most {settings.max_k}")])
    if body.events is not None:
        _limit_events(body.events, "/events", settings)
    if body.vector is not None and len(body.vector) != index.width:
        raise invalid([("/vector", f"has {index.width} coordinates in this model")])
    if body.vector is not None and not is_unit(np.asarray(body.vector)):
        raise invalid([("/vector", "is not of length one; divide it by its norm")])
    if body.user_id is None:
        return None
    row = index.user_row(body.user_id)
    if row is None:
        raise Problem(404, "unknown-user", "the index holds no such user; send its events")
    return row


def _target_query(body: Target, row: int | None, index: Index, search: Search) -> Query:
    if body.events is not None:
        return Query(histories=[history_of(body.events)], search=search)
    if row is not None:
        return Query(vector=index.user_vector(row), search=search)
    return Query(vector=np.asarray(body.vector, np.float32), search=search)


def _limit_events(events: Sequence[Event], pointer: str, settings: Settings) -> None:
    if len(events) > settings.max_events:
        raise invalid([(pointer, f"more than {settings.max_events} events; send the newest")])
    for number, event in enumerate(events):
        if len(event.text.encode()) > settings.max_text_bytes:
            what = f"is longer than {settings.max_text_bytes} bytes"
            raise invalid([(f"{pointer}/{number}/text", what)])
