"""Users' events as `encode` takes them: texts, or mappings of a text, a time and fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from clue.data.ragged import Ragged
from clue.inference.pooling import Amounts, Part

Value: TypeAlias = str | float | None
Described: TypeAlias = str | Mapping[str, Value]  # an event: its text, or all that is known of it
TimedUser: TypeAlias = Mapping[str, Sequence[Described]]  # events by service, oldest first

OWN = ("text", "item_id", "time")  # what an event has beside its fields
LARGEST = float(np.finfo(np.float32).max)
TAKES = {"numeric": "a finite number", "categorical": "a text", "boolean": "true or false"}


class EventRead(NamedTuple):
    """An event's text, its item's id where it names one, and its time, NaN where it has none."""

    text: str
    item_id: str | None
    time: float


def read_event(event: Described, fields: Mapping[str, str]) -> EventRead:
    """Return what an event says beside its fields, which are checked.

    `fields` are the kinds of those that pretraining had, by name. Raises ValueError for an event
    without text, with a key that is none of them, or with a value of another kind.
    """
    if isinstance(event, str):
        return EventRead(event, None, np.nan)
    text = event.get("text")
    unknown = [name for name in event if name not in OWN and name not in fields]
    if unknown or not isinstance(text, str):
        raise ValueError(
            f"event {dict(event)} has {', '.join(sorted(unknown)) or 'no text'}; an event has a "
            f"text, perhaps an item_id and a time, and of the fields of pretraining "
            f"{', '.join(fields) or 'none, for there were none'}"
        )
    for name, kind in fields.items():
        value = event.get(name)
        fault = None if value is None else value_fault(kind, value)
        if fault is not None:
            raise ValueError(f"event {dict(event)}: {name} {fault}")
    time, item_id = event.get("time"), event.get("item_id")
    return EventRead(
        text,
        None if item_id is None else str(item_id),
        np.nan if time is None else float(time),
    )


def value_fault(kind: str, value: object) -> str | None:
    """Return what is wrong with a value of a field; None where it is of its kind, or missing."""
    if value is None:
        return None
    if kind == "numeric":
        number = isinstance(value, int | float | np.floating | np.integer)
        good = number and not isinstance(value, bool) and not abs(value) > LARGEST  # NaN: missing
    else:
        good = isinstance(value, str if kind == "categorical" else bool)
    return None if good else f"is {kind}: give {TAKES[kind]}, or leave it out"


def text_of(event: Described) -> str:
    """Return the text of an event, or the item id that stands for it."""
    return event if isinstance(event, str) else str(event["text"])


def numeric(fields: Mapping[str, str]) -> list[str]:
    """Return the names of the numeric ones of `fields`, kinds by name."""
    return [name for name, kind in fields.items() if kind == "numeric"]


@dataclass(frozen=True)
class UsersRead:
    """Users' events by service: the distinct `items` (service, text, id) that `parts` index.

    `parts` are the users' (items, times) in each of `services`, times NaN where none is said, and
    `amounts` the numeric fields there, NaN where missing.
    """

    services: list[str]
    items: list[tuple[str, str, str | None]]
    parts: list[Part]
    amounts: list[Amounts]


def read_users(
    users: Sequence[TimedUser], fields: Mapping[str, str], known: Sequence[str]
) -> UsersRead:
    """Return the events of `users`; raises as `read_event` does.

    The services are in the order of those `known`, as in a corpus, and others after them by name.
    Events of several services without times are read in this order, so it must not depend on the
    users who are read together.
    """
    named = {name for user in users for name in user}
    services = [name for name in known if name in named]
    services += sorted(named.difference(known))
    services = services or [""]
    number: dict[tuple[str, str, str | None], int] = {}
    parts: list[Part] = []
    amounts: list[Amounts] = []
    for name in services:
        rows = [user.get(name, ()) for user in users]
        read = [[read_event(event, fields) for event in row] for row in rows]
        items = Ragged.from_lists(
            [
                [number.setdefault((name, e.text, e.item_id), len(number)) for e in history]
                for history in read
            ]
        )
        times = np.array([event.time for history in read for event in history], np.float64)
        parts.append((items, Ragged(times, items.offsets)))
        events = [{} if isinstance(event, str) else event for row in rows for event in row]
        amounts.append(
            {
                field: Ragged(
                    # None becomes NaN
                    np.array([event.get(field) for event in events], np.float32),
                    items.offsets,
                )
                for field in numeric(fields)
            }
        )
    return UsersRead(services, list(number), parts, amounts)
