"""Attribute probe: what a frozen user vector says about a label that no log holds.

The probe is fitted on training users, chosen on valid users and scored on test users, whom neither
pretraining nor the probe has seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.baselines.probe_head import Probed, probe
from benchmarks.metrics.bootstrap import Statistic, macro_auroc_of, mean_of
from benchmarks.models import Vectors, user_vectors
from benchmarks.results import Outcome, Slice, Table, measure_rows, per_user_rows
from clue.data.corpus import Corpus

NOTE = (
    "Standardised vector + L2 logistic regression fitted on {train:,} training users, its C chosen "
    "by log loss on {valid:,} valid users ({chosen}); {classes}; popularity = log of the user's "
    "number of events per service; intervals of 95 % over resampled users."
)


@dataclass(frozen=True)
class Labelled:
    """Users with a known label: corpus indices (n,), labels (n,) as indices into `classes`."""

    users: np.ndarray
    labels: np.ndarray
    classes: list[str]


def read_labels(corpus: Corpus, file: Path, column: str) -> Labelled:
    """Return the labels of the corpus' users from a Parquet table with `user_id` and `column`.

    Users without a row or with a null label are left out, and so are labels that no training user
    has. Raises FileNotFoundError without the file and ValueError naming a missing column, a user
    with two rows, or a label that fewer than two classes of training users carry.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no users table {file}; it needs the columns user_id and {column}")
    names = pq.read_schema(file).names
    for needed in ("user_id", column):
        if needed not in names:
            raise ValueError(f"{file}: no column {needed!r}; there are {', '.join(names)}")
    table = pq.read_table(file, columns=["user_id", column])
    ids, values = (table[name].cast(pa.string()).to_pylist() for name in ("user_id", column))
    label_of = dict(zip(ids, values, strict=True))
    if len(label_of) < len(ids):
        raise ValueError(f"{file}: a user_id has more than one row; give one label per user")
    mine = [label_of.get(user) for user in corpus.user_ids.to_pylist()]
    trains = corpus.split == 0
    classes = sorted({v for v, train in zip(mine, trains, strict=True) if train and v is not None})
    if len(classes) < 2:
        raise ValueError(
            f"{file}: the training users carry {len(classes)} different values of {column!r}; "
            "a probe needs two, and the user_id of the table must be those of the event log"
        )
    number = {value: at for at, value in enumerate(classes)}
    users = np.array([u for u, value in enumerate(mine) if value in number])
    return Labelled(users, np.array([number[mine[u]] for u in users]), classes)


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
