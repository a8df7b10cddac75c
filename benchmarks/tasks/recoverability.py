"""What a linear probe reads of a vector that anybody could count: recency, count, tenure, spend.

The vectors are those of one moment, of users with an event of the service before it. The probe is
fitted on users of the training split, chosen on valid ones and scored on those of test, for one
quantity after another:

    recency   log(1 + days since the last event)
    count     log(1 + events)
    tenure    log(1 + days since the first event)
    spend     log(1 + money of the sales), where there is a table of sales

A vector without them leaves a user of it to count again what the encoder has read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.baselines.concatenated import beside
from benchmarks.baselines.counts import LogCounts
from benchmarks.baselines.probes import predict
from benchmarks.baselines.transactions import DAY, Aggregates, Sales, read_sales, top_items
from benchmarks.datasets.label_tables import service_of
from benchmarks.protocols import Measure, Model, Probe, Scored, TaskBaseline, has_vectors, model_of
from benchmarks.query_columns import history_slice, matrix
from benchmarks.snapshot import Snapshot, snapshot_at
from clue.data.corpus import Corpus

LABELS = 50  # items that the aggregates count one by one


@dataclass(frozen=True, kw_only=True)
class RecoverabilityConfig:
    """The quantities of a `service` with clock times, `days_before_end` before its last event.

    `sales` is a table of the service's sales, for the spend; null leaves that out.
    """

    name: str
    service: str
    sales: Path | None = None
    days_before_end: float = 28.0

    def build(self, corpus: Corpus) -> "RecoverabilityTask":
        """Return the task. ValueError for positions in place of times and splits without users."""
        return RecoverabilityTask(self, corpus)


class RecoverabilityTask:
    """Users of a service as of one moment; see `RecoverabilityConfig`."""

    version, family = 1, "recoverability"
    probes: tuple[Probe, ...] = ("linear",)

    def __init__(self, config: RecoverabilityConfig, corpus: Corpus) -> None:
        """Find the users and count what is asked for."""
        self.name, self.config, self.corpus = config.name, config, corpus
        number = service_of(corpus, config.service)
        if not corpus.is_clock(number):
            raise ValueError(
                f"{config.name}: the times of {config.service} in {corpus.path} are positions; "
                "recency and tenure need a service with clock times"
            )
        times = corpus.timestamps_of(number)
        moment = float(times.values.max()) + 1 - config.days_before_end * DAY
        everybody = np.arange(corpus.num_users)
        before = snapshot_at(corpus, everybody, moment, [config.service])
        self.past = before.some(np.flatnonzero(before.lengths > 0))
        split = corpus.split[self.past.users]
        self.parts = [np.flatnonzero(split == part) for part in range(3)]
        for rows, called in zip(self.parts, ("training", "valid", "test"), strict=True):
            if len(rows) < 2:
                raise ValueError(
                    f"{config.name}: {len(rows)} {called} users have an event of {config.service} "
                    f"{config.days_before_end:g} days before its end; make days_before_end less"
                )
        self.sales = None if config.sales is None else read_sales(corpus, config.sales)
        self.quantities = quantities(self.past, number, self.sales)
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "service": config.service,
            "sales": self.sales.source if self.sales else None,
            "moment": moment,
            "quantities": list(self.quantities),
            "users": [len(rows) for rows in self.parts],
        }

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return the aggregates of sales, else the counts of events, alone and beside encoders."""
        counts: Model = LogCounts(self.corpus)
        if self.sales:
            cutoff = float(self.past.cutoff[0])
            counts = Aggregates(self.sales, top_items(self.sales, cutoff, LABELS))
        return [counts, *beside(models, counts)]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return whether the row has vectors of users."""
        return has_vectors(model)

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each user of the test split, with a prediction of each quantity."""
        given, (train, valid, test) = model_of(model), self.parts
        x = given.users(self.past)
        predicted: dict[str, np.ndarray] = {}
        chosen: dict[str, Any] = {}
        for name, y in self.quantities.items():
            parts = (x[train], y[train]), (x[valid], y[valid]), x[test]
            result = predict(probe, "number", *parts, blocks=given.blocks)
            predicted[name], chosen[name] = result.values, dict(result.chosen)
        truth = {name: y[test] for name, y in self.quantities.items()}
        columns = {
            "user_id": self.corpus.user_ids.take(pa.array(self.past.users[test])),
            "predicted": matrix(np.stack([*predicted.values()], axis=1)),
            "truth": matrix(np.stack([*truth.values()], axis=1)),
            **{f"predicted {name}": values for name, values in predicted.items()},
            **truth,
            "slice history": history_slice(self.past.lengths[test]),
        }
        each = {f"R2 {name}": Measure("r2", (f"predicted {name}", name)) for name in truth}
        measures = {"R2": Measure("mean_r2", ("predicted", "truth")), **each}
        return Scored(pa.table(columns), measures, chosen)


def quantities(past: Snapshot, service: int, sales: Sales | None) -> dict[str, np.ndarray]:
    """Return log(1 + x) (n,) of each quantity of n users who all have an event before `cutoff`."""
    _, times = past.parts[service]
    first, last = times.values[times.offsets[:-1]], times.values[times.offsets[1:] - 1]
    amounts = {
        "recency": (past.cutoff - last) / DAY,
        "count": times.lengths.astype(np.float64),
        "tenure": (past.cutoff - first) / DAY,
    }
    if sales is not None:
        rows = sales.between(past.users, -np.inf, past.cutoff)
        user = np.repeat(np.arange(len(past)), rows.lengths)
        spent = np.bincount(user, sales.money[rows.values], minlength=len(past))
        amounts["spend"] = spent.astype(np.float64)
    return {name: np.log1p(values) for name, values in amounts.items()}
