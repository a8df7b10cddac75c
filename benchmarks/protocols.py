"""The contract of the transfer suite: what a task asks, what a model gives, what a score is.

A *model* is frozen: it gives a vector for what a user did before a moment, and, where it can, a
vector for every item in the same space. A *task* has data, windows, labels and measures, and scores
a model with one of its probes. What comes out holds every query, so that intervals, slices and
paired tests are made afterwards, all from the same lines.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeAlias, TypeGuard, runtime_checkable

import numpy as np
import pyarrow as pa

from benchmarks.metrics.bootstrap import (
    Statistic,
    auroc_of,
    average_precision_of,
    coverage_of,
    gauc_of,
    macro_auroc_of,
    mean_of,
    mean_statistic,
    median_of,
    r2_of,
    ratio_of,
    spearman_of,
)
from benchmarks.metrics.calibration import ece_of, ne_of
from benchmarks.snapshot import Snapshot

Probe: TypeAlias = str  # "zero-shot", "linear", "lightgbm" …, named by the task
Kind: TypeAlias = (
    Literal["mean", "median", "auroc", "macro_auroc", "gauc", "mean_auroc"]
    | Literal["average_precision", "ece", "ne", "r2", "mean_r2", "spearman", "ratio", "coverage"]
)


# The columns of a vector that is read as one.
WHOLE: Mapping[str, slice] = MappingProxyType({"vector": slice(None)})


@runtime_checkable
class PlainModel(Protocol):
    """A row with vectors of users, which a probe can read; by it a row is known for a `Model`."""

    name: str
    seed: int
    fingerprint: str

    def users(self, past: Snapshot) -> np.ndarray:
        """Return vectors (n, E), finite, of n users as of their moments; without events, zeros."""
        ...


class Model(PlainModel, Protocol):
    """A frozen representation of users.

    `name` is its row in the tables, `seed` that of its pretraining, `fingerprint` changes with
    whatever could change a vector.
    """

    @property
    def blocks(self) -> Mapping[str, slice]:
        """The columns of each part of a user's vector by its name, in order, covering all of it.

        A linear probe has a penalty for each. A vector that is read as one is `one_block`.
        """
        ...

    @property
    def similarity(self) -> slice:
        """The columns by whose cosine two vectors of users are compared."""
        ...


@runtime_checkable
class Catalogue(Protocol):
    """A row with vectors of items; of the models counts and CoLES are none."""

    def items(self) -> np.ndarray:
        """Return vectors (num_items, E) of the catalogue, by whose dot product a user's rank items.

        Columns that say nothing of an item are zero.
        """
        ...


class ItemModel(Model, Catalogue, Protocol):
    """A model that has vectors of items beside those of users."""


class TaskBaseline(Protocol):
    """A row that its own task alone can score: a CCA baseline, the truth, or a `Ranker`."""

    name: str
    seed: int
    fingerprint: str


@runtime_checkable
class Ranker(Protocol):
    """A baseline that scores items and has no user vector: popularity, kNN, EASE, iALS."""

    name: str
    seed: int
    fingerprint: str

    def fit(self, train: Snapshot, valid: Snapshot, targets: np.ndarray, service: str) -> None:
        """Learn from the past of all users; tune itself on `valid` pasts and their next items.

        `targets` (n,) are item indices of the corpus.
        """
        ...

    def scores(self, past: Snapshot, items: np.ndarray) -> Iterator[np.ndarray]:
        """Return scores of `items` (m,) for the users of `past`, block by block, (b, m) each."""
        ...


def has_vectors(row: Model | TaskBaseline) -> TypeGuard[Model]:
    """Whether a row is a model; asks no more of it, since its blocks may take a fit to tell."""
    return isinstance(row, PlainModel)


def model_of(row: Model | TaskBaseline) -> Model:
    """Return a row that is a model. TypeError for one without vectors of users."""
    if not has_vectors(row):
        raise TypeError(f"{row.name} has no vectors of users; its task does not support the probe")
    return row


def has_items(row: Model | TaskBaseline) -> TypeGuard[ItemModel]:
    """Whether a row is a model whose vectors rank items; computes none."""
    return has_vectors(row) and isinstance(row, Catalogue)


def items_of(row: Model) -> np.ndarray:
    """Return a model's vectors of items. ValueError for a model without."""
    if not has_items(row):
        raise ValueError(f"{row.name} has no vectors of items to rank by")
    return row.items()


