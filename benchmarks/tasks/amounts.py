"""How much: a number of each user that the log before a moment does not hold: money to come.

The probe is fitted on users of the training split, chosen on valid ones and scored on those of
test, by R2. A table of a synthetic world has the expectation beside the number; it is the oracle's
answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.baselines.concatenated import beside
from benchmarks.baselines.counts import LogAmounts
from benchmarks.baselines.oracle import ORACLE, Oracle
from benchmarks.baselines.posterior import LogOracle
from benchmarks.baselines.probes import predict
from benchmarks.baselines.representations import FixedScores
from benchmarks.datasets.label_tables import read_table, rows_of
from benchmarks.protocols import Measure, Model, Probe, Scored, TaskBaseline, has_vectors, model_of
from benchmarks.query_columns import history_slice
from benchmarks.snapshot import snapshot_at
from clue.atomic import sha256
from clue.data.corpus import Corpus

MEASURES = {
    "R2": Measure("r2", ("predicted", "truth")),
    "squared error": Measure("mean", ("error",), lower_is_better=True),
}


@dataclass(frozen=True, kw_only=True)
class AmountsConfig:
    """The numbers in `column` of a Parquet `table` with a row for each user_id.

    Events from `cutoff` (epoch seconds) on are not read. `expectation` is a column of what the
    number is expected to be given the truth, and `world` the synthetic world's directory: what a
    log tells of its `spend` is then a row.
    """

    name: str
    table: Path
    column: str
    cutoff: float = np.inf
    expectation: str | None = None
    world: Path | None = None

    def build(self, corpus: Corpus) -> "AmountsTask":
        """Return the task. ValueError for a split without users that have a number."""
        return AmountsTask(self, corpus)


class AmountsTask:
    """A number of users; see `AmountsConfig`."""

    version, family = 1, "amount"
    probes: tuple[Probe, ...] = ("linear",)

    def __init__(self, config: AmountsConfig, corpus: Corpus) -> None:
        """Read the numbers."""
        self.name, self.config, self.corpus = config.name, config, corpus
        truths = [config.column, *([config.expectation] if config.expectation else [])]
        table = read_table(config.table, {"user_id": "id", **dict.fromkeys(truths, "number")})
        ids = pa.chunked_array([corpus.user_ids])
        rows = rows_of(ids, table["user_id"].to_pylist(), f"{config.table}: user_id", corpus)
        users = np.flatnonzero(rows >= 0)
        self.truth, *self.expected = (table[name].to_numpy()[rows[users]] for name in truths)
        split = corpus.split[users]
        self.parts = [np.flatnonzero(split == number) for number in range(3)]
        for part, name in zip(self.parts, ("training", "valid", "test"), strict=True):
            if len(part) < 2:
                raise ValueError(
                    f"{config.name}: {len(part)} {name} users have a {config.column}; is "
                    f"{config.table} complete?"
                )
        self.past = snapshot_at(corpus, users, config.cutoff)
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "table": sha256(config.table),
            "column": config.column,
            "cutoff": config.cutoff if config.cutoff < np.inf else None,
            "users": [len(part) for part in self.parts],
        }

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return what is known of the truth, and sums alone and beside every trained encoder."""
        sums = LogAmounts(self.corpus)
        rows = [
            FixedScores(ORACLE, each, f"{self.config.expectation}-{sha256(self.config.table)[:8]}")
            for each in self.expected
        ]
        if self.config.world is not None:
            reader = LogOracle(Oracle(self.config.world, self.corpus))
            answers = np.zeros(len(self.truth))
            answers[self.parts[2]] = reader.spend(self.past.some(self.parts[2]))
            rows.append(FixedScores(reader.name, answers, f"spend-{reader.fingerprint}"))
        return [*rows, sums, *beside(models, sums)]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return whether the row has vectors of users, or answers of its own."""
        return isinstance(model, FixedScores) or has_vectors(model)

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each user of the test split."""
        (train, valid, test), y = self.parts, self.truth
        chosen: Mapping[str, Any] = {}
        if isinstance(model, FixedScores):
            predicted = model.answers[test]
        else:
            given = model_of(model)
            x = given.users(self.past)
            parts = (x[train], y[train]), (x[valid], y[valid]), x[test]
            result = predict(probe, "number", *parts, width=0, blocks=given.blocks)
            predicted, chosen = result.values, result.chosen
        queries = {
            "user_id": self.corpus.user_ids.take(pa.array(self.past.users[test])),
            "predicted": predicted,
            "truth": y[test],
            "error": np.square(predicted - y[test]),
            "slice history": history_slice(self.past.lengths[test]),
        }
        return Scored(pa.table(queries), MEASURES, chosen)
