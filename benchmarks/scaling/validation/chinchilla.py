"""The surface of Chinchilla's runs beside what Epoch found, and the trap on the way to it.

Besiroglu et al. 2024, "Chinchilla Scaling: A replication attempt" (arXiv 2404.10102).
"""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from benchmarks.scaling.fit.law_intervals import bootstrap
from benchmarks.scaling.fit.laws import Law, PowerLaw
from benchmarks.scaling.fit.least_squares import DELTA, described, fit, huber, stopped_early
from benchmarks.scaling.fit.selection import Sample
from benchmarks.scaling.validation.published import chinchilla, expected

# What Epoch's notebook found, and the runs of the coverage study are drawn from.
TRUTH = {"E": 1.8172, "A_N": 477.84, "a_N": 0.34731, "A_D": 2143.86, "a_D": 0.36718}
NAMES = {"A": "A_N", "B": "A_D", "E": "E", "alpha": "a_N", "beta": "a_D"}


def chinchilla_study(folder: Path, *, starts: int, resamples: int, seed: int) -> dict[str, Any]:
    """Return the surface of the 240 runs beside Epoch's numbers."""
    known = expected(folder)["epoch_chinchilla"]
    sample = chinchilla(folder)
    surface = fit(PowerLaw.on(sample.factors, sample.x), sample.x, sample.losses, most=starts)
    drawn = bootstrap(surface, sample, resamples=resamples, seed=seed)
    ours = drawn.coefficients()
    notebook = known["huber_delta_1e-3_sum"]["published_notebook"]
    paper, interval = known["published_paper_fit_with_scale"], known["published_bootstrap95_4000"]
    return {
        "runs": len(sample),
        "objective": {"ours": surface.objective, "published": notebook["objective"]},
        "coefficients": {
            name: {
                "ours": ours[key],
                "published": notebook[name],
                "published, scale fitted too": paper[name],
                "published standard error": paper["se"][name],
                "published 95 %": interval[name],
                "inside the published 95 %": (
                    interval[name][0] <= ours[key].value <= interval[name][1]
                ),
            }
            for name, key in NAMES.items()
        },
        "starts": surface.starts,
        "agreeing": surface.agreeing,
        "condition": surface.condition,
        "flags": surface.flags,
        "mean reduction, default tolerances": mean_trap(sample, surface.theta),
    }


def named(law: Law, theta: np.ndarray) -> dict[str, float]:
    """Return A, B, E, alpha and beta."""
    coefficients = law.coefficients(theta)
    return {name: coefficients[key] for name, key in NAMES.items()}


def mean_trap(sample: Sample, right: np.ndarray) -> dict[str, Any]:
    """Return what the mean of the losses, raw parameters and default tolerances end at, flagged.

    Parameters are log A, log B, log E, alpha, beta; the start is the best but for a digit.
    """
    law = PowerLaw.on(sample.factors, sample.x)
    best = named(law, right)
    logs = np.log(sample.losses)

    def theta_of(raw: np.ndarray) -> np.ndarray:
        a, b, e, alpha, beta = raw
        published = {"E": np.exp(e), "A_N": np.exp(a), "A_D": np.exp(b), "a_N": alpha, "a_D": beta}
        return law.parameters(published)

    def mean(raw: np.ndarray) -> float:
        return float(huber(np.log(law.loss(theta_of(raw), sample.x)) - logs, DELTA).mean())

    start = np.array([np.log(best["A"]) + 1, np.log(best["B"]) - 1, 0.5, 0.4, 0.3])
    ended = theta_of(np.asarray(minimize(mean, start, method="L-BFGS-B").x))
    return {
        "coefficients": named(law, ended),
        "objective": described(law, ended, sample.x, sample.losses).objective,
        "flag": stopped_early(law, ended, sample.x, sample.losses),
    }
