"""Attribute probe: what a frozen user vector says about a label that no log holds.

The probe is fitted on training users, chosen on valid users and scored on test users, whom neither
pretraining nor the probe has seen.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from benchmarks.baselines.probe_head import Probed, probe
from benchmarks.datasets.labels import Labelled
from benchmarks.metrics.bootstrap import Statistic, macro_auroc_of, mean_of
from benchmarks.models import Vectors, user_vectors
from benchmarks.results import Outcome, Slice, Table, measure_rows, per_user_rows
from clue.data.corpus import Corpus

NOTE = (
    "Standardised vector + L2 logistic regression fitted on {train:,} training users, its C chosen "
    "by log loss on {valid:,} valid users ({chosen}); {classes}; popularity = log of the user's "
    "number of events per service; intervals of 95 % over resampled users."
)


def evaluate_attribute(
    corpus: Corpus,
    models: Mapping[str, Vectors],
    labelled: Labelled,
    *,
    name: str,
    resamples: int,
    seed: int,
) -> Outcome:
    """Return the AUROC (macro one-versus-rest for several classes) and accuracy of every row.

    Raises ValueError where a split has no labelled user.
    """
    split = corpus.split[labelled.users]
    train, valid, test = (split == number for number in range(3))
    for mask, called in ((train, "training"), (valid, "valid"), (test, "test")):
        if not mask.any():
            raise ValueError(f"{name}: no {called} user has a label; is the users table complete?")
    labels = labelled.labels
    features = {row: user_vectors(m, corpus, labelled.users) for row, m in models.items()}
    events = [corpus.items_of(s).lengths[labelled.users] for s in range(len(corpus.services))]
    features["popularity"] = np.log1p(np.stack(events, axis=1))
    probed = {
        row: probe((x[train], labels[train]), (x[valid], labels[valid]), x[test])
        for row, x in features.items()
    }
    share = np.bincount(labels[train], minlength=len(labelled.classes)) / train.sum()
    probed["prior"] = Probed(np.tile(share, (int(test.sum()), 1)), 0.0, 0.0)
    told = {row: _statistics(found.probabilities, labels[test]) for row, found in probed.items()}
    users = labelled.users[test]
    rows = measure_rows([Slice(users, told)], resamples=resamples, seed=seed)
    chosen = ", ".join(f"{r} {f.strength:g}" for r, f in probed.items() if r != "prior")
    count = len(labelled.classes)
    table = Table(
        task="attribute",
        part=name,
        users="test alone",
        main=True,
        count=len(users),
        headline=("AUROC",),
        chance={"AUROC": 0.5},
        note=NOTE.format(
            train=int(train.sum()),
            valid=int(valid.sum()),
            chosen=chosen,
            classes="two classes" if count == 2 else f"mean one-versus-rest of {count} classes",
        ),
        rows=rows,
    )
    ids = corpus.user_ids.take(pa.array(users))
    parts = [
        per_user_rows(("attribute", name, row), ids, loss=_log_loss(found, labels[test]))
        for row, found in probed.items()
    ]
    return Outcome([table], pa.concat_tables(parts))


def _statistics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Statistic]:
    right = (probabilities.argmax(1) == labels).astype(np.float64)
    return {"AUROC": macro_auroc_of(probabilities, labels), "accuracy": mean_of(right)}


def _log_loss(found: Probed, labels: np.ndarray) -> np.ndarray:
    """Each user's -log probability of the true class, in nats."""
    return -np.log(np.maximum(found.probabilities[np.arange(len(labels)), labels], 1e-12))
