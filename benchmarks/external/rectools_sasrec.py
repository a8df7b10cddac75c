"""The external next-item model: RecTools' SASRec, trained in its own environment, ranked by ours.

Leave-one-out: the last event of every sequence is the test item, the one before it the validation;
only what comes before both is trained on. SASRec with full cross-entropy (Klenitskiy & Vasilev 2023
publish HR@10 .315 and NDCG@10 .182 for it on MovieLens-1M, seen items left out), the epoch chosen
by validation NDCG@10. The worker trains in .rivals/rectools and leaves a curve, whose seconds count
training alone, in WORK/DIGEST, a folder for each setting, corpus and seed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.external import machine
from benchmarks.external.environments import RECTOOLS, run_worker, worker_command
from clue.data.ragged import Ragged
from clue.data.sequences import EvalQueries, Sequences
from clue.evaluation.ranking import rank

UNKNOWN = 1e9  # how far below the others an item stands that the rival has never trained on
AGREE = 1e-3  # the worker ranks in float32, where a near tie may fall otherwise: 6 of 6,040 users
LOWER_IS_BETTER = ("loss", "train_loss")

Curve = Sequence[Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class RectoolsConfig:
    """The rival's setting, by default that of the published result.

    `minutes` of processor time a thread end training with the epoch that passes them, so that a
    busy machine does not cut it short; `epochs` end it at the latest. `blocks` of the transformer
    have `heads` each and an embedding of `width`, at a `dropout`; RecTools' own are 4 heads, width
    256 and dropout 0.2. A history is read up to `length` events, `batch` of them a step at a
    learning `rate`, on so many `threads`. A model is trained for each of `seeds`, below `work`.
    """

    epochs: int = 100
    minutes: float = 40.0
    blocks: int = 2
    heads: int = 1
    width: int = 64
    dropout: float = 0.1
    length: int = 200
    batch: int = 128
    rate: float = 1e-3
    threads: int = 1
    seeds: list[int] = field(default_factory=lambda: [0])
    work: Path = Path("runs/rectools")

    def __post_init__(self) -> None:
        """Validate what can be trained."""
        if self.epochs < 1 or self.minutes <= 0:
            raise ValueError(f"epochs {self.epochs} and minutes {self.minutes}: give more than 0")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")


class RectoolsSasrec:
    """RecTools' SASRec, trained where WORK lacks it; it answers the test items alone."""

    name = "RecTools SASRec"

    def __init__(self, config: RectoolsConfig, sequences: Sequences, *, seed: int) -> None:
        """Raise ValueError for sequences that are not split leave-one-out."""
        self.seed = seed
        spec: dict[str, Any] = {**asdict(config), "seed": seed}
        del spec["work"], spec["seeds"]
        self._spec = spec
        self.parts = {part: sequences.questions(part) for part in ("valid", "test")}
        counts = [len(queries.targets) for queries in self.parts.values()]
        rows = (
            sequences.test_at[sequences.test_at >= 0] - sequences.valid_at[sequences.test_at >= 0]
        )
        if len(set(counts)) > 1 or not (rows == 1).all():
            raise ValueError(
                f"{self.name} is trained on all but the last two events of a sequence; ask with "
                "sequences.split=leave_one_out and sequences.held_out=2"
            )
        self.items = len(sequences.catalogue)
        identity = [spec, self.items, sequences.catalogue.corpus.fingerprint, *RECTOOLS.packages]
        self.fingerprint = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        self.work = config.work / self.fingerprint[:12]

    @cached_property
    def _trained(self) -> dict[str, Any]:
        """Its vectors by name, its curve and its best epoch, trained if need be."""
        if not (self.work / "about.json").is_file():
            log = log_of(self.parts["test"], self.parts["valid"])
            train(self._spec, log, self.items, self.work)
        curve = read_curve(self.work)
        with np.load(self.work / "best.npz") as kept:
            best = {name: kept[name] for name in kept.files}
        shapes = len(best["test"]), len(best["items"])
        if shapes != (len(self.parts["test"].targets), self.items):
            raise ValueError(
                f"{self.work} holds vectors of {shapes[0]} users and {shapes[1]} items, the corpus "
                f"{len(self.parts['test'].targets)} and {self.items}; delete it and run again"
            )
        epoch = next(line for line in curve if line["epoch"] == int(best["epoch"]))
        check(self.parts["valid"], marked(best["valid"], best["items"], best["known"]), epoch)
        about = json.loads((self.work / "about.json").read_text(encoding="utf-8"))
        states, table = marked(best["test"], best["items"], best["known"])
        histories = self.parts["test"].histories
        rows = {histories[row].tobytes(): row for row in range(len(histories))}
        chosen = {**about, "best": epoch, "curve": curve}
        return {"states": states, "table": table, "rows": rows, "chosen": chosen}

    @property
    def table(self) -> np.ndarray:
        """The items (V, width + 1) of the catalogue, unknown ones below all others."""
        return self._trained["table"]

    @property
    def chosen(self) -> dict[str, Any]:
        """Return the setting, the machine, the best epoch and the curve."""
        return self._trained["chosen"]

    def states(self, histories: Ragged) -> np.ndarray:
        """Return the state (n, width + 1) after each history before a test item.

        ValueError for another history: the worker is gone with its model.
        """
        rows = [
            self._trained["rows"].get(histories[n].tobytes(), -1) for n in range(len(histories))
        ]
        if -1 in rows:
            raise ValueError(f"{self.name} knows the histories of its test items alone")
        return self._trained["states"][rows]


