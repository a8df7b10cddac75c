"""The next-item model beside the rival: quality on the test items, and seconds to equal quality."""

from collections.abc import Mapping
from typing import Any

from benchmarks.external.rectools_sasrec import Curve, seconds_to
from benchmarks.metrics.bootstrap import Interval
from benchmarks.metrics.format import show

CLOCK = "processor_seconds"


def table(rival: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Return both systems as Markdown: `rival` is rival_sasrec's report, `ours` leave_one_out's.

    The last column is the processor time after which each had the better one of the two lowest
    validation losses that both reached.
    """
    model = next(iter(ours["models"].values()))
    curves: dict[str, Curve] = {"RecTools SASRec": rival["curve"], "CLUE": model["curve"]}
    shared = max(min(line["loss"] for line in curve) for curve in curves.values())
    seen = {"RecTools SASRec": rival["measures"]["test"], "CLUE": ours["tables"]}
    lines = [
        "| system | seen items | HR@10 | NDCG@10 | processor s, all | processor s to "
        f"{shared:.3f} nats on the valid items |",
        "|" + " --- |" * 6,
    ]
    for name, curve in curves.items():
        reached = seconds_to(curve, "loss", shared, clock=CLOCK)
        assert reached is not None
        for kind in ("left out", "kept"):
            named = seen[name][f"seen {kind}"]
            found = named if name != "CLUE" else named[next(iter(ours["models"]))]
            cells = [show(key, Interval(**found[key])) for key in ("HR@10", "NDCG@10")]
            times = f"{curve[-1][CLOCK]:,.0f} | {reached:,.0f}"
            lines.append(f"| {name} | {kind} | {' | '.join(cells)} | {times} |")
    return "\n".join(lines)
