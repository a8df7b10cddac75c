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
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional

from benchmarks.baselines.block_penalties import (
    ALPHAS,
    NormalEquations,
    Penalties,
    search,
    search_rows,
)
from benchmarks.baselines.probe_head import Probed, standardised
from benchmarks.baselines.probe_head import probe as logistic
from benchmarks.protocols import WHOLE, Probe

Part: TypeAlias = tuple[np.ndarray, np.ndarray]  # features (n, F) and what is asked of each row
# A class 0..C-1 (n,), several labels of 0 or 1 (n, L), or a number (n,).
Target: TypeAlias = Literal["class", "labels", "number"]

DRAWS = 10
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
    width: int,
    blocks: Mapping[str, slice] = WHOLE,
) -> Predicted:
    """Return what "linear", "lightgbm" or "mlp" (of `width`) says of the test rows (n, F).

    `blocks` are the columns of each part of the features, by name; "linear" alone heeds them.
    """
    if probe == "linear":
        return linear(train, valid, test, target, blocks)
    if probe == "lightgbm":
        return boosted_trees(train, test, target)
    if probe == "mlp":
        return mlp(train, test, target, width=width)
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
        if len(blocks) > 1:
            return blocked_logistic(train, valid, test, blocks)
        fitted = logistic(train, valid, test)
        return Predicted(fitted.probabilities, {"C": fitted.strength})
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
    return Predicted(
        values.reshape(len(test), *train[1].shape[1:]) + mean, _chosen("alpha", penalties)
    )


def blocked_logistic(
    train: Part, valid: Part, test: np.ndarray, blocks: Mapping[str, slice]
) -> Predicted:
    """Return class probabilities (n, C) of a logistic regression with a penalty for each block.

    The factors are those of a ridge regression of the classes as columns of 0 and 1, whose solution
    is in closed form: a logistic fit of 1,200 columns takes as long as forty of its steps. They are
    taken where the log loss on valid users is less than with every factor at 1.
    """
    x, x_valid, x_test = _standardised(train[0], valid[0], test)
    penalties = class_penalties((x, train[1]), (x_valid, valid[1]), blocks)
    ones = dict.fromkeys(blocks, 1.0)
    best: tuple[Probed, Mapping[str, float]] | None = None
    for factors in [ones, *([penalties.factors] if penalties.factors != ones else [])]:
        factor = Penalties(1.0, factors).of_columns(blocks, x.shape[1]).astype(x.dtype)
        kept = factor > 0
        scaled = [part[:, kept] * factor[kept] for part in (x, x_valid, x_test)]
        fitted = standardised((scaled[0], train[1]), (scaled[1], valid[1]), scaled[2])
        if best is None or fitted.valid_loss < best[0].valid_loss:
            best = fitted, factors
    assert best is not None
    return Predicted(best[0].probabilities, {"C": best[0].strength, "factors": dict(best[1])})


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


def _chosen(strength: str, penalties: Penalties) -> dict[str, Any]:
    return {strength: penalties.alpha, "factors": dict(penalties.factors)}


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


class Mlp(nn.Module):
    """The fixed network that RecSys Challenge 2025 (Synerise) reads every vector with.

    A projection to `width` (2,048 there), three inverted bottlenecks of twice that, each behind a
    LayerNorm and with a residual, and a linear output.
    """

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        """Build it for `inputs` F features and `outputs` O."""
        super().__init__()
        self.project = nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.GELU(),
                nn.Linear(2 * width, width),
            )
            for _ in range(3)
        )
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, O) of features (B, F)."""
        x = self.project(x)
        for block in self.blocks:
            x = x + block(x)
        return self.output(x)


def mlp(
    train: Part, test: np.ndarray, target: Target, *, width: int, epochs: int = 3, seed: int = 0
) -> Predicted:
    """Return what `Mlp` says after its last epoch: AdamW at 1e-3 on batches of 128."""
    scaler = StandardScaler().fit(train[0])
    x, x_test = (
        torch.from_numpy(np.asarray(scaler.transform(each), np.float32))
        for each in (train[0], test)
    )
    y, outputs, mean, spread = _targets(train[1], target)
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Mlp(x.shape[1], outputs, width).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(128):
                loss = _loss(model(x[rows].to(device)), y[rows].to(device), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    with torch.no_grad():
        predicted = torch.cat([model(rows.to(device)).cpu() for rows in x_test.split(4096)])
    if target == "number":
        return Predicted(predicted[:, 0].numpy() * spread + mean)
    return Predicted((predicted.softmax(1) if target == "class" else predicted.sigmoid()).numpy())


def _targets(y: np.ndarray, target: Target) -> tuple[torch.Tensor, int, float, float]:
    """Return the target of the loss, the width of the output, and mean and spread of a number."""
    if target == "class":
        return torch.from_numpy(y.astype(np.int64)), int(y.max()) + 1, 0.0, 1.0
    if target == "labels":
        return torch.from_numpy(y.astype(np.float32)), y.shape[1], 0.0, 1.0
    mean, spread = float(y.mean()), max(float(y.std()), 1e-12)
    return torch.from_numpy(((y - mean) / spread).astype(np.float32))[:, None], 1, mean, spread


def _loss(outputs: torch.Tensor, y: torch.Tensor, target: Target) -> torch.Tensor:
    if target == "class":
        return functional.cross_entropy(outputs, y)
    if target == "labels":
        return functional.binary_cross_entropy_with_logits(outputs, y)
    return functional.mse_loss(outputs, y)


def few_shot(train: Part, test: np.ndarray, k: int, *, seed: int = 0) -> np.ndarray:
    """Return class probabilities (DRAWS, n, C) of logistic regressions (C = 1) on k users a class.

    As MTEB does, with 10 draws; the features are standardised by all training users, unlabelled.
    """
    scaler = StandardScaler().fit(train[0])
    x, x_test = scaler.transform(train[0]), scaler.transform(test)
    draws: list[np.ndarray] = []
    with threadpool_limits(limits=1):
        for draw in range(DRAWS):
            rows = shots(train[1], k, np.random.default_rng([seed, draw]))
            model = LogisticRegression(C=1.0, max_iter=2000).fit(x[rows], train[1][rows])
            draws.append(model.predict_proba(x_test))
    return np.stack(draws)


def shots(labels: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return rows of k users of each class in `labels` (n,), all of a class that has fewer."""
    each = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.concatenate([rng.permutation(rows)[:k] for rows in each])