def log_of(test: EvalQueries, valid: EvalQueries) -> pa.Table:
    """Return a row per event: user, item, order (its index in the history), part.

    Part 0 is trained on, 1 is the validation (the last but one), 2 the test (the last event).
    """
    lengths = test.histories.lengths + 1
    user = np.repeat(np.arange(len(lengths)), lengths)
    order = np.arange(len(user)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    item = np.insert(test.histories.values, test.histories.offsets[1:], test.targets)
    part = np.maximum(order - lengths[user] + 3, 0).astype(np.int8)
    assert np.array_equal(item[part == 1], valid.targets)
    return pa.table({"user": user, "item": item, "order": order, "part": part})


def train(spec: Mapping[str, Any], log: pa.Table, items: int, work: Path) -> None:
    """Let the worker train and write its curve and best vectors into `work`, whose old ones go.

    Raises FileNotFoundError where the rival cannot be installed and ArmFailed where it fails.
    """
    command = worker_command(RECTOOLS, "benchmarks.external.rectools_sasrec_worker", "rectools")
    work.mkdir(parents=True, exist_ok=True)
    for name in ("curve.jsonl", "best.npz"):
        (work / name).unlink(missing_ok=True)
    pq.write_table(log, work / "log.parquet")
    facts = machine.describe("cpu", spec["threads"])
    task = {**spec, "items": items, "work": str(work.resolve())}
    run_worker(command, task, work / "worker.log", "rectools")
    versions = json.loads((work / "versions.json").read_text(encoding="utf-8"))
    facts |= {"load_end": machine.load(), "versions": versions}
    about = json.dumps({"config": dict(spec), "machine": facts}, indent=1)
    (work / "about.json").write_text(about + "\n", encoding="utf-8")


def read_curve(work: Path) -> list[dict[str, float]]:
    """Return a line per epoch: seconds of training so far, losses, validation measures.

    A line that a kill has cut off is left out. Raises FileNotFoundError where there is no epoch.
    """
    file = work / "curve.jsonl"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    if not lines:
        raise FileNotFoundError(f"{file} holds no epoch; delete {work} and run again")
    return lines


def seconds_to(curve: Curve, measure: str, value: float, clock: str = "seconds") -> float | None:
    """Return the seconds of training after which `measure` was first at `value` or better.

    Better is higher, and lower for a loss. `clock` names the column of seconds; on a busy machine
    "processor_seconds" is the fairer one, for one thread. None where the value was never reached.
    KeyError for a measure that the curve does not have.
    """
    sign = -1 if measure in LOWER_IS_BETTER else 1
    reached = (line[clock] for line in curve if sign * line[measure] >= sign * value)
    return next(reached, None)


def check(
    queries: EvalQueries, vectors: tuple[np.ndarray, np.ndarray], epoch: Mapping[str, float]
) -> None:
    """Raise ValueError where our ranking of the validation events is not the worker's."""
    for condition, seen in (("seen left out", queries.histories), ("seen kept", None)):
        ranks = rank(*vectors, queries.targets, seen)
        for name, values in (("HR@10", ranks.hit(10)), ("NDCG@10", ranks.ndcg(10))):
            ours, theirs = float(values.mean()), epoch[f"{name} {condition}"]
            if abs(ours - theirs) > AGREE:
                raise ValueError(
                    f"{name} {condition}: {ours:.6f} by our ranking, {theirs:.6f} by the worker's; "
                    "is the curve that of another run?"
                )


def marked(
    queries: np.ndarray, items: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return queries and items with one more column, by which unknown items stand below all others.

    All unknown ones stand alike. `known` (items,) says which the rival has a vector of.
    """
    vectors = np.where(known[:, None], items, 0).astype(np.float64)
    ones = np.ones((len(queries), 1))
    below = np.where(known, 0.0, -UNKNOWN)[:, None]
    return np.concatenate([queries, ones], axis=1), np.concatenate([vectors, below], axis=1)
