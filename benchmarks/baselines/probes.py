"""The probe ladder: the small models that read a frozen vector, the same for every representation.

A probe is fitted on training users; what it chooses it chooses on valid ones, and a probe that
chooses nothing does not see them. Features are standardised by the training users everywhere but in
the trees, which do not ask for it. The linear probe has a penalty for each block of a vector that
is made of several (block_penalties.py); the others read one vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import lightgbm
import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from benchmarks.baselines.block_penalties import (
    ALPHAS,
    NormalEquations,
    Penalties,
    search,
    search_rows,
)
from benchmarks.baselines.network_probe import WIDTH, mlp
from benchmarks.metrics.calibration import class_losses
from benchmarks.protocols import WHOLE, Probe

Part: TypeAlias = tuple[np.ndarray, np.ndarray]  # features (n, F) and what is asked of each row
# A class 0..C-1 (n,), several labels of 0 or 1 (n, L), or a number (n,).
Target: TypeAlias = Literal["class", "labels", "number"]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)  # of a logistic regression
# As pytorch-lifestream (1,000 trees at a rate of .02, .75 of rows and columns), in fewer steps and
# bins: five labels of a shop take 3.5 s of a processor, and 17 s with 300 trees at .05 and 255 bins
# for an AUROC that is .003 lower on aggregates and .002 higher on vectors.
TREES = 150
LIGHTGBM: Mapping[str, Any] = {
    "learning_rate": 0.1,
    "max_bin": 63,
    "num_leaves": 31,
    "min_data_in_leaf": 50,
    "bagging_fraction": 0.75,
    "bagging_freq": 1,
    "feature_fraction": 0.75,
    "num_threads": 1,
    "deterministic": True,
    "force_col_wise": True,
    "seed": 0,
    "verbosity": -1,
}


@dataclass(frozen=True)
class Predicted:
    """What a probe says of n test rows, and what it chose on the valid ones.

    `values` are probabilities of classes (n, C) or of labels (n, L), or numbers (n,).
    """

    values: np.ndarray
    chosen: Mapping[str, Any] = field(default_factory=dict[str, Any])


def predict(
    probe: Probe,
    target: Target,
    train: Part,
    valid: Part,
    test: np.ndarray,
    *,
    blocks: Mapping[str, slice] = WHOLE,
) -> Predicted:
    """Return what "linear", "lightgbm" or "mlp", "mlp-2048" if so wide, says of rows (n, F).

    `blocks` are the columns of each part of the features, by name; "linear" alone heeds them.
    """
    if probe == "linear":
        return linear(train, valid, test, target, blocks)
    if probe == "lightgbm":
        return boosted_trees(train, test, target)
    name, _, width = probe.partition("-")
    if name == "mlp" and (width.isdigit() or not width):
        return Predicted(mlp(train, test, target, width=int(width or WIDTH)))
    raise ValueError(f"no probe {probe!r}; there are linear, lightgbm and mlp")


def linear(
    train: Part,
    valid: Part,
    test: np.ndarray,
    target: Target,
    blocks: Mapping[str, slice] = WHOLE,
) -> Predicted:
    """Fit the main probe: L2 logistic regression of a class, ridge regression of the others.

    Of 50 labels in a shop a ridge takes .6 s and has a mean AUROC of .720, logistic regressions one
    by one take 10 s and have .704.
    """
    if target == "class":
        return blocked_logistic(train, valid, test, blocks)
    if len(blocks) > 1:
        return blocked_ridge(train, valid, test, blocks)
    return ridge(train, valid, test)


def blocked_ridge(
    train: Part, valid: Part, test: np.ndarray, blocks: Mapping[str, slice]
) -> Predicted:
    """Return the numbers (n,) or (n, L) of a ridge with a penalty for each block."""
    x, x_valid, x_test = _standardised(*_doubles(train[0], valid[0], test))
    mean = train[1].mean(0)
    y, y_valid = (_columns(part[1] - mean) for part in (train, valid))
    with threadpool_limits(limits=1):
        equations = NormalEquations((x, y), (x_valid, y_valid), blocks)
        penalties = search(equations)
        values = x_test @ equations.weights(penalties)
    values = values.reshape(len(test), *train[1].shape[1:]) + mean
    return Predicted(values, {"alpha": penalties.alpha, "factors": dict(penalties.factors)})


def blocked_logistic(
    train: Part, valid: Part, test: np.ndarray, blocks: Mapping[str, slice]
) -> Predicted:
    """Return class probabilities (n, C) of a logistic regression with a penalty for each block.

    The factors of several blocks are those of a ridge regression of the classes as columns of 0 and
    1, whose solution is in closed form: a logistic fit of 1,200 columns takes as long as forty of
    its steps. They are taken where the log loss on valid users is less than with every factor at 1.
    """
    x, x_valid, x_test = _standardised(train[0], valid[0], test)
    several = len(blocks) > 1
    tried = [dict.fromkeys(blocks, 1.0)]
    if several:
        chosen = class_penalties((x, train[1]), (x_valid, valid[1]), blocks).factors
        tried += [dict(chosen)] if chosen != tried[0] else []
    best: tuple[Probed, dict[str, float]] | None = None
    for factors in tried:
        factor = Penalties(1.0, factors).of_columns(blocks, x.shape[1]).astype(x.dtype)
        kept = factor > 0
        scaled = [part[:, kept] * factor[kept] for part in (x, x_valid, x_test)]
        fitted = logistic((scaled[0], train[1]), (scaled[1], valid[1]), scaled[2])
        if best is None or fitted.valid_loss < best[0].valid_loss:
            best = fitted, factors
    assert best is not None
    more = {"factors": best[1]} if several else {}
    return Predicted(best[0].probabilities, {"C": best[0].strength, **more})


@dataclass(frozen=True)
class Probed:
    """Class probabilities (n, C) of the test users, the strength C chosen, its loss on valid.

    The choice goes by log loss: by AUROC, which knows no scale, a fit that says next to nothing
    wins whenever it orders the users as well, and is of no use as a probability.
    """

    probabilities: np.ndarray
    strength: float
    valid_loss: float


def logistic(train: Part, valid: Part, test: np.ndarray) -> Probed:
    """Return the L2 logistic regression of features (n, F) on one scale and labels in 0..C-1.

    ValueError where the training users are all of one class.
    """
    (x, labels), (x_valid, valid_labels) = train, valid
    if len(np.unique(labels)) < 2:
        raise ValueError("the training users all have one label; a probe needs two classes")
    best: Probed | None = None
    worse = 0
    # From strong to weak regularisation, each fit from the one before, until it has become worse
    # twice: the weakest fits are the slowest by far and on these widths never the best. One thread:
    # the products are so small that on a busy machine a second one made it ten times slower.
    model = LogisticRegression(max_iter=2000, tol=1e-3, warm_start=True)
    with threadpool_limits(limits=1):
        for strength in STRENGTHS:
            model.set_params(C=strength).fit(x, labels)
            loss = float(class_losses(model.predict_proba(x_valid), valid_labels).mean())
            if best is None or loss < best.valid_loss:
                best, worse = Probed(model.predict_proba(test), strength, loss), 0
            else:
                worse += 1
            if worse == 2:
                break
    assert best is not None
    return best


def class_penalties(train: Part, valid: Part, blocks: Mapping[str, slice]) -> Penalties:
    """Return the penalties of a ridge regression of classes 0..C-1 as columns of 0 and 1.

    Features are standardised; of many training rows `search_rows` are read.
    """
    rows, ones = search_rows(len(train[0])), np.eye(int(train[1].max()) + 1)
    x, x_valid = train[0][rows].astype(np.float64), valid[0].astype(np.float64)
    y, y_valid = ones[train[1][rows]], ones[valid[1]]
    mean, center = y.mean(0), x.mean(0)
    with threadpool_limits(limits=1):
        parts = (x - center, y - mean), (x_valid - center, y_valid - mean)
        return search(NormalEquations(*parts, blocks))


def _standardised(*parts: np.ndarray) -> list[np.ndarray]:
    """Return features standardised by the first part."""
    scaler = StandardScaler().fit(parts[0])
    return [np.asarray(scaler.transform(part)) for part in parts]


def _doubles(*parts: np.ndarray) -> list[np.ndarray]:
    return [part.astype(np.float64) for part in parts]


def _columns(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)


def ridge(train: Part, valid: Part, test: np.ndarray) -> Predicted:
    """Return the numbers (n,) or (n, L) of a ridge of the least squared error on valid rows."""
    x, x_valid, x_test = _standardised(*_doubles(train[0], valid[0], test))
    best: tuple[float, float, np.ndarray] | None = None
    with threadpool_limits(limits=1):
        for alpha in ALPHAS:
            model = Ridge(alpha=alpha).fit(x, train[1])
            loss = float(((model.predict(x_valid) - valid[1]) ** 2).mean())
            if best is None or loss < best[0]:
                best = loss, alpha, model.predict(x_test)
    assert best is not None
    return Predicted(best[2], {"alpha": best[1]})


def boosted_trees(train: Part, test: np.ndarray, target: Target) -> Predicted:
    """Return what TREES trees of LightGBM say, their number and shape fixed; labels one by one."""
    x, y = train
    if target == "labels":
        each = [_trees(x, label, test, {"objective": "binary"}) for label in y.T]
        return Predicted(np.stack(each, axis=1))
    if target == "number":
        return Predicted(_trees(x, y, test, {"objective": "regression"}))
    count = int(y.max()) + 1
    if count > 2:
        return Predicted(_trees(x, y, test, {"objective": "multiclass", "num_class": count}))
    ones = _trees(x, y, test, {"objective": "binary"})
    return Predicted(np.stack([1 - ones, ones], axis=1))


def _trees(
    x: np.ndarray, y: np.ndarray, test: np.ndarray, objective: Mapping[str, Any]
) -> np.ndarray:
    parameters = {**LIGHTGBM, **objective}
    made = lightgbm.train(parameters, lightgbm.Dataset(x, y), num_boost_round=TREES)
    return np.asarray(made.predict(test))
