"""Views: what they hold, that they are disjoint where promised, and depend on their keys alone."""

import numpy as np
import pytest

from clue.data.ragged import Ragged
from clue.data.views import (
    ViewsConfig,
    content_hash,
    cross_service,
    drop_events,
    past_future,
    slices,
    uniform,
)

LENGTHS = np.array([2, 3, 9, 40, 5])
STARTS = np.array([100, 0, 200, 300, 50])
ROWS = np.arange(5)


def test_spans_and_keep_by_hand() -> None:
    ragged = Ragged.slices(np.array([7, 1]), np.array([2, 3]))
    assert ragged.values.tolist() == [7, 8, 1, 2, 3]
    assert ragged.offsets.tolist() == [0, 2, 5]
    kept = ragged.mask(np.array([False, True, True, False, False]))
    assert kept.values.tolist() == [8, 1]
    assert kept.offsets.tolist() == [0, 1, 2]


def test_uniform_is_uniform_and_a_function_of_its_keys() -> None:
    draw = uniform(3, np.arange(20_000))
    assert np.array_equal(draw[::-1], uniform(3, np.arange(20_000)[::-1]))
    assert not np.array_equal(draw, uniform(4, np.arange(20_000)))
    assert (draw >= 0).all()
    assert (draw < 1).all()
    counts = np.bincount((draw * 20).astype(int), minlength=20)
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square with 19 degrees, p = .001


@pytest.mark.parametrize("step", range(20))
def test_past_ends_where_future_begins(step: int) -> None:
    past, future = past_future(STARTS, LENGTHS, 8, (0, step, ROWS))
    for row, (start, length) in enumerate(zip(STARTS, LENGTHS, strict=True)):
        a, b = past[row], future[row]
        assert 1 <= len(a) <= 8
        assert 1 <= len(b) <= 8
        assert a[0] >= start
        assert a[-1] + 1 == b[0]
        assert b[-1] < start + length
        assert (np.diff(a) == 1).all()
        assert (np.diff(b) == 1).all()


def test_the_length_of_the_future_is_uniform_in_its_logarithm() -> None:
    starts, lengths = np.zeros(20_000, np.int64), np.full(20_000, 8)
    keys = (0, 1, np.arange(20_000))
    past, future = past_future(starts, lengths, 8, keys, short=True)
    left = 8 - past.lengths
    assert (future.lengths <= left).all()
    assert (future.lengths == left).any()
    for available in range(1, 8):
        single = (future.lengths[left == available] == 1).mean()
        expected = np.log(2) / np.log(available + 1)
        assert single == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("step", range(20))
def test_slices_are_disjoint_ordered_and_within_the_history(step: int) -> None:
    one, other = slices(STARTS, LENGTHS, 8, (0, step, ROWS))
    for row, (start, length) in enumerate(zip(STARTS, LENGTHS, strict=True)):
        a, b = one[row], other[row]
        assert 1 <= len(a) <= 8
        assert 1 <= len(b) <= 8
        assert len(a) + len(b) == min(length, 16)
        assert not set(a) & set(b)
        for view in (a, b):
            assert (np.diff(view) > 0).all()
            assert view.min() >= start
            assert view.max() < start + length


def test_windows_reach_every_place_of_a_long_history() -> None:
    firsts = {
        int(cross_service(STARTS[3:4], LENGTHS[3:4], 8, (0, step, ROWS[3:4])).values[0])
        for step in range(600)
    }
    assert firsts == set(range(300, 333))


def test_a_row_does_not_depend_on_the_others() -> None:
    every = slices(STARTS, LENGTHS, 8, (0, 5, ROWS))
    alone = slices(STARTS[2:3], LENGTHS[2:3], 8, (0, 5, ROWS[2:3]))
    assert np.array_equal(every[0][2], alone[0][0])
    assert np.array_equal(every[1][2], alone[1][0])


def test_dropout_keeps_one_event_at_least_and_about_the_share() -> None:
    view = Ragged.slices(np.arange(4000) * 10, np.resize([1, 2, 10], 4000))
    kept = drop_events(view, 0.3, (0, np.arange(4000)))
    assert (kept.lengths >= 1).all()
    tens = kept.lengths[np.resize([1, 2, 10], 4000) == 10]
    assert tens.mean() == pytest.approx(7.0, abs=0.15)
    assert drop_events(view, 0.0, (0, np.arange(4000))) is view


def test_content_hash_ignores_order_and_sees_counts() -> None:
    ragged = Ragged(np.array([5, 6, 6, 5, 5, 5, 6, 6, 5]), np.array([0, 2, 4, 6, 9]))
    first, second, third, fourth = content_hash(ragged.values, ragged.offsets)
    assert first == second
    assert len({first, third, fourth}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cross_service": 0.9}, "sum to 1"),
        ({"cross_service": 1.5, "past_future": -0.75}, "sum to 1"),
        ({"max_events": 0}, "max_events must be at least 1, got 0"),
        ({"event_dropout": 1.0}, "event_dropout must lie in"),
    ],
)
def test_settings_that_mean_nothing_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViewsConfig(**change)  # pyright: ignore[reportArgumentType]
