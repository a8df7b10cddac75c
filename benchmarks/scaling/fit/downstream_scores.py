"""The expected score of a task at a loss of pretraining, from (loss, task, score) of checkpoints.

logit    logit(score) = a - b L: for scores in (0, 1), which saturate at both ends
offset   score = s - k exp(g L): as close to s as the loss allows; an error (1 - score) that
         falls exponentially with the loss to a floor (Gadre et al. 2024, arXiv 2403.08540)
linear   score = a - b L: for scores outside (0, 1), where neither applies
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit, logit

from benchmarks.scaling.fit.law_intervals import Band
from benchmarks.scaling.fit.run_table import read_parquet

Form = Literal["logit", "offset"]
FEWEST, DRAWS = 4, 400
COLUMNS = ("loss", "task", "score")


@dataclass(frozen=True)
class Points:
    """Checkpoints of one task: losses and scores (n,), ascending; their names, "" where unknown."""

    losses: np.ndarray
    scores: np.ndarray
    names: tuple[str, ...] = ()


def read_scores(file: Path) -> dict[str, Points]:
    """Return the points of each task, of a Parquet with columns or a JSON list of objects.

    FileNotFoundError without the file; ValueError for a column that is missing or no number.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no scores {file}; it needs loss, task and score of checkpoints")
    if file.suffix == ".json":
        try:
            rows: Any = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} is no JSON ({error}); write it again") from None
        if not isinstance(rows, list):
            raise ValueError(f"{file} is no list of objects with loss, task and score; write it so")
    else:
        rows = read_parquet(file).to_pylist()
    by_task: dict[str, list[tuple[float, float, str]]] = {}
    for number, row in enumerate(rows, 1):
        missing = [name for name in COLUMNS if name not in row]
        if missing:
            raise ValueError(f"{file}: row {number}, {row}, lacks {missing[0]}; add it")
        for name in ("loss", "score"):
            if type(row[name]) not in (int, float):
                raise ValueError(
                    f"{file}: {name} of row {number} is {row[name]!r}, not a number; correct it"
                )
        name = str(row.get("point", ""))
        by_task.setdefault(str(row["task"]), []).append((row["loss"], row["score"], name))
    columns = {task: list(zip(*sorted(each), strict=True)) for task, each in by_task.items()}
    return {
        task: Points(np.array(losses, float), np.array(scores, float), tuple(map(str, names)))
        for task, (losses, scores, names) in columns.items()
    }


def expected(points: Points, losses: np.ndarray, form: Form, *, seed: int = 0) -> Band:
    """Return the score expected at the losses (R,), draws of one loss whose first is the value.

    At most DRAWS of them are used. Each goes with a resample of the checkpoints and the spread of
    their residuals. ValueError under FEWEST checkpoints, or where all have one loss.
    """
    count = len(points.losses)
    if count < FEWEST or len(np.unique(points.losses)) < 3:
        raise ValueError(
            f"{count} checkpoints of {len(np.unique(points.losses))} losses; a law of scores needs "
            f"{FEWEST} of 3"
        )
    bounded = bool(((points.scores > 0) & (points.scores < 1)).all())
    saturating, curved = bounded and form == "logit", bounded and form == "offset"
    y = logit(points.scores) if saturating else points.scores
    predict = _offset if curved else _line
    whole = predict(points.losses, y, losses[:1])[0]
    free = max(1, count - (3 if curved else 2))
    spread = np.sqrt(((predict(points.losses, y, points.losses) - y) ** 2).sum() / free)
    draw = np.random.default_rng(seed)
    drawn = np.full(min(len(losses), 1 + DRAWS), np.nan)
    for number in range(len(drawn)):
        rows = draw.integers(0, count, count)
        if len(np.unique(points.losses[rows])) >= 3:
            at = predict(points.losses[rows], y[rows], losses[[number]])[0]
            drawn[number] = at + draw.normal(0, spread)
    return Band.of(float(expit(whole)), expit(drawn)) if saturating else Band.of(whole, drawn)


def _line(losses: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    middle = losses.mean()
    return np.polyval(np.polyfit(losses - middle, y, 1), at - middle)


def _offset(losses: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return s - k exp(g (L - mean)) at losses, k and g at least 0, by least squares."""
    middle = losses.mean()
    width = float(np.ptp(losses)) or 1.0
    top, span = float(y.max()), float(np.ptp(y)) or 1e-6

    def curve(theta: np.ndarray, loss: np.ndarray) -> np.ndarray:
        return theta[0] - theta[1] * np.exp(np.minimum(theta[2] * (loss - middle) / width, 50.0))

    solutions: list[Any] = [
        least_squares(
            lambda theta: curve(theta, losses) - y,
            [top + span / 2, span, rate],
            bounds=([-np.inf, 0, 0], [np.inf, np.inf, 20]),
            x_scale=[span, span, 1.0],
        )
        for rate in (0.3, 3.0)
    ]
    return curve(min(solutions, key=lambda solution: solution.cost).x, at)
