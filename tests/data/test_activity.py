"""Recency, tenure, gaps and counts: by hand, against a slow reference, and as of a moment."""

import numpy as np
import pytest

from clue.data.activity import DAY, WINDOWS, activity, activity_names
from clue.data.ragged import Ragged

NOW = 1_700_000_000.0


def part(rows: list[list[tuple[int, float]]]) -> tuple[Ragged, Ragged]:
    """Return (items, times) of users whose events are (item, days before NOW)."""
    items = Ragged.from_lists([[item for item, _ in row] for row in rows])
    times = np.array([NOW - days * DAY for row in rows for _, days in row])
    return items, Ragged(times, items.offsets)


def test_one_user_by_hand() -> None:
    # three visits 40, 10 and 2 days ago, the last with two lines; and two clicks without a clock
    shop = part([[(7, 40.0), (7, 10.0), (8, 2.0), (9, 2.0)]])
    news = part([[(1, 0.0), (2, 0.0)]])
    amounts = {"spent": [np.array([5.0, np.nan, 2.0, -4.0], np.float32), None]}
    found = activity([shop, news], [True, False], np.array([NOW]), amounts)
    named = dict(zip(activity_names(amounts), np.expm1(found[0].astype(float)), strict=True))
    expected = {
        "log events": 6,
        "log distinct items": 5,
        "log services": 2,
        "log times": 3,
        "log recency": 2,
        "log tenure": 40,
        "log mean gap": 19,
        "log last gap": 8,
        "log recency over mean gap": 2 / 19,
        "log events in 3 days": 2,
        "log times in 3 days": 1,
        "log events in 14 days": 3,
        "log times in 56 days": 3,
        "log spent": 3,
        "log spent in 56 days": 3,
    }
    for name, value in expected.items():
        assert named[name] == pytest.approx(value, rel=1e-5), name
    # of money that went back on the whole, minus the logarithm of its size
    column = activity_names(amounts).index("log spent in 14 days")
    assert found[0, column] == pytest.approx(-np.log1p(2.0), rel=1e-5)


def test_many_users_equal_a_slow_reference() -> None:
    rng = np.random.default_rng(0)
    rows = [
        sorted(
            ((int(rng.integers(5)), float(rng.integers(400))) for _ in range(rng.integers(6))),
            key=lambda event: -event[1],
        )
        for _ in range(40)
    ]
    found = activity([part(rows)], [True], np.full(40, NOW))
    names = activity_names()
    checked = 0
    for row, user in zip(rows, found, strict=True):
        ages = sorted({age for _, age in row}, reverse=True)
        gaps = [a - b for a, b in zip(ages, ages[1:], strict=False)]
        slow = {
            "log events": len(row),
            "log times": len(ages),
            "log recency": min(ages, default=0),
            "log tenure": max(ages, default=0),
            "log mean gap": float(np.mean(gaps)) if gaps else 0,
            "log last gap": gaps[-1] if gaps else 0,
        }
        for days in WINDOWS:
            slow[f"log events in {days:g} days"] = sum(age <= days for _, age in row)
            slow[f"log times in {days:g} days"] = sum(age <= days for age in ages)
        for name, value in slow.items():
            assert user[names.index(name)] == pytest.approx(np.log1p(value), rel=1e-5, abs=1e-6)
            checked += 1
    assert checked == 40 * (6 + 2 * len(WINDOWS))


def test_the_moment_is_the_last_event_where_none_is_said() -> None:
    rows = part([[(1, 30.0), (2, 12.0)], []])
    last = np.array([NOW - 12 * DAY, NOW])
    assert np.array_equal(activity([rows], [True], None), activity([rows], [True], last))
    later = activity([rows], [True], np.full(2, NOW))
    column = activity_names().index("log recency")
    assert later[0, column] == pytest.approx(np.log1p(12.0), rel=1e-5)
    assert activity([rows], [True], None)[0, column] == 0


def test_an_event_after_the_moment_is_refused() -> None:
    rows = part([[(1, 30.0)], [(1, 0.0)]])
    with pytest.raises(ValueError, match=r"user 1 has an event at 1.7e\+09, after as_of 1.69"):
        activity([rows], [True], np.full(2, NOW - DAY * 20))
    activity([rows], [False], np.full(2, NOW - DAY * 20))  # positions are no moments
