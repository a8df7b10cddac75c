"""The fit of a law to runs: the sum of Huber losses of log residuals, from many starts.

SciPy's least_squares with analytic derivatives, started all over a grid; newton.py is a second
implementation to check it against.

Why a sum: with the mean of residuals of 1e-3 an optimiser's default tolerances stop it at a wrong
answer (on the Chinchilla data alpha 0.381 for 0.347). `stopped_early` says so of any answer.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from benchmarks.scaling.fit.laws import Law
from benchmarks.scaling.fit.newton import DELTA, huber, refit

WIDE, TIGHT = 0.1, 1e-14  # the first delta, and the tolerances of the last
NEAR = 0.01  # a start agrees if its objective is at most 1 % above the best
AGREE = 0.5  # least share of starts that must agree
EDGE = 1e-3  # share of a parameter's range that counts as its bound
WORST_CONDITION = 1e4


@dataclass(frozen=True)
class Fit:
    """A law at its best parameters theta (p,).

    `agreeing` is the share of `starts` whose objective ended within 1 % of the best. `condition` is
    that of the derivatives (n, p) with columns of length 1. `on_bounds` are the parameters that lie
    on one. `residuals` (n,) are log(predicted / true), over the `scales` of the runs.
    """

    law: Law
    theta: np.ndarray
    objective: float
    agreeing: float
    starts: int
    condition: float
    on_bounds: tuple[str, ...]
    residuals: np.ndarray
    delta: float

    def loss(self, x: np.ndarray) -> np.ndarray:
        """Return the predicted loss (n,) at factors (n, k)."""
        return self.law.loss(self.theta, x)

    @property
    def spread(self) -> float:
        """The sd of the residuals, for the parameters that were fitted: sqrt(sum r^2 / (n - p))."""
        free = max(1, len(self.residuals) - len(self.theta))
        return float(np.sqrt((self.residuals**2).sum() / free))

    @property
    def flags(self) -> list[str]:
        """What to know before believing the law, a sentence each; empty where nothing is wrong."""
        flags: list[str] = []
        if self.agreeing < AGREE:
            flags.append(
                f"only {self.agreeing:.0%} of {self.starts} starts reached the best objective; the "
                "answer depends on the start: centre the factors, tighten the tolerances"
            )
        for name in self.on_bounds:
            value = float(self.theta[self.law.names.index(name)])
            flags.append(
                f"{name} = {value:.3g} lies on its bound: the runs do not identify it; add decades "
                "or points, and do not quote it"
            )
        if self.condition > WORST_CONDITION:
            flags.append(
                f"condition {self.condition:.1g} > {WORST_CONDITION:g}: parameters stand in for "
                "each other; quote predictions, not coefficients"
            )
        return flags


def fit(
    law: Law,
    x: np.ndarray,
    losses: np.ndarray,
    *,
    scales: np.ndarray | float = 1.0,
    delta: float = DELTA,
    starts: np.ndarray | None = None,
    most: int = 432,
) -> Fit:
    """Return the law fitted to losses (n,) at factors (n, k) from at most `most` of its starts.

    Residuals count over their `scales` (n,): weights of 1 / sigma^2 within delta. Raises ValueError
    for fewer runs than parameters and one more, or a factor that does not vary.
    """
    _refuse_few(law, x, losses)
    logs = np.log(losses)
    low, high = law.bounds(losses)
    grid = law.starts(losses) if starts is None else starts
    grid = grid[:: max(1, -(-len(grid) // most))]
    # A wide delta first: more starts arrive. Those it brings to one point go on as one.
    wide = max(WIDE, delta)
    near = np.array([_solve(law, x, logs, start, wide, scales, 1e-8) for start in grid])
    cells = np.round((near - low) / (high - low), 5)
    _, first, cell = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    cell = cell.ravel()
    ends = np.array([_solve(law, x, logs, near[i], delta, scales, TIGHT) for i in first])
    objectives = huber((np.log(law.loss(ends, x)) - logs) / scales, delta).sum(-1)[cell]
    theta, value = ends[cell[np.argmin(objectives)]], float(objectives.min())
    agreeing = float((objectives <= value * (1 + NEAR) + 1e-15 * len(logs)).mean())
    agreed = (agreeing, len(grid))
    return described(law, theta, x, losses, scales=scales, delta=delta, agreed=agreed)


def described(
    law: Law,
    theta: np.ndarray,
    x: np.ndarray,
    losses: np.ndarray,
    *,
    scales: np.ndarray | float = 1.0,
    delta: float = DELTA,
    agreed: tuple[float, int] = (1.0, 1),
) -> Fit:
    """Return parameters that came from anywhere as a Fit, with what is to be said of them.

    `agreed` is the share of starts that came to them, and how many starts there were.
    """
    residuals = (np.log(law.loss(theta, x)) - np.log(losses)) / scales
    slopes = law.slopes(theta, x)
    lengths = np.linalg.norm(slopes, axis=0)
    condition = float(np.linalg.cond(slopes / np.where(lengths > 0, lengths, 1)))
    low, high = law.bounds(losses)
    near = (theta - low <= EDGE * (high - low)) | (high - theta <= EDGE * (high - low))
    named = tuple(name for name, on in zip(law.names, near, strict=True) if on)
    value = float(huber(residuals, delta).sum())
    return Fit(law, theta, value, *agreed, condition, named, residuals, delta)


def _refuse_few(law: Law, x: np.ndarray, losses: np.ndarray) -> None:
    for name, column in zip(law.factors, x.T, strict=True):
        if len(np.unique(column)) < 2:
            raise ValueError(f"{name} is {column[0]:g} in all runs; a law of {name} needs several")
    if len(losses) <= len(law.names):
        raise ValueError(
            f"{len(losses)} runs for {len(law.names)} parameters ({', '.join(law.names)}); a law "
            f"needs {len(law.names) + 1} or more"
        )


def _solve(
    law: Law,
    x: np.ndarray,
    logs: np.ndarray,
    start: np.ndarray,
    delta: float,
    scales: np.ndarray | float,
    tolerance: float,
) -> np.ndarray:
    low, high = law.bounds(np.exp(logs))
    each = np.broadcast_to(scales, len(logs))[:, None]
    solution = least_squares(
        lambda theta: (np.log(law.loss(theta, x)) - logs) / scales,
        np.clip(start, low, high),
        jac=lambda theta: law.slopes(theta, x) / each,  # pyright: ignore[reportArgumentType]
        bounds=(low, high),
        loss="huber",
        f_scale=delta,
        x_scale="jac",
        ftol=tolerance,
        xtol=tolerance,
        gtol=tolerance,
        max_nfev=400,
    )
    return np.asarray(solution.x, np.float64)


def stopped_early(law: Law, theta: np.ndarray, x: np.ndarray, losses: np.ndarray) -> str | None:
    """Return how much better parameters lie near those of some optimiser, None if none do.

    The trap of a mean of residuals, or of raw parameters, with default tolerances.
    """
    logs = np.log(losses)
    better = refit(law, theta, x, logs, np.ones((1, len(losses))))[0]
    before, after = (
        float(huber(np.log(law.loss(each, x)) - logs, DELTA).sum()) for each in (theta, better)
    )
    if before <= after * (1 + 1e-4):
        return None
    return (
        f"stopped early: the sum of Huber losses is {before:.6g} and falls to {after:.6g} from "
        "there; minimise the sum, not the mean, of centred factors, with tight tolerances"
    )
