"""The probe of frozen vectors: standardise, then L2-regularised logistic regression.

Its only choice, the regularisation, is made on the valid users; the test users are scored once.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from benchmarks.metrics.calibration import class_losses

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


@dataclass(frozen=True)
class Probed:
    """Class probabilities (n, C) of the test users, the strength C chosen, its loss on valid.

    The choice goes by log loss: by AUROC, which knows no scale, a fit that says next to nothing
    wins whenever it orders the users as well, and is of no use as a probability.
    """

    probabilities: np.ndarray
    strength: float
    valid_loss: float


def probe(
    train: tuple[np.ndarray, np.ndarray], valid: tuple[np.ndarray, np.ndarray], test: np.ndarray
) -> Probed:
    """Return the test users' class probabilities of a probe fitted on train, chosen on valid.

    `train` and `valid` are (features (n, F), labels (n,) in 0..C-1); `test` (n, F). Raises
    ValueError where the training users are all of one class.
    """
    scaler = StandardScaler().fit(train[0])
    x, x_valid, x_test = (np.asarray(scaler.transform(each)) for each in (train[0], valid[0], test))
    return standardised((x, train[1]), (x_valid, valid[1]), x_test)


def standardised(
    train: tuple[np.ndarray, np.ndarray], valid: tuple[np.ndarray, np.ndarray], test: np.ndarray
) -> Probed:
    """Return what `probe` does of features that are on one scale already; raises the same."""
    (x, labels), (x_valid, valid_labels), x_test = train, valid, test
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
                best, worse = Probed(model.predict_proba(x_test), strength, loss), 0
            else:
                worse += 1
            if worse == 2:
                break
    assert best is not None
    return best
