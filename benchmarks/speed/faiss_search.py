"""Benchmark `faiss`: exact search of a catalogue, FAISS on a GPU against FAISS on the processor.

    python -m benchmarks.speed faiss [vectors=1000000 width=256 queries=[1,64,1024]]

The service's index (flat, inner product of unit vectors) by both, the same queries. An arm counts
only where its scores are the processor's; without a GPU, or a FAISS built for one, its row says so.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.external import machine
from benchmarks.speed.command import finish, read
from benchmarks.speed.report import Claim, Report, Row, Spread

TOLERANCE = 1e-4  # of a cosine: the order of summation differs between the devices


@dataclass(frozen=True, kw_only=True)
class FaissConfig:
    """`vectors` of `width` are searched for the `k` nearest of each batch size in `queries`."""

    vectors: int = 1_000_000
    width: int = 256
    queries: tuple[int, ...] = (1, 64, 1024)
    k: int = 100
    rounds: int = 5
    threads: int = 2
    out: Path = Path("results/speed/faiss.json")

    def __post_init__(self) -> None:
        """Refuse sizes that leave nothing to search or to time."""
        for name in ("vectors", "width", "k", "rounds", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a positive count")
        if not self.queries or min(self.queries) < 1 or self.k > self.vectors:
            raise ValueError(
                f"queries {self.queries} must be positive counts and k {self.k} at most vectors "
                f"{self.vectors}"
            )


def main(argv: list[str]) -> None:
    """Run the command line."""
    finish(measure(read(FaissConfig, argv, __doc__)), argv)


def measure(config: FaissConfig) -> tuple[Report, Path]:
    """Return the report and where it belongs."""
    faiss.omp_set_num_threads(config.threads)
    gpus = gpu_count()
    facts = machine.describe("cuda" if gpus else "cpu", config.threads)
    draw = np.random.default_rng(0)
    vectors, queries = (
        unit(draw.standard_normal((n, config.width), np.float32))
        for n in (config.vectors, max(config.queries))
    )
    flat = faiss.IndexFlatIP(config.width)
    flat.add(vectors)
    indexes: dict[str, Any] = {"processor": flat}
    if gpus:
        indexes["GPU"] = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, flat)
    rows: list[Row] = []
    for count in config.queries:
        rows += compare(f"{count:,} queries", indexes, queries[:count], config)
    report = Report(
        name="faiss",
        command="python -m benchmarks.speed faiss",
        machine={**facts, "load_end": machine.load(), "versions": {"faiss": faiss.__version__}},
        config=asdict(config) | {"out": str(config.out)},
        rows=tuple(rows),
        claims=(claim(rows, f"{config.queries[-1]:,} queries"),),
    )
    return report, config.out


def compare(
    case: str, indexes: dict[str, Any], queries: np.ndarray, config: FaissConfig
) -> list[Row]:
    """Return a row for the processor and one for the GPU, their searches in turn.

    `queries` are (n, width) unit vectors.
    """
    searches: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
        arm: lambda index=index: index.search(queries, config.k) for arm, index in indexes.items()
    }
    scores = {arm: search()[0] for arm, search in searches.items()}  # the warm-up
    seconds: dict[str, list[float]] = {arm: [] for arm in searches}
    for _ in range(config.rounds):
        for arm, search in searches.items():
            began = time.perf_counter()
            search()
            seconds[arm].append(time.perf_counter() - began)
    rows = [row(case, arm, scores, seconds, len(queries)) for arm in searches]
    if "GPU" not in searches:
        note = "no GPU, or FAISS is built without it (the extra clue-users[gpu] has one)"
        rows.append(Row(case=case, arm="GPU", status="not measured", note=note))
    return rows


def row(
    case: str,
    arm: str,
    scores: dict[str, np.ndarray],
    seconds: dict[str, list[float]],
    count: int,
) -> Row:
    """Return the row of one arm, not comparable where its scores are not the processor's."""
    error = float(np.abs(scores[arm] - scores["processor"]).max())
    equal = error <= TOLERANCE
    return Row(
        case=case,
        arm=arm,
        status="measured" if equal else "not comparable",
        note="" if equal else f"scores differ by {error:.1e}",
        figures={
            "milliseconds": Spread.of([1e3 * each for each in seconds[arm]]),
            "queries/s": Spread.of([count / each for each in seconds[arm]]),
        },
    )


def claim(rows: list[Row], case: str) -> Claim:
    """Return the aim at the largest batch of queries; open where the GPU was not measured."""
    rates = {
        row.arm: row.figures["queries/s"].median
        for row in rows
        if row.case == case and row.status == "measured"
    }
    ratio = rates["GPU"] / rates["processor"] if len(rates) == 2 else None
    return Claim(
        what=f"Queries/s at {case}, GPU / processor",
        aim="at least 10",
        found=ratio,
        holds=None if ratio is None else ratio >= 10,
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return the rows of (n, E) at unit length."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def gpu_count() -> int:
    """Return the number of GPUs that FAISS can use; 0 where it is built for processors alone."""
    return faiss.get_num_gpus() if hasattr(faiss, "index_cpu_to_gpu") else 0
