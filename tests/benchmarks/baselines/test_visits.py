"""Clicks of two users counted by hand."""

# pyright: standard

from pathlib import Path

import numpy as np
import pytest

from benchmarks.baselines.visits import DAY, HOUR, WINDOWS, counted
from benchmarks.snapshot import snapshot_at
from tests.benchmarks.worlds import corpus_of

NOW = 1_600_000_000.0


def test_counts_of_two_users_by_hand(tmp_path: Path) -> None:
    events = [
        ("a", "x", NOW - 3 * DAY + 60),
        ("a", "y", NOW - 3 * DAY + 600),  # the same session
        ("a", "x", NOW - 5 * HOUR),
        ("a", "x", NOW - HOUR),
        ("a", "z", NOW),  # at the moment: not past
        ("b", "x", NOW - 10 * DAY),
    ]
    corpus = corpus_of(
        tmp_path,
        [(user, "globo", item) for user, item, _ in events],
        {"a": "train", "b": "train"},
        [when for *_, when in events],
    )
    found = counted(snapshot_at(corpus, np.array([0, 1]), NOW), 0)
    hour = 2 * np.pi * ((NOW - HOUR) % DAY) / DAY
    assert found["recency"][0] == pytest.approx(
        [np.log(2), np.log1p(72 - 1 / 60), np.sin(hour), np.cos(hour)]
    )
    assert np.expm1(found["recency"][1][:2]) == pytest.approx([240, 240])
    assert (0.25, 1, 2, 4, 7, np.inf) == WINDOWS
    clicks_and_items = [2, 1, 2, 1, 2, 1, 4, 2, 4, 2, 4, 2]
    assert np.expm1(found["frequency"][0]) == pytest.approx(clicks_and_items)
    assert np.expm1(found["frequency"][1]) == pytest.approx([0] * 10 + [1, 1])
    # Sessions and days of 24 hours; from start to start of sessions, and clicks in the last one.
    sessions_and_days = [2, 1, 2, 1, 2, 1, 3, 2, 3, 2, 3, 2]
    gaps = [(72 - 1 / 60 - 5 + 4) / 2, 4, 1]
    assert np.expm1(found["sessions"][0]) == pytest.approx([*sessions_and_days, *gaps])
    assert np.expm1(found["sessions"][1]) == pytest.approx([0] * 10 + [1, 1, 0, 0, 1])


def test_users_without_a_click_before_the_moment_are_refused(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, [("a", "globo", "x")], {"a": "train"}, [NOW])
    with pytest.raises(ValueError, match="users with a click before a finite moment"):
        counted(snapshot_at(corpus, np.array([0]), NOW), 0)
