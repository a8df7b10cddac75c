"""What is counted of a user's clicks before a moment: recency, frequency, sessions. Times alone."""

import numpy as np

from benchmarks.snapshot import Snapshot

DAY, HOUR = 86_400.0, 3_600.0
GAP = 1_800.0  # seconds without a click that end a session
WINDOWS = (0.25, 1.0, 2.0, 4.0, 7.0, np.inf)  # days before the moment
GROUPS = ("recency", "frequency", "sessions")


def counted(past: Snapshot, number: int) -> dict[str, np.ndarray]:
    """Return the columns (n, k) of GROUPS for n users, of the service of that number.

    recency    log hours since the last and the first click, and of the last one the sine and
               cosine of the hour of day
    frequency  logs of clicks and of distinct items in WINDOWS
    sessions   logs of sessions and of days with a click in WINDOWS, of the mean and the last time
               between sessions in hours, and of the clicks in the last session

    ValueError for a user without a click, or a moment that is not finite.
    """
    items, times = past.parts[number]
    if not (items.lengths > 0).all() or not np.isfinite(past.cutoff).all():
        raise ValueError("visits are counted of users with a click before a finite moment")
    user = np.repeat(np.arange(len(past)), times.lengths)
    age = past.cutoff[user] - times.values
    newest, oldest = age[times.offsets[1:] - 1], age[times.offsets[:-1]]
    first = np.ones(len(age), bool)  # of a session
    first[1:] = (age[:-1] - age[1:] > GAP) | (user[1:] != user[:-1])

    def within(days: float, kept: np.ndarray) -> np.ndarray:
        return np.bincount(user[kept & (age <= days * DAY)], minlength=len(past))

    new_item = _first_of(user, items.values, -age)
    new_day = _first_of(user, np.floor(age / DAY), -age)
    anything = np.ones(len(age), bool)
    hour = 2 * np.pi * (times.values[times.offsets[1:] - 1] % DAY) / DAY
    starts = np.flatnonzero(first)
    between = np.r_[np.inf, age[starts[:-1]] - age[starts[1:]]]  # since the session before
    same = np.r_[False, user[starts][1:] == user[starts][:-1]]
    sessions = np.bincount(user[starts], minlength=len(past))
    summed = np.bincount(user[starts[same]], between[same], minlength=len(past))
    last = np.cumsum(sessions) - 1
    last_gap = np.where(same[last], between[last], 0)
    in_last = times.offsets[1:] - starts[last]
    return {
        "recency": np.stack(
            [np.log1p(newest / HOUR), np.log1p(oldest / HOUR), np.sin(hour), np.cos(hour)], axis=1
        ),
        "frequency": np.log1p(
            np.stack([within(d, kept) for d in WINDOWS for kept in (anything, new_item)], axis=1)
        ),
        "sessions": np.log1p(
            np.stack(
                [
                    *(within(d, kept) for d in WINDOWS for kept in (first, new_day)),
                    summed / np.maximum(sessions - 1, 1) / HOUR,
                    last_gap / HOUR,
                    in_last,
                ],
                axis=1,
            )
        ),
    }


def _first_of(user: np.ndarray, what: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return which rows (n,) are the newest of their user and thing, the greatest in `order`."""
    rows = np.lexsort((-order, what, user))
    new = np.r_[True, (user[rows][1:] != user[rows][:-1]) | (what[rows][1:] != what[rows][:-1])]
    newest = np.zeros(len(user), bool)
    newest[rows[new]] = True
    return newest
