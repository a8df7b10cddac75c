"""The rate of a ladder: one where one suits, a bounded line where none does, and edges extended."""

from typing import Any

import pytest

from benchmarks.law.ladder import Ladder
from benchmarks.law.training import chosen, extend

LADDER = Ladder([16, 32, 64], 128, [60, 120, 240], [2, 2, 1], 0.0)
RATES = [2.5e-3, 5e-3, 1e-2]


def tree(small: list[float], large: list[float], best: tuple[float, float]) -> dict[str, Any]:
    losses = {16: small, 64: large}
    return {
        "sizes": [
            {"width": width, "rates": RATES, "losses": losses[width], "best": one, "why": ""}
            for width, one in zip(losses, best, strict=True)
        ]
    }


def test_losses_that_hardly_differ_keep_the_rate_of_the_recipe() -> None:
    # parabolas through noise have their lowest points anywhere
    found = chosen(tree([7.553, 7.552, 7.560], [7.561, 7.556, 7.555], (4e-3, 8e-2)), LADDER, 5e-3)
    assert found["shared"] and found["rates"] == {16: 5e-3, 32: 5e-3, 64: 5e-3, 128: 5e-3}


def test_rates_that_suit_one_width_alone_lie_on_a_line() -> None:
    found = chosen(tree([6.2, 6.1, 6.0], [5.0, 5.1, 5.2], (1e-2, 5e-3)), LADDER, 5e-3)
    assert not found["shared"] and found["slope"] == pytest.approx(-0.5)
    assert found["rates"][16] == pytest.approx(1e-2, rel=0.01)
    assert found["rates"][64] == pytest.approx(5e-3, rel=0.01)
    assert found["rates"][128] == pytest.approx(5e-3 / 2**0.5, rel=0.01)
    steep = chosen(tree([6.2, 6.1, 6.0], [5.0, 5.1, 5.2], (1e-1, 1e-3)), LADDER, 5e-3)
    assert steep["slope"] == -1.0


def test_rates_go_on_beyond_the_edge_that_is_best() -> None:
    tried = {16: [*RATES], 64: [*RATES]}
    assert extend(tried, tree([6.2, 6.1, 6.0], [5.0, 5.1, 5.2], (0, 0))["sizes"])
    assert tried == {16: [*RATES, 2e-2], 64: [*RATES, 1.25e-3]}
    assert not extend(tried, tree([6.2, 6.0, 6.1], [5.2, 5.0, 5.1], (0, 0))["sizes"])
