"""What speaks against a law is said, the gravest first, and nothing where nothing does."""

from typing import Any

from benchmarks.law.doubts import doubts

SIZES = [{"width": 16, "why": ""}, {"width": 64, "why": ""}]


def tree(**parts: Any) -> dict[str, Any]:
    """A law against which nothing speaks, but for `parts`."""
    exponents = {name: {"low95": 0.3, "high95": 0.4} for name in ("a_params", "a_pairs")}
    target: dict[str, Any] = {"factor": 2.0, "inside80": True}
    target["errors"] = {"surface": 0.004, "largest fitted run": 0.05}
    whole = {
        "corpus": {"popularity": 7.4},
        "least_loss": 6.1,
        "verified": {"targets": [target]},
        "laws": {"surface": {"on_bounds": [], "coefficients": exponents}},
        "refused": {},
        "table": {"decades": 3.2},
        "rates": {"shared": True, "sizes": SIZES},
        "flags": [],
        "no_plan": "",
    }
    return {**whole, **parts}


def test_nothing_speaks_against_a_good_law() -> None:
    assert doubts(tree()) == []
    assert doubts(tree(corpus={"popularity": None})) == []


def test_each_fault_is_said() -> None:
    missed: dict[str, Any] = {"factor": 2.0, "inside80": False}
    missed["errors"] = {"surface": -0.05, "largest fitted run": 0.01}
    wide = {"a_params": {"low95": 0.1, "high95": 0.9}, "a_pairs": {"low95": 0.3, "high95": 0.4}}
    faults: list[tuple[dict[str, Any], str]] = [
        ({"least_loss": 7.3}, "too short to have learnt who likes what"),
        ({"verified": {"targets": [missed]}}, "missed the held-out run of 2 x the compute"),
        ({"laws": {}, "refused": {"surface": "6 runs"}}, "no law of size and data: 6 runs"),
        (
            {"laws": {"surface": {"on_bounds": ["E"], "coefficients": wide}}},
            "exponent of parameters is not identified: anywhere from 0.1 to 0.9",
        ),
        (
            {"no_plan": "2 parameters"},
            "it plans nothing: 2 parameters. What it says of a best model",
        ),
        ({"table": {"decades": 1.2}}, "span 1.2 decades"),
        (
            {"rates": {"shared": False, "sizes": SIZES}},
            "no learning rate suits widths 16, 64 alike",
        ),
    ]
    for parts, words in faults:
        assert any(words in doubt for doubt in doubts(tree(**parts))), words
    assert len(faults) == 7
    assert "as good as the largest" in doubts(tree(verified={"targets": [missed]}))[1]
