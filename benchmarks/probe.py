"""The probe of frozen vectors: standardise, then L2-regularised logistic regression.

Its only choice, the regularisation, is made on the valid users; the test users are scored once.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.statistics import macro_auroc_of

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


@dataclass(frozen=True)
class Probed:
    """Class probabilities (n, C) of the test users, the strength C chosen, its AUROC on valid."""

    probabilities: np.ndarray
    strength: float
    valid_auroc: float


def probe(
    train: tuple[np.ndarray, np.ndarray], valid: tuple[np.ndarray, np.ndarray], test: np.ndarray
) -> Probed:
    """Gives the test users' class probabilities of a probe fitted on train, chosen on valid.

    `train` and `valid` are (features (n, F), labels (n,) in 0..C-1); `test` (n, F). Raises
    ValueError where the training users are all of one class.
    """
    features, labels = train
    if len(np.unique(labels)) < 2:
        raise ValueError("the training users all have one label; a probe needs two classes")
    scaler = StandardScaler().fit(features)
    best: tuple[float, float, LogisticRegression] | None = None
    # From strong to weak regularisation, until it has become worse twice: the weakest fits are the
    # slowest by far and on these widths never the best.
    worse = 0
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000, tol=1e-4)
        model.fit(scaler.transform(features), labels)
        score = auroc(model.predict_proba(scaler.transform(valid[0])), valid[1])
        if best is None or score > best[0]:
            best, worse = (score, strength, model), 0
        else:
            worse += 1
        if worse == 2:
            break
    assert best is not None
    score, strength, model = best
    return Probed(model.predict_proba(scaler.transform(test)), strength, score)


def auroc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Gives the AUROC of two classes, or the mean one-versus-rest AUROC of more."""
    return float(macro_auroc_of(probabilities, labels)(np.ones((1, len(labels))))[0])
