"""From a valid body to the model thread's query, and the operator's limits on the way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from clue.inference.encoder import Encoder
from clue.inference.events import text_of
from serving.engine import Engine, History, Query, searched
from serving.generation import is_unit
from serving.histories import Errors, from_bytes, history_of, readable, reads_moments
from serving.index import Search
from serving.problems import Problem, invalid
from serving.rows import StoredUser
from serving.schemas import (
    EmbedRequest,
    Event,
    SearchItemsRequest,
    SimilarUsersRequest,
    Target,
)
from serving.settings import Settings
from serving.store import Store

NOTHING = np.empty(0, np.int64)


def embed_query(body: EmbedRequest, encoder: Encoder, settings: Settings) -> Query:
    """Return the query of an embed request; Problem 422 with all that is wrong in it."""
    if len(body.users) > settings.max_users:
        raise invalid([("/users", f"more than {settings.max_users} users; send several requests")])
    errors: Errors = []
    for number, name in enumerate(body.blocks or []):
        if name not in encoder.blocks:
            known = f"has the blocks {', '.join(encoder.blocks)}" if encoder.blocks else "has none"
            errors.append((f"/blocks/{number}", f"is no block; the vector of this model {known}"))
    moments = [moment_of(body.as_of if user.as_of is None else user.as_of) for user in body.users]
    histories = [
        history_of(user.events, f"/users/{number}/events", encoder, settings, errors, as_of)
        for number, (user, as_of) in enumerate(zip(body.users, moments, strict=True))
    ]
    if errors:
        raise invalid(errors)
    return Query(histories=histories, as_of=moments)


def items_query(
    body: SearchItemsRequest, engine: Engine, settings: Settings, store: Store | None
) -> Query:
    """Return the query of an item search; Problem as `embed_query`, and 404 for an unknown user."""
    index = engine.index
    service = None
    if body.service is not None:
        if body.service not in index.services:
            known = "no items of this service; GET /v1/models lists the services of the index"
            raise invalid([("/service", known)])
        service = index.services.index(body.service)
    target = _target(body, "items", engine, settings, store)
    exclude = NOTHING
    if body.exclude_seen and target.row is not None:
        exclude = np.unique(index.seen_by(target.row)).astype(np.int64)
    elif body.exclude_seen:
        exclude = rows_in(target.events, engine, settings)
    search = Search(kind="items", k=body.k, exclude=exclude, service=service)
    return replace(target.query, search=search)


def users_query(
    body: SimilarUsersRequest, engine: Engine, settings: Settings, store: Store | None
) -> Query:
    """Return the query of a user search; raises as `items_query` does."""
    target = _target(body, "users", engine, settings, store)
    row = None if body.user_id is None else engine.index.user_row(body.user_id)
    exclude = NOTHING if row is None else np.array([row], np.int64)
    search = Search(kind="users", k=body.k, exclude=exclude)
    return replace(target.query, search=search, without=body.user_id)


@dataclass(frozen=True, eq=False)
class _Meant:
    """The user that a request means: a query, their `row` in the base or their `events`."""

    query: Query
    row: int | None = None
    events: Sequence[Event] = ()


def _target(
    body: Target, kind: str, engine: Engine, settings: Settings, store: Store | None
) -> _Meant:
    """Return the user that `body` means; `kind` is what is searched, "items" or "users"."""
    if body.k > settings.max_k:
        raise invalid([("/k", f"is at most {settings.max_k}")])
    if body.events is not None:
        errors: Errors = []
        moment = moment_of(body.as_of)
        history = history_of(body.events, "/events", engine.encoder, settings, errors, moment)
        if errors:
            raise invalid(errors)
        return _Meant(Query(histories=[history], as_of=[moment]), events=body.events)
    if body.vector is not None:
        vector = _vector(body.vector, engine.encoder)
        return _Meant(Query(vector=searched(engine.encoder, vector, kind)))
    assert body.user_id is not None  # the schema wants one of the three
    stored = None if store is None else store.user(body.user_id)
    if store is not None and stored is not None:
        return _stored(stored, body.as_of, kind, engine, settings, store)
    row = engine.index.user_row(body.user_id)
    if row is None:
        raise unknown_user()
    if body.as_of is not None:
        detail = "of this user only a vector is known, as of their last event; PUT their events"
        raise invalid([("/as_of", detail)])
    of_user = engine.index.user_state if kind == "items" else engine.index.user_vector
    return _Meant(Query(vector=of_user(row)), row)


def _stored(
    user: StoredUser,
    as_of: float | None,
    kind: str,
    engine: Engine,
    settings: Settings,
    store: Store,
) -> _Meant:
    """Return a stored user: their vector, or their history where that is of another moment."""
    if user.events is None:
        raise unknown_user()
    encoder = engine.encoder
    events = from_bytes(user.events)
    if as_of is None or not reads_moments(encoder) or as_of == user.as_of:
        made = store.vector(user.user_id, encoder.fingerprint)
        if made is not None and made.seq == user.seq and len(made.vector):
            return _Meant(Query(vector=searched(encoder, made.vector, kind)), events=events)
    moment = moment_of(user.as_of if as_of is None else as_of)
    history = readable(events, encoder, settings, moment)
    if not history:
        detail = "leaves no event of this user that the model reads; say a later one"
        raise invalid([("/as_of", detail)])
    return _Meant(Query(histories=[history], as_of=[moment]), events=events)


def unknown_user() -> Problem:
    """Return the 404 of a user whom neither the store nor the index has."""
    return Problem(404, "unknown-user", "the index holds no such user; send its events")


def rows_in(events: Sequence[Event], engine: Engine, settings: Settings) -> np.ndarray:
    """Return the rows of the items of `events`: by item id, and by what the model reads."""
    history = readable(events, engine.encoder, settings, np.inf)
    read = [(service, text_of(event)) for service, event in history]
    keys = zip((s for s, _ in read), engine.encoder.input_keys(read), strict=True)
    ids = [(event.service, event.item_id) for event in events if event.item_id is not None]
    return np.union1d(engine.index.rows_read(keys), engine.index.rows_of(ids)).astype(np.int64)


def moment_of(as_of: float | None) -> float:
    """Return a request's `as_of`, infinite for the moment of the last event."""
    return np.inf if as_of is None else as_of


def unseen(histories: Sequence[History], services: Sequence[str]) -> list[str]:
    """Return the services of `histories` that are not among `services`, sorted."""
    return sorted({name for history in histories for name, _ in history}.difference(services))


def _vector(coordinates: Sequence[float], encoder: Encoder) -> np.ndarray:
    """Return a vector (E,) as the model makes them."""
    if len(coordinates) != encoder.width:
        raise invalid([("/vector", f"has {encoder.width} coordinates in this model")])
    if not encoder.blocks and not is_unit(np.asarray(coordinates)):
        raise invalid([("/vector", "is not of length one; divide it by its norm")])
    with np.errstate(over="ignore", invalid="ignore"):  # 1e300 is no float32
        vector = np.asarray(coordinates, np.float32)
        compared = searched(encoder, vector, "users")
    if not np.isfinite(vector).all() or not is_unit(compared):
        where = encoder.similarity_columns
        raise invalid(
            [("/vector", f"has no finite length in columns {where.start} to {where.stop}")]
        )
    return vector
