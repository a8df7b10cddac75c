# pyright: standard
"""Results of an invented suite: seven tasks, models of planted quality, real queries."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.protocols import Measure, Scored
from benchmarks.query_columns import history_slice
from benchmarks.snapshot import Snapshot
from benchmarks.suite import results
from benchmarks.suite.results import TaskResult

MEASURES = {
    "hits": {"HR@10": Measure("mean", ("value",))},
    "auroc": {"AUROC": Measure("auroc", ("score", "label"))},
    "r2": {
        "R2": Measure("r2", ("score", "label")),
        "Spearman": Measure("spearman", ("score", "label")),
    },
    "nats": {"entropy": Measure("mean", ("value",), lower_is_better=True)},
}


@dataclass
class FakeModel:
    """A frozen representation of which a task only knows the name; no vector is ever asked."""

    name: str
    seed: int = 0
    fingerprint: str = "one"

    @property
    def blocks(self) -> Mapping[str, slice]:
        raise AssertionError("a fake task asks for no vector")

    @property
    def similarity(self) -> slice:
        raise AssertionError("a fake task asks for no vector")

    def users(self, past: Snapshot) -> np.ndarray:
        raise AssertionError("a fake task asks for no vector")

    def items(self) -> np.ndarray | None:
        raise AssertionError("a fake task asks for no vector")


@dataclass
class FakeRanker:
    name: str
    seed: int = 0
    fingerprint: str = "one"


@dataclass
class FakeTask:
    """Users of whom each is as hard for all models; `quality` of a model on 0 (chance) to 1."""

    name: str
    family: str
    kind: str
    quality: Mapping[str, float]
    probes: tuple[str, ...] = ("linear",)
    version: int = 1
    users: int = 200
    recipe: Mapping[str, Any] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    scored: int = 0

    def baselines(self, models: Sequence[Any]) -> Sequence[FakeModel | FakeRanker]:
        return [FakeRanker(name) for name in self.own]

    def supports(self, model: Any, probe: str) -> bool:
        first = probe == self.probes[0]
        if isinstance(model, FakeRanker):
            return first
        return model.name in self.quality and (
            probe != "zero-shot" or "aggregates" not in model.name
        )

    def score(self, model: Any, probe: str) -> Scored:
        self.scored += 1
        task = np.random.default_rng(zlib.crc32(self.name.encode()))
        told = f"{self.name} {model.name} {model.seed} {probe}"
        own = np.random.default_rng(zlib.crc32(told.encode()))
        hard, label = task.normal(size=self.users), task.random(self.users) < 0.4
        good = self.quality[model.name] + own.normal(0, 0.01) - 0.03 * self.probes.index(probe)
        noise = own.normal(size=self.users)
        columns: dict[str, Any] = {
            "user_id": [f"u{number:04}" for number in range(self.users)],
            "slice history": history_slice(task.integers(0, 150, self.users)),
            "slice seen": pa.array(np.where(task.random(self.users) < 0.7, "seen", "unseen")),
        }
        if self.kind == "hits":
            columns["value"] = (hard + 0.5 * noise < 3 * good - 2).astype(float)
        elif self.kind == "nats":
            columns["value"] = 7 - 2 * good + 0.5 * hard + 0.2 * noise
        elif self.kind == "auroc":
            columns["score"], columns["label"] = (
                2 * good * label + noise + hard,
                label.astype(float),
            )
        else:
            columns["score"], columns["label"] = good * hard + 0.3 * (1 - good) * noise, hard
        chosen = {"C": 1.0} if probe == "linear" else {}
        return Scored(pa.table(columns), MEASURES[self.kind], chosen)


COMMON = {
    "CLUE": 0.5,
    "untrained": 0.2,
    "item mean": 0.4,
    "TF-IDF + SVD": 0.3,
    "random": 0.0,
}
SHOP = {**COMMON, "aggregates": 0.45, "CLUE + aggregates": 0.6}
TASKS = [
    FakeTask("matching/amazon", "matching", "hits", {**COMMON, "CCA baseline": 0.35}),
    FakeTask("matching/food", "matching", "nats", {**COMMON, "oracle": 0.9}),
    FakeTask(
        "next/films",
        "next item",
        "hits",
        {**COMMON, "popularity": 0.3, "EASE": 0.65},
        probes=("zero-shot", "linear"),
        own=("popularity", "EASE"),
    ),
    FakeTask("shop/churn", "churn", "auroc", SHOP, probes=("linear", "mlp", "lightgbm")),
    FakeTask("shop/spend", "spend", "r2", SHOP),
    FakeTask("films/gender", "attribute", "auroc", {**COMMON, "TF-IDF + SVD": 0.55}),
    FakeTask("synthetic/taste", "synthetic", "r2", {**COMMON, "oracle": 0.95}),
]


def models() -> list[FakeModel]:
    """Three seeds of ours and of the control, one of every other."""
    names = list(dict.fromkeys(name for task in TASKS for name in task.quality))
    own = {name for task in TASKS for name in task.own}
    return [
        FakeModel(name, seed)
        for name in names
        if name not in own
        for seed in range(3 if name in ("CLUE", "untrained") else 1)
    ]


def make_results(out: Path, resamples: int = 100) -> list[TaskResult]:
    """Return the results in OUT, as they are read back."""
    for task, model, probe in results.wanted_results(TASKS, models()):  # pyright: ignore[reportArgumentType]
        results.make(out, task, model, probe, resamples=resamples, seed=0)
    return results.read(out)
