"""The probe of k labelled users a class, as MTEB has it: what a vector says with few labels."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

DRAWS = 10


def few_shot(
    train: tuple[np.ndarray, np.ndarray], test: np.ndarray, k: int, *, seed: int = 0
) -> np.ndarray:
    """Return class probabilities (DRAWS, n, C) of logistic regressions (C = 1) on k users a class.

    The features are standardised by all training users, unlabelled.
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
