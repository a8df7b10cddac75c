"""Measures of a ranking within each impression: AUC, MRR, NDCG@k of what was shown together.

Every one is its expectation over a random order of equal scores, so that constant scores are
chance. As in MIND (Wu et al. 2020, "MIND: A Large-scale Dataset for News Recommendation"): MRR is
the mean of 1 / rank over the clicked items, NDCG has gains of 0 and 1.
"""

import numpy as np


def within(scores: np.ndarray, labels: np.ndarray, offsets: np.ndarray) -> dict[str, np.ndarray]:
    """Return "auc", "mrr", "ndcg_5" and "ndcg_10" of each impression, (I,) each.

    `scores` and `labels` (n,), 0 or 1, are of all impressions, one after another; impression i is
    offsets[i]:offsets[i + 1]. ValueError for one without items of both labels.
    """
    count = np.diff(offsets)
    row = np.repeat(np.arange(len(count)), count)
    order = np.lexsort((-scores, row))  # rows stay together, best first
    score, label = scores[order], labels[order].astype(np.float64)
    ones = np.bincount(row, label, minlength=len(count))
    if not ((ones > 0) & (ones < count)).all():
        raise ValueError("an impression has no clicked item, or no other; leave it out")
    position = np.arange(len(row)) - offsets[row]
    new = np.r_[True, (score[1:] != score[:-1]) | (row[1:] != row[:-1])]
    tie = np.cumsum(new) - 1
    size = np.bincount(tie)

    def gained(gain: np.ndarray) -> np.ndarray:
        """Sum the mean gain of its tie over the clicked items of each impression."""
        mean = np.bincount(tie, gain) / size
        return np.bincount(row, label * mean[tie], minlength=len(count))

    rank = gained(position + 1.0)  # the sum of the clicked items' expected ranks
    measures = {
        "auc": 1 - (rank - ones * (ones + 1) / 2) / (ones * (count - ones)),
        "mrr": gained(1 / (position + 1)) / ones,
    }
    for k in (5, 10):
        ideal = np.r_[0, np.cumsum(1 / np.log2(np.arange(k) + 2))]
        gain = np.where(position < k, 1 / np.log2(position + 2), 0)
        measures[f"ndcg_{k}"] = gained(gain) / ideal[np.minimum(ones.astype(int), k)]
    return measures