def one_block(width: int) -> Mapping[str, slice]:
    """Return the blocks of a vector (width,) that is read as one."""
    return {"vector": slice(0, width)}


@dataclass(frozen=True)
class Measure:
    """A figure of a task, of `columns` of its queries.

    mean, median    (values)
    auroc           (score, label 0/1), gauc the same within each user, weighted by their queries
    macro_auroc     (list of class scores, class number): mean one-versus-rest
    mean_auroc      (list of scores, list of labels 0/1): the mean over the labels of their AUROC
    average_precision, ece  (probability, label 0/1)
    ne              (log loss in nats, label 0/1): over the entropy of the share of ones
    r2, spearman    (prediction, truth)
    mean_r2         (list of predictions, list of truths): the mean over the quantities of their R2
    ratio           (numerator, denominator): the sum of the one over that of the other
    coverage        (list of items, number of items): the share of all items in some list
    """

    kind: Kind
    columns: tuple[str, ...]
    lower_is_better: bool = False

    def statistic(self, queries: pa.Table) -> Statistic:
        """Return the figure as a function of weights over the queries, for the bootstrap."""
        columns = [_array(queries[name]) for name in self.columns]
        if self.kind == "gauc":
            users = queries["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
            return gauc_of(columns[0], columns[1] > 0.5, users)
        made: Mapping[str, Any] = {
            "mean": mean_of,
            "median": median_of,
            "auroc": lambda score, label: auroc_of(score, label > 0.5),
            "macro_auroc": lambda scores, label: macro_auroc_of(scores, label.astype(np.int64)),
            "mean_auroc": lambda scores, labels: mean_statistic(
                [auroc_of(*pair) for pair in zip(scores.T, labels.T > 0.5, strict=True)]
            ),
            "average_precision": lambda score, label: average_precision_of(score, label > 0.5),
            "ece": ece_of,
            "ne": ne_of,
            "r2": r2_of,
            "mean_r2": lambda predicted, true: mean_statistic(
                [r2_of(*pair) for pair in zip(predicted.T, true.T, strict=True)]
            ),
            "spearman": spearman_of,
            "ratio": ratio_of,
            "coverage": lambda lists, items: coverage_of(lists.astype(np.int64), int(items[0])),
        }
        return made[self.kind](*columns)


@dataclass(frozen=True)
class Scored:
    """A model's answers to a task.

    `queries` has a line for each query: `user_id`, the columns of the measures, and, under names
    that begin with "slice ", the slice that the query is in. The first measure is the main one.
    `chosen` says what the probe chose on the valid users, such as its regularisation.
    """

    queries: pa.Table
    measures: Mapping[str, Measure]
    chosen: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        """Refuse a score that is not finite: it would pass for a good or a bad one."""
        for measure in self.measures.values():
            for name in measure.columns:
                if not np.isfinite(_array(self.queries[name])).all():
                    raise ValueError(f"{name} holds NaN or infinity; did the model diverge?")


class Task(Protocol):
    """A task, its data read and its labels made.

    `name` is unique in a suite, "retail/churn"; another `version` is another task. `family` is its
    kind in the tables ("churn"). `probes` are named in order, the first is the main one. `recipe`
    is all that decides its queries and labels.
    """

    name: str
    version: int
    family: str
    probes: tuple[Probe, ...]
    recipe: Mapping[str, Any]

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return the baselines that this task alone has: aggregates of sales, popularity, EASE …

        `models` are those that every task is given, for a baseline that stands beside one of them.
        """
        ...

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Whether the probe applies: a zero-shot one needs item vectors, a Ranker no probe."""
        ...

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return the model's answers; the test labels are looked at once, after every choice."""
        ...


def _array(column: pa.ChunkedArray) -> np.ndarray:
    whole = column.combine_chunks()
    if pa.types.is_fixed_size_list(whole.type):
        width = whole.type.list_size
        return whole.flatten().to_numpy(zero_copy_only=False).reshape(-1, width).astype(np.float64)
    return whole.to_numpy(zero_copy_only=False).astype(np.float64)
