"""Numbers are printed in one way everywhere: no zero before the point, two decimals for nats."""

import pytest

from benchmarks.metrics.bootstrap import Interval
from benchmarks.metrics.format import aligned, number, p_value, show, signed

NAN = float("nan")


def test_an_interval_stands_behind_its_value() -> None:
    assert show("R@10", Interval(0.0571, 0.048, 0.0674)) == ".057 [.048 .067]"
    assert show("contrastive entropy", Interval(3.374, 3.2, 10.5)) == "3.37 [3.20 10.50]"
    assert show("R2", Interval(-0.01, -0.2, 0.1)) == "-0.010 [-0.200 .100]"


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, ".500"), (-0.25, "-.250"), (10.5, "10.500"), (1, "1.000"), (NAN, "")]
)
def test_a_value_alone(value: float, text: str) -> None:
    assert number("HR@10", value) == text


def test_a_difference_has_its_sign() -> None:
    assert signed("AUC", Interval(0.02, -0.01, 0.05)) == "+.020 [-.010 +.050]"
    assert signed("entropy", Interval(-1.5, -10.25, -0.5)) == "-1.50 [-10.25 -.50]"
    assert signed("AUC", Interval(10.0, NAN, NAN)) == "+10.000"


def test_a_p_value() -> None:
    assert [p_value(p) for p in (0.0004, 0.05, 1.0, NAN)] == [".000", ".050", "1.000", ""]


def test_columns_are_as_wide_as_their_widest() -> None:
    assert aligned([["a", "bb", "c"], ["aaa", "b", ""]]) == "a    bb  c\naaa  b"
