"""Does a lower loss of pretraining mean better transfer? Rank correlations over checkpoints."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.metrics.bootstrap import (
    Interval,
    Statistic,
    bootstrap,
    divided,
    spearman_of,
    summary,
)

FEWEST = 3  # of two checkpoints the correlation is 1 or -1 whatever they are


def kendall_of(x: np.ndarray, y: np.ndarray) -> Statistic:
    """Return the statistic "Kendall's tau-b" of values (n,); a point drawn twice ties with itself.

    NaN where all drawn points tie in x or in y.
    """
    right, up = (np.sign(v[:, None] - v[None, :]) for v in (x, y))

    def statistic(weights: np.ndarray) -> np.ndarray:
        both, first, second = (
            np.einsum("ri,ij,rj->r", weights, table, weights)
            for table in (right * up, right**2, up**2)
        )
        return divided(both, np.sqrt(first * second))

    return statistic


def correlations(
    points: Sequence[tuple[float, Mapping[str, float]]],
    lower_is_better: Mapping[str, bool],
    *,
    resamples: int,
    seed: int = 0,
) -> dict[str, dict[str, Interval]]:
    """Return "kendall" and "spearman" of each task with intervals of a bootstrap over checkpoints.

    `points` are (loss of pretraining, the tasks' values) of each checkpoint. Positive means that
    the checkpoint of lower loss transfers better. ValueError under FEWEST checkpoints.
    """
    if len(points) < FEWEST:
        raise ValueError(
            f"{len(points)} checkpoints with a loss; a correlation needs {FEWEST} or more: "
            "train more sizes or lengths of the sweep"
        )
    better = -np.array([loss for loss, _ in points])
    by_task: dict[str, dict[str, Interval]] = {}
    for task, lower in lower_is_better.items():
        values = np.array([each[task] for _, each in points]) * (-1 if lower else 1)
        both = [kendall_of(better, values), spearman_of(better, values)]
        drawn = bootstrap(both, np.arange(len(points)), resamples=resamples, seed=seed)
        by_task[task] = dict(zip(("kendall", "spearman"), summary(*drawn), strict=True))
    return by_task
