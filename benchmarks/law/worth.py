"""What ten times more of one thing buys, by the surface of a law."""

from dataclasses import dataclass

import numpy as np

from benchmarks.scaling.fit.isoflop import Cost, optimum
from benchmarks.scaling.fit.law_intervals import Band
from benchmarks.scaling.fit.laws import PowerLaw
from benchmarks.scaling.fit.study import Laws

MORE = 10.0


@dataclass(frozen=True)
class Worth:
    """The loss `before` and `after` MORE of `what`, and the bands of the second over the first."""

    what: str
    size: float
    data: float
    before: float
    after: float
    ratio: Band


def worth(laws: Laws) -> list[Worth]:
    """Return what MORE compute, data and parameters buy, from the largest fitted run on.

    Compute is shared by size and data as the law has it, from its best run of as many FLOPs.
    """
    surface, sample = laws["surface"], laws.sample("surface")
    law, theta = surface.fit.law, surface.fit.theta
    assert isinstance(law, PowerLaw)
    top = int(np.argmax(sample.flops))
    size, data = sample.x[top].tolist()
    cost = Cost.of(sample.flops, *sample.x.T)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        best = optimum(law, theta, cost, sample.flops[top] * np.array([1.0, MORE]))
    steps = {
        "compute": list(zip(*(each.tolist() for each in best), strict=True)),
        "data, the same model": [(size, data), (size, MORE * data)],
        "parameters, the same data": [(size, data), (MORE * size, data)],
    }
    made: list[Worth] = []
    for what, (before, after) in steps.items():
        x = np.array([before, after], np.float64)
        if not (np.isfinite(x).all() and (x > 0).all()):
            continue  # no best size: an exponent lies on its bound
        first, second = surface.fit.loss(x).tolist()
        drawn = law.loss(surface.thetas, x)
        ratio = surface.scale(second / first, drawn[:, 1] / drawn[:, 0])
        made.append(Worth(what, after[0], after[1], first, second, ratio))
    return made
