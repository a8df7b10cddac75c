"""From a valid body to the model thread's query, and the operator's limits on the way."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from clue.inference.encoder import Encoder
from clue.inference.events import Described, value_fault
from clue.inference.item_id_encoder import ItemIdEncoder
from clue.inference.universal_encoder import UniversalEncoder
from serving.engine import History, Query
from serving.problems import invalid
from serving.schemas import (
    ID_BYTES,
    EmbedRequest,
    Event,
)
from serving.settings import Settings

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
    moments = [moment_of(body.as_of if user.as_of is None else user.as_of) for user in body.users]
    histories = [
        history_of(user.events, f"/users/{number}/events", encoder, settings, errors, as_of)
        for number, (user, as_of) in enumerate(zip(body.users, moments, strict=True))
    ]
    if errors:
        raise invalid(errors)
    return Query(histories=histories, as_of=moments)


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


def moment_of(as_of: float | None) -> float:
    """Return a moment, infinite for that of the last event."""
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


def unseen(histories: Sequence[History], services: Sequence[str]) -> list[str]:
    """Return the services of `histories` that are not among `services`, sorted."""
    return sorted({name for history in histories for name, _ in history}.difference(services))
