"""Marks of events: gaps, hours, weekdays and amounts by hand; of positions nothing is known."""

import numpy as np

from clue.data.fields import MISSING, ZERO, Field
from clue.data.marks import (
    FIRST_CODE,
    FIRST_HOUR,
    FIRST_WEEKDAY,
    GAPS,
    OF_TIME,
    MarkTable,
    carried,
    gap_marks,
    merge_marked,
)
from clue.data.ragged import Ragged

AMOUNT = Field("amount", "numeric", edges=(10.0, 20.0))
CHANNEL = Field("channel", "categorical", values=("web", "app"))
MONDAY = 1_700_438_400.0  # 2023-11-20, midnight


def rows(*lists: list[float]) -> Ragged:
    ends = np.cumsum([0, *(len(each) for each in lists)])
    return Ragged(np.array([x for each in lists for x in each], np.float64), ends)


def test_gaps_are_buckets_of_their_logarithm() -> None:
    times = rows([0, 0, 60, 60 + 180, 10.0**12], [], [5.0])
    # floor(2 log2(1 + minutes)): 0, 2 of a minute, 4 of three; the longest are one bucket
    assert gap_marks(times).tolist() == [0, 1, 3, 5, GAPS, 0]


def test_hours_weekdays_and_amounts_have_rows_of_their_own() -> None:
    table = MarkTable([[AMOUNT, CHANNEL], []])
    assert (table.columns, table.size) == (OF_TIME + 1, FIRST_CODE + AMOUNT.num_codes)
    times = rows([MONDAY + 3_600 * 7, MONDAY + 86_400 * 6])
    values = {"amount": np.array([10.0, np.nan], np.float32)}
    marks = table.of(0, times, True, values)
    codes = [FIRST_CODE + 3, FIRST_CODE + MISSING]
    assert marks[:, 1].tolist() == [FIRST_HOUR + 7, FIRST_HOUR]
    assert marks[:, 2].tolist() == [FIRST_WEEKDAY, FIRST_WEEKDAY + 6]
    assert marks[:, OF_TIME].tolist() == codes
    zero = table.of(0, times, True, {"amount": np.zeros(2, np.float32)})
    assert zero[:, OF_TIME].tolist() == [FIRST_CODE + ZERO] * 2
    unknown = table.of(0, times, True, {})
    assert unknown[:, OF_TIME].tolist() == [FIRST_CODE + MISSING] * 2


def test_positions_and_unknown_services_have_no_marks() -> None:
    table = MarkTable([[], [AMOUNT]])
    assert not table.of(0, rows([1, 2, 3]), False, {}).any()
    assert not table.of(-1, rows([1, 2, 3]), False, {}).any()
    timed = table.of(-1, rows([MONDAY, MONDAY + 60]), True, {"amount": np.ones(2, np.float32)})
    assert timed[:, :OF_TIME].any(0).all()
    assert not timed[:, OF_TIME].any()


def test_an_event_without_a_time_stays_in_its_place_and_has_no_marks_of_time() -> None:
    items = [
        Ragged(np.array([10, 11, 12]), np.array([0, 3])),
        Ragged(np.array([20]), np.array([0, 1])),
    ]
    times = [rows([60, np.nan, 180]), rows([120])]
    table = MarkTable([[], []])
    marks = [table.of(service, each, True, {}) for service, each in enumerate(times)]
    histories, merged = merge_marked(list(zip(items, times, strict=True)), marks)
    assert histories[0].tolist() == [10, 11, 20, 12]
    assert merged[:, 0].tolist() == [0, 0, 0, 3]
    assert not merged[1].any()
    first = carried(rows([np.nan, 5], [np.nan]))
    assert first.values.tolist() == [-np.inf, 5, -np.inf]


def test_joined_services_are_in_order_of_time_with_the_gaps_between_them() -> None:
    items = [Ragged(np.array([10, 11, 12]), np.array([0, 2, 3])), rows([20], [21, 22])]
    times = [rows([0, 3_600], [100]), rows([60], [100, 160])]
    table = MarkTable([[AMOUNT], []])
    amounts = {"amount": np.array([1, 15, 30], np.float32)}
    marks = [table.of(0, times[0], True, amounts), table.of(1, times[1], True, {})]
    histories, merged = merge_marked(list(zip(items, times, strict=True)), marks)
    assert [histories[row].tolist() for row in (0, 1)] == [[10, 20, 11], [12, 21, 22]]
    assert merged[:, 0].tolist() == [0, 3, 12, 0, 1, 3]
    code = FIRST_CODE + 2
    assert merged[:, OF_TIME].tolist() == [code, 0, code + 1, code + 2, 0, 0]
