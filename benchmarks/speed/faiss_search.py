"""Benchmark `faiss`: exact search of a catalogue, FAISS on a GPU against FAISS on the processor.

    python -m benchmarks.speed faiss [vectors=1000000 width=256 queries=[1,64,1024]]

The service's index (flat, inner product of unit vectors) by both, the same queries. An arm counts
only where its scores are the processor's; without a GPU, or a FAISS built for one, its row says so.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from pydantic import PositiveInt

from benchmarks.speed.interleave import interleaved
from benchmarks.speed.report import Report, Row, Spread, claim

TOLERANCE = 1e-4  # of a cosine: the order of summation differs between the devices
NO_GPU = "no GPU, or FAISS is built without it (the extra clue-users[gpu] has one)"


def device() -> Literal["cpu", "cuda"]:
    """Return "cuda" where FAISS can use a GPU, "cpu" where it is built for processors alone."""
    return "cuda" if hasattr(faiss, "index_cpu_to_gpu") and faiss.get_num_gpus() else "cpu"


@dataclass(frozen=True, kw_only=True)
class Config:
    """`vectors` of `width` are searched for the `k` nearest of each batch size in `queries`."""

    vectors: PositiveInt = 1_000_000
    width: PositiveInt = 256
    queries: tuple[PositiveInt, ...] = (1, 64, 1024)
    k: PositiveInt = 100
    rounds: PositiveInt = 5
    threads: PositiveInt = 2
    device: Literal["cpu", "cuda"] = field(default_factory=device)
    out: Path = Path("results/speed/faiss.json")

    def __post_init__(self) -> None:
        """Refuse sizes that leave nothing to search, and a GPU that is not there."""
        if not self.queries or self.k > self.vectors:
            raise ValueError(f"queries is {self.queries}, k {self.k} of {self.vectors} vectors")
        if self.device == "cuda" and device() == "cpu":
            raise ValueError(f"device is cuda, but there is {NO_GPU}")


def measure(config: Config) -> Report:
    """Return the rows of every batch size, beside the aim at the largest."""
    faiss.omp_set_num_threads(config.threads)
    draw = np.random.default_rng(0)
    vectors, queries = (
        unit(draw.standard_normal((n, config.width), np.float32))
        for n in (config.vectors, max(config.queries))
    )
    flat = faiss.IndexFlatIP(config.width)
    flat.add(vectors)
    indexes: dict[str, Any] = {"processor": flat}
    if config.device == "cuda":
        indexes["GPU"] = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, flat)
    rows: list[Row] = []
    for count in config.queries:
        rows += compare(f"{count:,} queries", indexes, queries[:count], config)
    case, figure = rows[-1].case, "queries/s"
    rates = {
        row.arm: row.figures[figure].median for row in rows if row.case == case and not row.note
    }
    ratio = rates["GPU"] / rates["processor"] if "GPU" in rates else None
    aim = claim(f"Queries/s at {case}, GPU / processor", ratio, "at least", 10)
    return Report(rows=rows, claims=[aim], machine={"versions": {"faiss": faiss.__version__}})


def compare(case: str, indexes: dict[str, Any], queries: np.ndarray, config: Config) -> list[Row]:
    """Return a row for the processor and one for the GPU, their searches in turn.

    `queries` are (n, width) unit vectors. Scores that are not the processor's do not compare.
    """
    searches = {arm: partial(index.search, queries, config.k) for arm, index in indexes.items()}
    scores = {arm: search()[0] for arm, search in searches.items()}
    rows: list[Row] = []
    for arm, clocks in interleaved(searches, config.rounds).items():
        error, seconds = float(np.abs(scores[arm] - scores["processor"]).max()), clocks["wall"]
        figures = {
            "milliseconds": Spread.of([1e3 * each for each in seconds]),
            "queries/s": Spread.of([len(queries) / each for each in seconds]),
        }
        if error <= TOLERANCE:
            rows.append(Row(case=case, arm=arm, figures=figures))
        else:
            note = f"scores differ by {error:.1e}"
            rows.append(Row(case=case, arm=arm, status="not comparable", note=note))
    if "GPU" not in searches:
        rows.append(Row(case=case, arm="GPU", status="not measured", note=NO_GPU))
    return rows


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return the rows of (n, E) at unit length."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
