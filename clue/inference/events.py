"""Users' events as `encode` takes them: texts, or mappings of a text, a time and fields."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from clue.data.ragged import Ragged
from clue.inference.pooling import Amounts, TimedUser


def text_and_time(
    event: str | Mapping[str, str | float], fields: Collection[str]
) -> tuple[str, float]:
    """Return an event's text and time, NaN where it has none.

    Raises ValueError for an event without text or with a key that is none of `fields`.
    """
    if isinstance(event, str):
        return event, np.nan
    unknown = sorted(event.keys() - set(fields) - {"text", "time"})
    if unknown or "text" not in event:
        raise ValueError(
            f"event {dict(event)} has {', '.join(unknown) or 'no text'}; an event has a text, "
            f"perhaps a time, and of the fields of pretraining "
            f"{', '.join(fields) or 'none, for there were none'}"
        )
    return str(event["text"]), float(event.get("time", np.nan))


def numeric_fields(
    users: Sequence[TimedUser], services: Sequence[str], fields: Sequence[str]
) -> list[Amounts]:
    """Return the numeric fields of users' events in each service, NaN where one has none."""
    made: list[Amounts] = []
    for name in services:
        rows = [user.get(name, ()) for user in users]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        events = [{} if isinstance(each, str) else each for row in rows for each in row]
        made.append(
            {
                field: Ragged(
                    np.array([each.get(field, np.nan) for each in events], np.float32), offsets
                )
                for field in fields
            }
        )
    return made
