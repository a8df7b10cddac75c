"""Command: the rival of the next-item models, RecTools' SASRec, measured by our own ranking.

    python -m benchmarks.external.rectools_sasrec corpus=corpora/ml1m out=results/rectools.json

Leave-one-out: the last event of every user is the test, the one before it the validation; only what
comes before both is trained on. SASRec with full cross-entropy (Klenitskiy & Vasilev 2023 publish
HR@10 .315 and NDCG@10 .182 for it on MovieLens-1M, seen items left out), the epoch chosen by
validation NDCG@10. The arm trains in the environment .rivals/rectools and leaves a curve in WORK,
whose seconds count training alone; `epochs=0` trains nothing and measures what a run left there.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.external import machine
from benchmarks.external.environments import (
    RECTOOLS,
    ROOT,
    RivalMissing,
    python_of,
)
from benchmarks.metrics.bootstrap import Interval, interval, mean_of
from benchmarks.rival_split import LeaveOneOut, leave_one_out
from benchmarks.speed.command import recorded
from benchmarks.speed.interleave import ArmFailed
from clue.config import run_command
from clue.data.corpus import Corpus
from clue.evaluation.ranking import rank

UNKNOWN = 1e9  # how far below the others an item stands that the rival has never trained on
AGREE = 1e-3  # the arm ranks in float32, where a near tie may fall otherwise: 6 of 6,040 users
# Its logits are 350 MB a batch. With these glibc keeps such blocks instead of asking the kernel for
# fresh pages each time: 28 % less seconds for the rival on one core, the same losses to the bit.
ALLOCATOR = (
    "MALLOC_MMAP_MAX_=0",
    "MALLOC_TRIM_THRESHOLD_=17179869184",
    "MALLOC_TOP_PAD_=268435456",
)
LOWER_IS_BETTER = ("loss", "train_loss")

Curve = Sequence[Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class RivalSasrecConfig:
    """The rival's setting; `minutes` of training end it with the epoch that passes them.

    They are minutes of processor time a thread, so that a busy machine does not cut it short.
    `width` is its embedding, `length` the events it reads, `users` how many users of the corpus
    take part, 0 for all. `work` keeps the curve and the vectors of the best epoch. The defaults
    are those of the published result; RecTools' own are 4 heads, width 256 and dropout 0.2.
    """

    corpus: Path = Path("corpora/ml1m")
    out: Path = Path("results/next_item/rectools_ml1m.json")
    work: Path = Path("runs/rectools_ml1m")
    users: int = 0
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
    seed: int = 0
    resamples: int = 10_000

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if self.epochs < 0 or self.minutes <= 0:
            raise ValueError(
                f"epochs {self.epochs} and minutes {self.minutes}: give minutes above 0, and "
                "epochs=0 only to measure what an earlier run left in work"
            )
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")


def train(config: RivalSasrecConfig, split: LeaveOneOut) -> None:
    """Lets the arm train and write its curve and best vectors into `work`, whose old ones go.

    Raises RivalMissing where the rival cannot be installed and ArmFailed where the arm fails.
    """
    python = python_of(RECTOOLS)
    config.work.mkdir(parents=True, exist_ok=True)
    for name in ("curve.jsonl", "best.npz"):
        (config.work / name).unlink(missing_ok=True)
    pq.write_table(split.table(), config.work / "log.parquet")
    asked = json.dumps(recorded(config))
    (config.work / "config.json").write_text(asked, encoding="utf-8")
    spec = {**asdict(config), "work": str(config.work.resolve()), "corpus": "", "out": ""}
    command = ["env", *ALLOCATOR, str(python), "-W", "ignore"]
    command += ["-m", "benchmarks.external.rectools_sasrec_worker", json.dumps(spec)]
    said = config.work / "arm.log"
    with said.open("w", encoding="utf-8") as errors:
        done = subprocess.run(command, cwd=ROOT, stderr=errors, check=False)
    if done.returncode:
        lines = said.read_text(encoding="utf-8").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "nothing")
        raise ArmFailed(f"rectools, status {done.returncode}: {last[:300]} ({said} has all of it)")


def read_curve(work: Path) -> list[dict[str, float]]:
    """Return a line per epoch: seconds of training so far, losses, validation measures.

    A line that a kill has cut off is left out. Raises FileNotFoundError where there is no epoch.
    """
    file = work / "curve.jsonl"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    if not lines:
        raise FileNotFoundError(f"{file} holds no epoch; train first, with epochs=1 or more")
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


def measure(config: RivalSasrecConfig, split: LeaveOneOut) -> dict[str, Any]:
    """Return the best epoch and its measures on the test events, with seen items left out and kept.

    Raises FileNotFoundError where no run has left its curve, and ValueError where our ranking of
    the validation events is not the arm's, or the vectors belong to another split.
    """
    curve = read_curve(config.work)
    with np.load(config.work / "best.npz") as kept:
        best = {name: kept[name] for name in kept.files}
    shapes = len(best["test"]), len(best["items"])
    if shapes != (len(split.histories), len(split.catalogue)):
        raise ValueError(
            f"{config.work} holds vectors of {shapes[0]} users and {shapes[1]} items, the corpus "
            f"{len(split.histories)} and {len(split.catalogue)}; train again"
        )
    epoch = next(line for line in curve if line["epoch"] == int(best["epoch"]))
    found: dict[str, dict[str, dict[str, Interval]]] = {}
    for part, name in ((1, "valid"), (2, "test")):
        targets, before = split.question(part)
        queries, items = marked(best[name], best["items"], best["known"])
        for seen in ("left out", "kept"):
            ranks = rank(queries, items, targets, before if seen == "left out" else None)
            values = {"HR@10": ranks.hit(10), "NDCG@10": ranks.ndcg(10)}
            found.setdefault(name, {})[f"seen {seen}"] = {
                key: interval(
                    mean_of(value),
                    np.arange(len(value)),
                    resamples=config.resamples,
                    seed=config.seed,
                )
                for key, value in values.items()
            }
    for seen, named in found["valid"].items():
        for key, ours in named.items():
            theirs = epoch[f"{key} {seen}"]
            if abs(ours.value - theirs) > AGREE:
                raise ValueError(
                    f"{key} {seen}: {ours.value:.6f} by our ranking, {theirs:.6f} by the arm's; "
                    "is the curve that of another run?"
                )
    return {"best": epoch, "measures": found, "curve": curve}


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


def compare(config: RivalSasrecConfig) -> dict[str, Any]:
    """Trains the rival where `epochs` asks for it, measures it, and gives what is written."""
    corpus = Corpus.open(config.corpus)
    split = leave_one_out(corpus, config.users)
    facts = machine.describe("cpu", config.threads)
    if config.epochs:
        train(config, split)
    found = measure(config, split)
    asked, versions = (
        json.loads((config.work / name).read_text(encoding="utf-8"))
        for name in ("config.json", "versions.json")
    )
    return {
        "config": asked,
        "corpus": {"name": corpus.manifest.name, "fingerprint": corpus.fingerprint},
        "machine": facts | {"load_end": machine.load(), "versions": versions},
        "users": len(split.histories),
        "items": len(split.catalogue),
        **found,
    }


def show(report: Mapping[str, Any]) -> str:
    """Return the lines for the terminal: the best epoch, then the measures with their intervals."""
    best, total = report["best"], report["curve"][-1]
    lines = [
        f"best epoch {best['epoch']} of {total['epoch']}, after {best['seconds']:,.0f} of "
        f"{total['seconds']:,.0f} s of training; {report['users']:,} users, "
        f"{report['items']:,} items ranked"
    ]
    for part, tables in report["measures"].items():
        for seen, named in tables.items():
            cells = [f"{k} {m.value:.4f} [{m.low:.4f} {m.high:.4f}]" for k, m in named.items()]
            lines.append(f"{part}, {seen}: {', '.join(cells)}")
    return "\n".join(lines)


def write(report: Mapping[str, Any], file: Path) -> None:
    """Writes the report as JSON, the intervals as their fields."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1, default=asdict) + "\n"
    file.write_text(text, encoding="utf-8")


def main() -> None:
    """Reads the command line, trains, measures, prints and writes."""

    def run(config: RivalSasrecConfig) -> str:
        try:
            report = compare(config)
        except RivalMissing as error:
            raise ValueError(
                f"{error}\nThe rival needs an environment of its own in .rivals/rectools, made "
                "with pip: run this where a package index can be reached, or give epochs=0 to "
                "measure what an earlier run left in work"
            ) from None
        write(report, config.out)
        return show(report) + "\n"

    also = (ArmFailed,)
    sys.stdout.write(run_command(RivalSasrecConfig, run, description=__doc__, also=also))


if __name__ == "__main__":
    main()
