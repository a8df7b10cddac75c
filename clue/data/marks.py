"""Marks of an event beside its item: how long after the one before, at which hour, of which amount.

A mark is a row of one embedding table: 0 is a mark that is not known, then come the buckets of the
log gap to the event before, the hours of a day and the days of a week (UTC), and for each service
the codes of its numeric fields (clue/data/fields.py), whose missing value is a code of its own.
Times that are positions have no durations, and no marks of time.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from clue.data.fields import Field
from clue.data.ragged import Ragged

GAPS, HOURS, WEEKDAYS = 48, 24, 7  # a gap of g seconds is in bucket floor(2 log2(1 + g / 60))
FIRST_HOUR = 1 + GAPS
FIRST_WEEKDAY = FIRST_HOUR + HOURS
FIRST_CODE = FIRST_WEEKDAY + WEEKDAYS
OF_TIME = 3  # columns: gap, hour, weekday; then a column for each numeric field of the service
THURSDAY = 3  # the weekday of second 0, counted from Monday


class MarkTable:
    """Which row of the table stands for what; it has `size` rows, an event `columns` marks."""

    def __init__(self, fields: Sequence[Sequence[Field]]) -> None:
        """`fields` are those of each service of the corpus; numeric ones alone are read."""
        self.fields = [[each for each in named if each.kind == "numeric"] for named in fields]
        self.columns = OF_TIME + max((len(named) for named in self.fields), default=0)
        self.first: list[list[int]] = []
        self.size = FIRST_CODE
        for named in self.fields:
            self.first.append([])
            for field in named:
                self.first[-1].append(self.size)
                self.size += field.num_codes

    def of(
        self, service: int, times: Ragged, clock: bool, values: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Return the marks (E, columns), int32, of a service's E events, oldest first in each row.

        A time may be NaN, of an event of which it is not known. `values` (E,) are those of its
        numeric fields by name, NaN where missing; a field without values is missing throughout. A
        service of number -1 has no fields.
        """
        marks = np.zeros((len(times.values), self.columns), np.int32)
        if clock:
            timed = np.isfinite(times.values)
            seconds = times.values[timed].astype(np.int64)
            marks[:, 0] = gap_marks(times)
            marks[timed, 1] = FIRST_HOUR + seconds // 3_600 % HOURS
            marks[timed, 2] = FIRST_WEEKDAY + (seconds // 86_400 + THURSDAY) % WEEKDAYS
        named = zip(self.fields[service], self.first[service], strict=True) if service >= 0 else ()
        for column, (field, first) in enumerate(named, OF_TIME):
            missing = np.full(len(marks), np.nan, np.float32)
            marks[:, column] = first + field.codes(values.get(field.name, missing))
        return marks


def gap_marks(times: Ragged) -> np.ndarray:
    """Return the mark (E,) of the gap before each event, 0 for the first of a row.

    It is 0 too where a time is NaN, and where that of the event before is.
    """
    gaps = np.diff(times.values, prepend=0.0)
    known = np.isfinite(gaps)
    buckets = np.floor(2 * np.log2(1 + gaps[known].clip(min=0) / 60) + 1e-9).astype(np.int32)
    marks = np.zeros(len(gaps), np.int32)
    marks[known] = 1 + np.minimum(buckets, GAPS - 1)
    marks[times.offsets[:-1][times.lengths > 0]] = 0
    return marks


def merge_marked(
    parts: Sequence[tuple[Ragged, Ragged]], marks: Sequence[np.ndarray]
) -> tuple[Ragged, np.ndarray]:
    """Return users' (items, times) of several services as one history by time, with its marks.

    The gap is then that to the event before, in whichever service. An event whose time is NaN
    stays behind the one before it in its own service.
    """
    if len(parts) == 1:
        return parts[0][0], marks[0]
    starts = np.cumsum([0, *(len(items.values) for items, _ in parts[:-1])])
    numbered = [
        (Ragged(start + np.arange(len(items.values)), items.offsets), carried(times))
        for start, (items, times) in zip(starts, parts, strict=True)
    ]
    order, _ = Ragged.merge_by_time(numbered)
    values, times, merged = (
        np.concatenate(each)[order.values]
        for each in (
            [items.values for items, _ in parts],
            [when.values for _, when in parts],
            list(marks),
        )
    )
    merged[:, 0] = gap_marks(Ragged(times, order.offsets))
    return Ragged(values, order.offsets), merged


def carried(times: Ragged) -> Ragged:
    """Return the times with each NaN as the last known time before it in its row, or -infinity."""
    unknown = np.isnan(times.values)
    if not unknown.any():
        return times
    row = np.repeat(np.arange(len(times)), times.lengths)
    last = np.maximum.accumulate(np.where(unknown, -1, np.arange(len(row))))
    known = (last >= 0) & (row[last] == row)
    return Ragged(np.where(known, times.values[last], -np.inf), times.offsets)
