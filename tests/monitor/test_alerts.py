"""Alarms over hand-made sequences: raised once, again after they cleared, and never for nothing."""

import numpy as np
import pytest

from clue.monitor.alerts import Alarms


def spikes(losses: list[float]) -> list[int]:
    """Return the steps at which a loss raises an alarm."""
    alarms = Alarms()
    return [step for step, loss in enumerate(losses) if alarms.see_loss(step, loss)]


def noise(steps: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=steps)


def test_a_quiet_loss_never_spikes() -> None:
    assert not spikes((5 + 0.1 * noise(20_000, 0)).tolist())
    assert not spikes([4.0] * 500)


def test_a_falling_loss_never_spikes() -> None:
    steps = np.arange(3000)
    falling = 2 + 5 * np.exp(-steps / 300) + 0.1 * noise(3000, 1)
    assert not spikes(falling.tolist())


def test_a_spike_is_raised_once_until_the_loss_is_back() -> None:
    losses = 5 + 0.1 * noise(300, 2)
    losses[150:155] += 3.0
    losses[200] += 1.5
    assert spikes(losses.tolist()) == [150, 200]


def test_a_spike_that_stays_is_raised_once() -> None:
    losses = 5 + 0.1 * noise(600, 3)
    losses[150:] += 3.0
    assert spikes(losses.tolist()) == [150]


def test_nothing_is_unusual_before_the_usual_is_known() -> None:
    assert not spikes([5.0] * 29 + [50.0])
    assert spikes([5.0] * 30 + [50.0]) == [30]


def test_a_rise_within_rounding_is_no_spike() -> None:
    assert not spikes([5.0] * 50 + [5.2])
    assert spikes([5.0] * 50 + [5.3]) == [50]


def test_the_message_names_step_and_figures() -> None:
    alarms = Alarms()
    for step in range(40):
        alarms.see_loss(step, 5.0)
    (alarm,) = alarms.see_loss(40, 9.0)
    assert alarm.name == "loss_spike"
    assert "loss 9 at step 40, where 5 is usual" in alarm.message
    assert "lower optimizer.lr" in alarm.message
    assert list(alarms.raised) == ["loss_spike"]
    assert alarms.see_loss(41, 5.0) == []
    assert alarms.raised == {}


def logged(scales: list[float], waits: list[float]) -> list[tuple[int, str]]:
    """Return (logged step, alarm) of sequences of 1/temperature and of the share of waiting."""
    alarms, found = Alarms(), list[tuple[int, str]]()
    for step, (scale, wait) in enumerate(zip(scales, waits, strict=True)):
        found += [(step, alarm.name) for alarm in alarms.see_logged(scale, wait)]
    return found


@pytest.mark.parametrize(("bound", "name"), [(1.0, "temperature_low"), (100.0, "temperature_high")])
def test_a_pinned_temperature_is_raised_at_the_third_logged_step(bound: float, name: str) -> None:
    free = 20.0
    scales = [free, bound, bound, free, bound, bound, bound, bound, free, bound, bound, bound]
    assert logged(scales, [0.0] * 12) == [(6, name), (11, name)]


def test_fp32_rounding_at_the_bound_counts_as_pinned() -> None:
    assert logged([99.99999] * 3, [0.0] * 3) == [(2, "temperature_high")]
    assert logged([99.9] * 3, [0.0] * 3) == []


def test_waiting_for_data_is_raised_where_it_lasts() -> None:
    waits = [0.9, 0.1, 0.3, 0.3, 0.3, 0.3, 0.2, 0.21, 0.21, 0.21]
    assert logged([20.0] * 10, waits) == [(4, "data_bound"), (9, "data_bound")]


def test_alarms_of_different_kinds_stand_side_by_side() -> None:
    assert logged([1.0] * 3, [0.5] * 3) == [(2, "temperature_low"), (2, "data_bound")]
