"""A ladder fits into its time by arithmetic, and is refused with the time that is missing."""

import pytest

from benchmarks.law.ladder import Ladder, Timing, choose, seconds_of, timing_at

WIDTHS = [16, 24, 32, 48, 64, 96, 128]
TIMES = {width: Timing(width / 160, 8.0) for width in (16, 32, 64, 128)}  # .1 s at 16


def ladder_in(minutes: float, *, jobs: int = 1, most: int = 10**6) -> Ladder:
    return choose(TIMES, WIDTHS, seconds=60 * minutes, jobs=jobs, most_steps=most)


def test_widths_between_the_timed_ones_lie_on_a_line() -> None:
    assert timing_at(TIMES, 24).step == pytest.approx(0.15)
    assert timing_at(TIMES, 96).step == pytest.approx(0.6)


def test_seconds_are_those_of_trunks_branches_and_starts() -> None:
    ladder = Ladder([16, 32], 64, [100, 200], [2, 1], 0.0)
    rates, fitted, held = seconds_of(ladder, TIMES, 1)
    assert rates == pytest.approx(3 * (100 * (0.1 + 0.2) + 2 * 8))
    # a trunk of 200 steps and the cooldown of 100, 20 steps
    assert fitted == pytest.approx(2 * (220 * 0.1 + 16) + 220 * 0.2 + 16)
    assert held == pytest.approx(220 * 0.4 + 16)
    assert seconds_of(ladder, TIMES, 2)[:2] == pytest.approx((rates / 2, fitted / 2))
    assert ladder.runs == (6, 6, 2) and ladder.warmup == 10


@pytest.mark.parametrize("minutes", [20, 45, 60, 240])
def test_a_ladder_fits_and_wastes_little(minutes: float) -> None:
    ladder = ladder_in(minutes)
    assert ladder.seconds <= 60 * minutes
    assert ladder.seconds > 0.97 * 60 * minutes  # a step more of the longest would not fit
    assert ladder.held_out >= 2 * ladder.fitted[-1] and ladder.seeds[:2] == [2, 2]
    assert ladder.steps[-1] >= 480 and ladder.steps[0] * 8 == pytest.approx(ladder.steps[-1], abs=8)


def test_more_time_gives_more_widths_and_two_cores_more_than_one() -> None:
    counts = [len(ladder_in(minutes).fitted) for minutes in (12, 20, 45)]
    assert counts == sorted(counts) and counts[0] < counts[-1] == 5
    one, two = ladder_in(20), ladder_in(20, jobs=2)
    assert len(two.fitted) > len(one.fitted)


def test_what_the_log_does_not_fill_goes_into_seeds() -> None:
    ladder = ladder_in(240, most=600)
    assert ladder.steps[-1] == 600 and min(ladder.seeds) == 4


def test_too_little_time_is_refused_with_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"1\.0 minutes are left .* raise minutes by \d+ or more"):
        ladder_in(1)
