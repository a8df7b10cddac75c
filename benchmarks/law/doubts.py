"""What speaks against a law of one's own logs, in words, the gravest first."""

from collections.abc import Iterator, Mapping
from typing import Any

GOOD = 0.02  # a miss of the held-out run above which no plan should be trusted
LEARNT = 0.05  # by which share of the loss of popularity a run should be below it
DECADES = 3.0  # of compute, that published laws have at least
NAMED = {"params": "parameters", "pairs": "data", "flops": "compute"}


def doubts(tree: Mapping[str, Any]) -> list[str]:
    """Return the doubts of law.json, a sentence each."""
    parts = (_of_learning, _of_the_prediction, _of_the_exponents, _of_the_runs)
    return [doubt for part in parts for doubt in part(tree)]


def _of_the_prediction(tree: Mapping[str, Any]) -> Iterator[str]:
    for one in tree["verified"]["targets"]:
        error, trivial = one["errors"]["surface"], one["errors"]["largest fitted run"]
        run = f"the held-out run of {one['factor']:.2g} x the compute of the fitted ones"
        if abs(error) > GOOD:
            yield f"the law missed {run} by {error:+.1%}, more than {GOOD:.0%}: trust no plan by it"
        elif not one["inside80"]:
            yield f"{run} lies outside the law's interval of 80 %: its intervals are too narrow"
        if abs(trivial) < abs(error):
            yield (
                f'"as good as the largest fitted run" was nearer to {run} ({trivial:+.1%}) than '
                f"the law ({error:+.1%}): size and data matter less here than the law says, or "
                "more time is needed"
            )


def _of_the_exponents(tree: Mapping[str, Any]) -> Iterator[str]:
    surface = tree["laws"].get("surface")
    if surface is None:
        yield f"there is no law of size and data: {tree['refused']['surface']}"
        return
    if "E" in surface["on_bounds"]:
        yield (
            "the floor E is not known: by these runs the loss could fall to 0, which it will not. "
            "The law is too hopeful far beyond them"
        )
    if tree["no_plan"]:
        yield (
            f"it plans nothing: {tree['no_plan']}. What it says of a best model, and of ten times "
            "more, is of models unlike all that were trained"
        )
    for name, one in surface["coefficients"].items():
        factor = NAMED.get(name.removeprefix("a_"), "")
        if factor and not one["high95"] <= 2 * max(one["low95"], 1e-9):
            yield (
                f"the exponent of {factor} is not identified: anywhere from {one['low95']:.2g} to "
                f"{one['high95']:.2g}. How to share a budget between size and data is open by as "
                "much; more minutes give longer runs and more sizes"
            )


def _of_learning(tree: Mapping[str, Any]) -> Iterator[str]:
    popular, least = tree["corpus"]["popularity"], tree["least_loss"]
    if popular is not None and least > popular * (1 - LEARNT):
        yield (
            f"the best fitted run has a loss of {least:.3f}, knowing how popular each item is has "
            f"{popular:.3f}: the runs are too short to have learnt who likes what, and a law of "
            "them says little of runs that have. Give more minutes"
        )


def _of_the_runs(tree: Mapping[str, Any]) -> Iterator[str]:
    about, rates = tree["table"], tree["rates"]
    if about["decades"] < DECADES:
        yield (
            f"the runs span {about['decades']:.1f} decades of compute; published laws have "
            f"{DECADES:g} or more. A plan for 100 times the largest run is a guess"
        )
    if not rates["shared"]:
        widths = ", ".join(str(one["width"]) for one in rates["sizes"])
        yield (
            f"no learning rate suits widths {widths} alike: that of a larger model is a line "
            "through their best ones, extended"
        )
    edges = [str(one["width"]) for one in rates["sizes"] if one["why"]]
    if edges:
        yield f"at width {', '.join(edges)} no best rate lies between those tried: the least counts"
    yield from (f"{flag[0].upper()}{flag[1:]}" for flag in tree["flags"])
