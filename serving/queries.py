"""From a valid body to the model thread's query, and the operator's limits on the way."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from clue.inference.encoder import Encoder
from clue.inference.events import Described, text_of, value_fault
from clue.inference.item_id_encoder import ItemIdEncoder
from clue.inference.universal_encoder import UniversalEncoder
from serving.engine import Engine, History, Query, searched
from serving.generation import is_unit
from serving.index import Search
from serving.problems import Problem, invalid
from serving.schemas import (
    ID_BYTES,
    EmbedRequest,
    Event,
    SearchItemsRequest,
    SimilarUsersRequest,
    Target,
)
from serving.settings import Settings

NOTHING = np.empty(0, np.int64)
Errors: TypeAlias = list[tuple[str, str]]  # (JSON pointer, what is wrong there)


def embed_query(body: EmbedRequest, encoder: Encoder, settings: Settings) -> Query:
    """Return the query of an embed request; Problem 422 with all that is wrong in it."""
    if len(body.users) > settings.max_users:
        raise invalid([("/users", f"more than {settings.max_users} users; send several requests")])
    errors: Errors = []
    for number, name in enumerate(body.blocks or []):
        if name not in encoder.blocks:
            known = f"has the blocks {', '.join(encoder.blocks)}" if encoder.blocks else "has none"
            errors.append((f"/blocks/{number}", f"is no block; the vector of this model {known}"))
    moments = [_moment(body.as_of if user.as_of is None else user.as_of) for user in body.users]
    histories = [
        history_of(user.events, f"/users/{number}/events", encoder, settings, errors, as_of)
        for number, (user, as_of) in enumerate(zip(body.users, moments, strict=True))
    ]
    if errors:
        raise invalid(errors)
    return Query(histories=histories, as_of=moments)


def items_query(body: SearchItemsRequest, engine: Engine, settings: Settings) -> Query:
    """Return the query of an item search; Problem as `embed_query`, and 404 for an unknown user."""
    index = engine.index
    service = None
    if body.service is not None:
        if body.service not in index.services:
            known = "no items of this service; GET /v1/models lists the services of the index"
            raise invalid([("/service", known)])
        service = index.services.index(body.service)
    query, row = _target(body, "items", engine, settings)
    exclude = NOTHING
    if body.exclude_seen and row is not None:
        exclude = np.unique(index.seen_by(row)).astype(np.int64)
    elif body.exclude_seen and body.events is not None:
        exclude = _rows_in(body.events, query.histories[0], engine)
    search = Search(kind="items", k=body.k, exclude=exclude, service=service)
    return replace(query, search=search)


def users_query(body: SimilarUsersRequest, engine: Engine, settings: Settings) -> Query:
    """Return the query of a user search; raises as `items_query` does."""
    query, row = _target(body, "users", engine, settings)
    exclude = NOTHING if row is None else np.array([row], np.int64)
    return replace(query, search=Search(kind="users", k=body.k, exclude=exclude))


def history_of(
    events: Sequence[Event],
    pointer: str,
    encoder: Encoder,
    settings: Settings,
    errors: Errors,
    as_of: float,
) -> History:
    """Return what the model reads of each event, oldest first. `pointer` is where they stand.

    By time when every event has one, ties in the order given; else in the order given. `errors`
    gets what is wrong: too many events, an event without what is read, unknown items and fields,
    events after `as_of`.
    """
    if len(events) > settings.max_events:
        errors.append((pointer, f"more than {settings.max_events} events; send the newest"))
        return []
    before = len(errors)
    for number, event in enumerate(events):
        faults = [_fault(event, encoder, settings), *_field_faults(event, encoder, as_of)]
        errors += [(f"{pointer}/{number}/{each[0]}", each[1]) for each in faults if each]
    if len(errors) > before:
        return []
    read = [(event.service, _what(event, encoder) or "") for event in events]
    for number, key in enumerate(encoder.input_keys(read)):
        if not key:
            errors.append((f"{pointer}/{number}/{encoder.reads}", "has nothing the model can read"))
    order = list(range(len(events)))
    times = [event.time for event in events if event.time is not None]
    if len(times) == len(events):
        order = np.argsort(times, kind="stable").tolist()
    if isinstance(encoder, UniversalEncoder):
        return [(events[n].service, _described(events[n])) for n in order]
    return [read[n] for n in order]


def _described(event: Event) -> Described:
    known = {"text": event.text, "item_id": event.item_id, "time": event.time}
    return {**known, **(event.model_extra or {})}


def _field_faults(event: Event, encoder: Encoder, as_of: float) -> Errors:
    """Return what is wrong with an event's fields and its time: where and why."""
    fields = encoder.fields if isinstance(encoder, UniversalEncoder) else {}
    errors: Errors = []
    for name, value in (event.model_extra or {}).items():
        where = name[:ID_BYTES].replace("~", "~0").replace("/", "~1")  # RFC 6901
        if name not in fields:
            known = f"has the fields {', '.join(fields)}" if fields else "has no fields"
            errors.append(
                (
                    where,
                    f"unknown field: this model {known}; leave it out, or declare it under "
                    "fields in the data YAML, prepare and pretrain again",
                )
            )
        elif fault := value_fault(fields[name], value):
            errors.append((where, fault))
    late = event.time is not None and event.time > as_of
    if late and isinstance(encoder, UniversalEncoder):
        (moment,) = encoder.is_moment(event.service, np.array([event.time]))
        if moment:
            errors.append(("time", "lies after as_of; leave the event out, or say a later as_of"))
    return errors


def _moment(as_of: float | None) -> float:
    return np.inf if as_of is None else as_of


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
    read = [(service, text_of(event)) for service, event in history]
    keys = zip((s for s, _ in read), engine.encoder.input_keys(read), strict=True)
    ids = [(event.service, event.item_id) for event in events if event.item_id is not None]
    return np.union1d(engine.index.rows_read(keys), engine.index.rows_of(ids)).astype(np.int64)


def unseen(histories: Sequence[History], services: Sequence[str]) -> list[str]:
    """Return the services of `histories` that are not among `services`, sorted."""
    return sorted({name for history in histories for name, _ in history}.difference(services))


def _target(
    body: Target, kind: str, engine: Engine, settings: Settings
) -> tuple[Query, int | None]:
    """Return the query for the user that `body` means, and their row where it names one.

    `kind` is what is searched, "items" or "users".
    """
    if body.k > settings.max_k:
        raise invalid([("/k", f"is at most {settings.max_k}")])
    if body.events is not None:
        errors: Errors = []
        moment = _moment(body.as_of)
        history = history_of(body.events, "/events", engine.encoder, settings, errors, moment)
        if errors:
            raise invalid(errors)
        return Query(histories=[history], as_of=[moment]), None
    if body.vector is not None:
        vector = _vector(body.vector, engine.encoder)
        return Query(vector=searched(engine.encoder, vector, kind)), None
    assert body.user_id is not None  # the schema wants one of the three
    row = engine.index.user_row(body.user_id)
    if row is None:
        raise Problem(404, "unknown-user", "the index holds no such user; send its events")
    of_user = engine.index.user_state if kind == "items" else engine.index.user_vector
    return Query(vector=of_user(row)), row


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
