"""What a vector says of a user that no log holds: gender, age, occupation.

The probe is fitted on users of the training split, chosen on valid ones and scored on those of
test, whom pretraining has not read. The past is all that they did.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from benchmarks.baselines.probes import few_shot, predict
from benchmarks.baselines.representations import ConstantBaseline
from benchmarks.datasets.label_tables import read_labels
from benchmarks.protocols import (
    Measure,
    Model,
    Probe,
    Scored,
    TaskBaseline,
    history_slice,
    matrix,
)
from benchmarks.snapshot import Snapshot, snapshot_at
from clue.atomic import sha256
from clue.data.corpus import Corpus

MEASURES = {
    "AUROC": Measure("macro_auroc", ("scores", "label")),
    "accuracy": Measure("mean", ("right",)),
}
# One column for each class of each draw, so that the mean AUROC is that over the draws.
SHOT_MEASURES = {**MEASURES, "AUROC": Measure("mean_auroc", ("scores", "labels"))}


@dataclass(frozen=True, kw_only=True)
class AttributesConfig:
    """The `column` of a Parquet `table` with a row for each user_id.

    The `bag` items most common among training users are the baseline's features: of the gender of
    ML-1M's users 1,000 say .834 (AUROC), 300 .784 and 100 .733. `mlp_width` is that of the
    published probe.
    """

    name: str
    table: Path
    column: str
    bag: int = 1000
    mlp_width: int = 2048

    def build(self, corpus: Corpus) -> "AttributesTask":
        """Return the task. ValueError for labels that no split or one class alone has."""
        return AttributesTask(self, corpus)


class ItemCounts:
    """The logarithms of how often a user met each of the most common items, and of all."""

    name, seed = "item counts", 0

    def __init__(self, corpus: Corpus, users: np.ndarray, count: int) -> None:
        """The `count` items that `users` met most are counted."""
        met = np.zeros(corpus.num_items, np.int64)
        for service in range(len(corpus.services)):
            values = corpus.items_of(service).take(users).values
            met += np.bincount(values, minlength=corpus.num_items)
        self.counted = np.argsort(-met, kind="stable")[: min(count, int((met > 0).sum()))]
        self.fingerprint = f"item-counts-{count}-{len(users)}-{corpus.fingerprint}"

    def users(self, past: Snapshot) -> np.ndarray:
        """Return (n, count + 1)."""
        shape = (len(past), past.corpus.num_items)
        bag = csr_matrix(shape)
        for items, _ in past.parts:
            bag += csr_matrix((np.ones(len(items.values)), items.values, items.offsets), shape)
        counts = bag.tocsc()[:, self.counted].toarray()
        return np.log1p(np.c_[counts, past.lengths]).astype(np.float32)

    def items(self) -> None:
        """Return None: it has no items."""
        return None


class AttributesTask:
    """A label of users; see `AttributesConfig`."""

    version, family = 1, "attribute"
    probes: tuple[Probe, ...] = ("linear", "lightgbm", "mlp", "8-shot", "16-shot", "32-shot")

    def __init__(self, config: AttributesConfig, corpus: Corpus) -> None:
        """Reads the labels."""
        self.name, self.config, self.corpus = config.name, config, corpus
        self.labelled = read_labels(corpus, config.table, config.column)
        split = corpus.split[self.labelled.users]
        self.parts = [np.flatnonzero(split == number) for number in range(3)]
        for rows, part in zip(self.parts, ("training", "valid", "test"), strict=True):
            if not len(rows):
                raise ValueError(
                    f"{config.name}: no {part} user has a label; is {config.table} complete?"
                )
        self.past = snapshot_at(corpus, self.labelled.users)
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "table": sha256(config.table),
            "column": config.column,
            "classes": self.labelled.classes,
            "users": [len(rows) for rows in self.parts],
            "mlp_width": config.mlp_width,
        }
        self._vectors = lru_cache(maxsize=1)(self._read)

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return the counts of common items, and the control that knows nothing."""
        train = self.labelled.users[self.parts[0]]
        return [ItemCounts(self.corpus, train, self.config.bag), ConstantBaseline()]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Says yes to every model that has vectors of users; the prior needs but one probe."""
        return hasattr(model, "users") and (
            probe == "linear" or not isinstance(model, ConstantBaseline)
        )

    def _read(self, model: Model) -> np.ndarray:
        return model.users(self.past)

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each labelled user of the test split."""
        x, y = self._vectors(model), self.labelled.labels  # pyright: ignore[reportArgumentType]
        train, valid, test = self.parts
        chosen: Mapping[str, Any] = {}
        if probe.endswith("-shot"):
            draws = few_shot((x[train], y[train]), x[test], int(probe.split("-")[0]))
            columns, measures = _of_draws(draws, y[test]), SHOT_MEASURES
        else:
            parts = (x[train], y[train]), (x[valid], y[valid]), x[test]
            found = predict(probe, "class", *parts, width=self.config.mlp_width)
            right = found.values.argmax(1) == y[test]
            columns = {"scores": matrix(found.values), "label": y[test], "right": right}
            measures, chosen = MEASURES, found.chosen
        queries = {
            "user_id": self.corpus.user_ids.take(pa.array(self.labelled.users[test])),
            **columns,
            "slice history": history_slice(self.past.lengths[test]),
        }
        return Scored(pa.table(queries), measures, chosen)


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
