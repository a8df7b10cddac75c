"""What a vector says of a user that no log holds: gender, age, whether they leave, money to come.

The probe is fitted on users of the training split, chosen on valid ones and scored on those of
test, whom pretraining has not read. The past is all that they did, or what they did before a
moment. A table of a synthetic world has the truth that its labels were drawn from beside them:
probabilities, or the expectation of an amount. They are the oracle's answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.baselines.concatenated import beside
from benchmarks.baselines.counts import ItemCounts, LogAmounts, LogCounts
from benchmarks.baselines.few_shot import few_shot
from benchmarks.baselines.oracle import ORACLE, Oracle
from benchmarks.baselines.posterior import LogOracle
from benchmarks.baselines.probes import Target, predict
from benchmarks.baselines.representations import FixedScores, class_shares
from benchmarks.datasets.label_tables import read_amounts, read_labels, rows_of
from benchmarks.metrics.calibration import class_losses
from benchmarks.protocols import Measure, Model, Probe, Scored, TaskBaseline, has_vectors, model_of
from benchmarks.query_columns import history_slice, matrix
from benchmarks.snapshot import snapshot_at
from clue.atomic import sha256
from clue.data.corpus import Corpus

MEASURES: Mapping[Target, Mapping[str, Measure]] = {
    "class": {
        "AUROC": Measure("macro_auroc", ("scores", "label")),
        "log loss": Measure("mean", ("loss",), lower_is_better=True),
        "accuracy": Measure("mean", ("right",)),
    },
    "number": {
        "R2": Measure("r2", ("predicted", "truth")),
        "squared error": Measure("mean", ("error",), lower_is_better=True),
    },
}
# One column for each class of each draw, so that the mean AUROC is that over the draws.
SHOT_MEASURES = {
    "AUROC": Measure("mean_auroc", ("scores", "labels")),
    "accuracy": MEASURES["class"]["accuracy"],
}


@dataclass(frozen=True, kw_only=True)
class AttributesConfig:
    """The `column` of a Parquet `table` with a row for each user_id; a number in an amount.

    The `bag` items most common among training users are the baseline's features: of the gender of
    ML-1M's users 1,000 say .834 (AUROC), 300 .784 and 100 .733; with 0 it counts events by service
    and nothing of what, and of an amount it also sums all numeric fields. Events from `cutoff`
    (epoch seconds) on are not read. `truth` is a column of the table that holds what the label was
    drawn from: the probability of "true", a list of those of the classes 0, 1 ..., or the
    expectation of an amount. `world` is the directory of the synthetic world that the labels are
    of: what a log tells of them is then a row. `family` is the task's kind in the tables.
    """

    name: str
    table: Path
    column: str
    bag: int = 1000
    cutoff: float = np.inf
    truth: str | None = None
    world: Path | None = None
    family: Literal["attribute", "churn", "amount"] = "attribute"

    def build(self, corpus: Corpus) -> "AttributesTask":
        """Return the task. ValueError for labels that no split or one class alone has."""
        return AttributesTask(self, corpus)


class AttributesTask:
    """A label or a number of users; see `AttributesConfig`."""

    version = 2  # 2: log loss beside AUROC and accuracy
    probes: tuple[Probe, ...] = ("linear", "lightgbm", "mlp", "8-shot", "16-shot", "32-shot")

    def __init__(self, config: AttributesConfig, corpus: Corpus) -> None:
        """Read the labels."""
        self.name, self.family = config.name, config.family
        self.config, self.corpus = config, corpus
        self.target: Target = "number" if config.family == "amount" else "class"
        read = read_amounts if self.target == "number" else read_labels
        self.labelled = read(corpus, config.table, config.column)
        split = corpus.split[self.labelled.users]
        self.parts = [np.flatnonzero(split == number) for number in range(3)]
        for rows, part in zip(self.parts, ("training", "valid", "test"), strict=True):
            if not len(rows):
                raise ValueError(
                    f"{config.name}: no {part} user has a {config.column}; is {config.table} "
                    "complete?"
                )
        self.past = snapshot_at(corpus, self.labelled.users, config.cutoff)
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "table": sha256(config.table),
            "column": config.column,
            "classes": self.labelled.classes,
            "users": [len(rows) for rows in self.parts],
            **({"cutoff": config.cutoff} if config.cutoff < np.inf else {}),
        }
        self._vectors = lru_cache(maxsize=1)(self._read)

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return the oracles where there are some, counts, and each class' share.

        The counts stand alone and beside every trained encoder.
        """
        config, corpus, users = self.config, self.corpus, self.labelled.users
        counts = LogAmounts(corpus) if self.target == "number" else LogCounts(corpus)
        if config.bag and self.target == "class":
            counts = ItemCounts(corpus, users[self.parts[0]], config.bag)
        fixed: list[FixedScores] = []
        if self.target == "class":
            prior = class_shares(self.labelled.labels, corpus.split[users])
            fixed = [FixedScores("prior", prior, corpus.fingerprint)]
        truths = [self._truth(config.truth)] if config.truth else []
        if config.world is not None:
            truths.append(self._of_the_log(Oracle(config.world, corpus)))
        return [*truths, counts, *beside(models, counts), *fixed]

    def _truth(self, column: str) -> FixedScores:
        """Return the oracle, whose answers are the truth of the labelled users."""
        # The synthetic world's own file: a probability, a list of one for each class, or a number.
        table = pq.read_table(self.config.table, columns=["user_id", column])
        ids = self.corpus.user_ids.take(pa.array(self.labelled.users))
        known = table["user_id"].to_pylist()
        rows = rows_of(pa.chunked_array([ids]), known, "user_id", self.corpus)
        values = table[column].combine_chunks().take(pa.array(rows))
        if pa.types.is_floating(values.type):
            each = values.to_numpy()
            each = each if self.target == "number" else np.stack([1 - each, each], axis=1)
        else:
            lists = values.flatten().to_numpy().reshape(len(values), -1)
            each = lists[:, [int(name) for name in self.labelled.classes]]
        return FixedScores(ORACLE, each, f"{column}-{sha256(self.config.table)[:8]}")

    def _of_the_log(self, truth: Oracle) -> FixedScores:
        """Return what the log tells of the test users, whose labels are of the synthetic world."""
        reader, test = LogOracle(truth), self.parts[2]
        answer = {"attribute": reader.attributes, "churn": reader.churn, "amount": reader.spend}
        each = answer[self.config.family](self.past.some(test))
        answers = np.zeros((len(self.labelled.users), *each.shape[1:]))
        answers[test] = each
        return FixedScores(reader.name, answers, f"{self.config.family}-{reader.fingerprint}")

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Whether the model has vectors of users; the oracle and the prior need but one probe."""
        if isinstance(model, FixedScores):
            return probe == "linear"
        return has_vectors(model) and (self.target == "class" or "shot" not in probe)

    def _read(self, model: Model) -> np.ndarray:
        return model.users(self.past)

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each labelled user of the test split."""
        train, valid, test = self.parts
        y = self.labelled.labels
        if isinstance(model, FixedScores):
            return self._scored(_columns(self.target, model.answers[test], y[test]), {})
        given = model_of(model)
        x = self._vectors(given)
        if probe.endswith("-shot"):
            draws = few_shot((x[train], y[train]), x[test], int(probe.split("-")[0]))
            return self._scored(_of_draws(draws, y[test]), {}, SHOT_MEASURES)
        parts = (x[train], y[train]), (x[valid], y[valid]), x[test]
        predicted = predict(probe, self.target, *parts, blocks=given.blocks)
        columns = _columns(self.target, predicted.values, y[test])
        return self._scored(columns, predicted.chosen)

    def _scored(
        self,
        columns: Mapping[str, Any],
        chosen: Mapping[str, Any],
        measures: Mapping[str, Measure] | None = None,
    ) -> Scored:
        """Return the queries of the test users, of these columns."""
        test = self.parts[2]
        queries = {
            "user_id": self.corpus.user_ids.take(pa.array(self.labelled.users[test])),
            **columns,
            "slice history": history_slice(self.past.lengths[test]),
        }
        return Scored(pa.table(queries), measures or MEASURES[self.target], chosen)


def _columns(target: Target, values: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return the columns of class probabilities (n, C) or numbers (n,) and their truth (n,)."""
    if target == "number":
        return {"predicted": values, "truth": labels, "error": np.square(values - labels)}
    right, loss = values.argmax(1) == labels, class_losses(values, labels)
    return {"scores": matrix(values), "label": labels, "right": right, "loss": loss}


def _of_draws(draws: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return the columns of `draws` (D, n, C) of class probabilities of rows of `labels` (n,)."""
    count, _, classes = draws.shape
    # Of two classes one is enough: the other's AUROC is the same.
    kept = np.arange(classes) if classes > 2 else np.array([1])
    one_hot = (labels[:, None] == kept).astype(np.float32)
    return {
        "scores": matrix(np.concatenate(list(draws[:, :, kept]), axis=1)),
        "labels": matrix(np.tile(one_hot, count)),
        "right": (draws.argmax(2) == labels).mean(0),
    }
