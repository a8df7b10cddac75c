"""Rivals that are columns of numbers a task makes for its queries, alone or beside a vector."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightgbm
import numpy as np

from benchmarks.baselines.probes import LIGHTGBM, Part, Predicted, linear
from benchmarks.baselines.representations import EncoderModel, FixedScores
from benchmarks.metrics.calibration import log_losses
from benchmarks.protocols import WHOLE, Model, Probe, TaskBaseline, has_vectors, model_of

ROUNDS, PATIENCE = 2000, 50
LEAVES = (7, 15, 31, 63)


class FeatureRows:
    """A row of the table that reads `groups` of its task's columns, and a model's vectors if given.

    It has one `probe`; `seed` is that of the model beside it.
    """

    def __init__(
        self, name: str, groups: tuple[str, ...], probe: Probe, beside: Model | None = None
    ) -> None:
        """Name it by what its answers depend on, but for the task's recipe."""
        self.name, self.groups, self.probe, self.beside = name, groups, probe, beside
        self.seed = beside.seed if beside else 0
        self.fingerprint = "+".join([*([beside.fingerprint] if beside else []), *groups])

    @staticmethod
    def of(row: Model | TaskBaseline, groups: tuple[str, ...]) -> "FeatureRows":
        """Return a rival as it is, and a model of vectors with `groups` beside them."""
        if isinstance(row, FeatureRows):
            return row
        return FeatureRows(row.name, groups, "linear", model_of(row))

    def join(self, made: Mapping[str, np.ndarray], vectors: np.ndarray | None) -> np.ndarray:
        """Return the vectors (n, F), where there are any, and the columns of its groups (n, k)."""
        read = [made[name] for name in self.groups]
        if vectors is None:
            return np.concatenate(read, axis=1)
        return np.concatenate([vectors, *read], axis=1, dtype=vectors.dtype)  # float32: half of it

    def blocks(
        self, made: Mapping[str, np.ndarray], vectors: Mapping[str, slice]
    ) -> Mapping[str, slice]:
        """Return the columns of what `join` makes by block: those of the vectors, each group.

        A vector of one block alone is read as one: its [u, i, u * i] have no penalties apart.
        """
        if self.beside and not self.groups and len(self.beside.blocks) == 1:
            return WHOLE
        blocks = dict(vectors)
        start = max((columns.stop for columns in vectors.values()), default=0)
        for name in self.groups:
            blocks[name] = slice(start, start + made[name].shape[1])
            start = blocks[name].stop
        return blocks


def beside(models: Sequence[Model], groups: tuple[str, ...]) -> list[FeatureRows]:
    """Return every trained encoder with all `groups` beside its vector, "CLUE + aggregates"."""
    trained = [one for one in models if isinstance(one, EncoderModel) and not one.untrained]
    return [FeatureRows(f"{one.name} + aggregates", groups, "linear", one) for one in trained]


def supports(row: Model | TaskBaseline, probe: Probe) -> bool:
    """Return whether a vector is asked, or a rival by its own probe."""
    if isinstance(row, FeatureRows):
        return probe == row.probe
    if isinstance(row, FixedScores):
        return probe == "linear"
    return has_vectors(row) and probe != "lightgbm"


def answers(
    model: Model | TaskBaseline,
    probe: Probe,
    groups: tuple[str, ...],
    columns: Sequence[Mapping[str, np.ndarray]],
    read: Callable[[Model], tuple[Sequence[np.ndarray], Mapping[str, slice]]],
    labels: tuple[np.ndarray, np.ndarray],
) -> Predicted:
    """Return the class probabilities (n, 2) of a row for its task's test queries.

    A model of vectors reads `groups` beside them in the linear probe. `columns` are the groups of
    training, valid and test queries, `labels` those of the first two; `read` gives a model's
    features of the three parts, and their blocks.
    """
    if isinstance(model, FixedScores):
        return Predicted(model.answers)
    row = FeatureRows.of(model, groups if probe == "linear" else ())
    vectors, blocks = read(row.beside) if row.beside else ([None] * 3, {})
    x = [row.join(*each) for each in zip(columns, vectors, strict=True)]
    parts = (x[0], labels[0]), (x[1], labels[1]), x[2]
    if probe == "lightgbm":
        return tuned_trees(*parts)
    return linear(*parts, "class", row.blocks(columns[0], blocks))


def tuned_trees(train: Part, valid: Part, test: np.ndarray) -> Predicted:
    """Return the class probabilities (n, 2) of LightGBM, tuned by log loss on the valid rows.

    Tuned: 7, 15, 31 or 63 leaves at a rate of .05, and the number of trees, up to 2,000.
    """
    best: tuple[float, dict[str, Any], np.ndarray] | None = None
    for leaves in LEAVES:
        learnt = lightgbm.Dataset(*train)
        parameters = {
            **LIGHTGBM,
            "objective": "binary",
            "learning_rate": 0.05,
            "num_leaves": leaves,
        }
        model = lightgbm.train(
            parameters,
            learnt,
            num_boost_round=ROUNDS,
            valid_sets=[learnt.create_valid(*valid)],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        loss = float(log_losses(np.asarray(model.predict(valid[0])), valid[1]).mean())
        if best is None or loss < best[0]:
            chosen = {"leaves": leaves, "trees": model.best_iteration, "valid log loss": loss}
            best = loss, chosen, np.asarray(model.predict(test))
    assert best is not None
    return Predicted(np.stack([1 - best[2], best[2]], axis=1), best[1])
