"""The average of the weights by hand, and that it never disturbs training."""

import pytest
from torch import nn

from clue.train.ema import Average


def test_the_average_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(10.0)
    average = Average(model, decay=0.15)
    seen: list[float] = []
    for step, weight in enumerate((20.0, 30.0, 40.0)):
        model.weight.data.fill_(weight)
        average.update(model, step)
        seen.append(average.weights["weight"].item())
    # decays: 1/10, then .15 as 2/11 and 3/12 exceed it
    first = 0.1 * 10 + 0.9 * 20
    second = 0.15 * first + 0.85 * 30
    assert seen == pytest.approx([first, second, 0.15 * second + 0.85 * 40])


def test_the_random_beginning_is_forgotten_within_a_few_steps() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    average = Average(model, decay=0.999)
    model.weight.data.zero_()
    for step in range(5):
        average.update(model, step)
    # the product of (1+t) / (10+t) for t < T is 1 / choose(T + 9, 9)
    assert average.weights["weight"].item() == pytest.approx(1 / 2002)


def test_without_a_decay_nothing_is_kept() -> None:
    model = nn.Linear(3, 2)
    average = Average(model, decay=0.0)
    average.update(model, 0)
    assert average.weights == {}
