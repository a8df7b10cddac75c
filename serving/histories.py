"""From events to what a model reads of them, checked; and histories as the store keeps them."""

from collections.abc import Sequence, Set
from typing import TypeAlias

import numpy as np
from pydantic import TypeAdapter

from clue.inference.encoder import Encoder
from clue.inference.events import Described, value_fault
from clue.inference.item_id_encoder import ItemIdEncoder
from clue.inference.universal_encoder import UniversalEncoder
from serving.engine import History
from serving.schemas import ID_BYTES, Event
from serving.settings import Settings

EVENTS = TypeAdapter(list[Event])
Errors: TypeAlias = list[tuple[str, str]]  # (JSON pointer, what is wrong there)


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
    most = settings.max_text_bytes // 4 if encoder.reads == "text" else -1
    for number, event in enumerate(events):
        text, time = event.text, event.time
        in_time = time is None or time <= as_of
        if text is not None and len(text) <= most and in_time and not event.model_extra:
            continue  # nothing that may be wrong is there: half of the time of this function
        for where, what in event_faults(event, encoder, settings, as_of):
            errors.append((f"{pointer}/{number}/{where}", what))
    if len(errors) > before:
        return []
    errors += [
        (f"{pointer}/{number}/{encoder.reads}", "has nothing the model can read")
        for number in empty_events(events, encoder)
    ]
    return as_history(events, encoder)


def empty_events(events: Sequence[Event], encoder: Encoder) -> list[int]:
    """Return the numbers of the events without faults of which the model reads nothing."""
    read = [(event.service, _what(event, encoder) or "") for event in events]
    return encoder.unread(read)


def event_faults(event: Event, encoder: Encoder, settings: Settings, as_of: float) -> Errors:
    """Return what the model cannot read of an event: the member's name and why."""
    fault = _fault(event, encoder, settings)
    return [*([fault] if fault else []), *_field_faults(event, encoder, as_of)]


def as_history(events: Sequence[Event], encoder: Encoder) -> History:
    """Return what the model reads of events without faults, ordered as `history_of` says."""
    if isinstance(encoder, UniversalEncoder):
        return [(events[n].service, _described(events[n])) for n in order_of(events)]
    return [(events[n].service, _what(events[n], encoder) or "") for n in order_of(events)]


def order_of(events: Sequence[Event]) -> list[int]:
    """Return the numbers of the events, oldest first: by time where all have one, else as given."""
    times = [event.time for event in events if event.time is not None]
    if len(times) < len(events):
        return list(range(len(events)))
    return sorted(range(len(times)), key=times.__getitem__)


def _described(event: Event) -> Described:
    known: Described = {"text": event.text, "item_id": event.item_id, "time": event.time}
    extra = event.model_extra
    return {**known, **extra} if extra else known


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


def moment_of(as_of: float | None) -> float:
    """Return a moment, infinite for that of the last event."""
    return np.inf if as_of is None else as_of


def to_bytes(events: Sequence[Event]) -> bytes:
    """Return events as JSON, in their order: every member that is not null."""
    return EVENTS.dump_json(list(events), exclude_none=True)


def from_bytes(raw: bytes) -> list[Event]:
    """Return the events of a stored history."""
    return EVENTS.validate_json(raw)


def newest(events: Sequence[Event], most: int) -> list[Event]:
    """Return the `most` newest events, oldest first; by time where all have one, else as given."""
    return [events[n] for n in order_of(events)][-most:]


def last_moment(events: Sequence[Event]) -> float | None:
    """Return the latest time that an event says, None where none does."""
    return max((event.time for event in events if event.time is not None), default=None)


def readable(
    events: Sequence[Event], encoder: Encoder, settings: Settings, as_of: float
) -> History:
    """Return what the model reads of a stored history until `as_of`, oldest first; maybe nothing.

    Other than a request's, a stored event may be one that this model cannot read, for an earlier
    one could: it is left out, and so is a field that this model has not.
    """
    fields = encoder.fields if isinstance(encoder, UniversalEncoder) else {}
    kept: list[Event] = []
    for event in events:
        known = _without(event, (event.model_extra or {}).keys() - fields.keys())
        if not event_faults(known, encoder, settings, as_of):
            kept.append(known)
    empty = set(empty_events(kept, encoder)) if kept else set[int]()
    kept = [event for number, event in enumerate(kept) if number not in empty]
    return as_history(kept, encoder)


def _without(event: Event, names: Set[str]) -> Event:
    """Return the event without some of its fields."""
    if not names:
        return event
    members = event.model_dump(exclude_none=True)
    return Event.model_validate({k: v for k, v in members.items() if k not in names})


def reads_moments(encoder: Encoder) -> bool:
    """Return whether the vector of a history changes with `as_of`."""
    return isinstance(encoder, UniversalEncoder)
