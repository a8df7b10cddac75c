"""Benchmark `retrieve`: nearest vectors by each kind of index, hnswlib and exact search.

    python -m benchmarks.speed retrieve [vectors=1000000 corpus=indexes/demo]

On generated clusters and, with `corpus`, on the items and the user states of a generation. A query
at a time and on one thread, as the service searches. Exact kinds count only where their rows and
scores are those of a plain matrix product. A kind of ours spends the least effort that reaches the
recall, and hnswlib the least ef of its own.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from pydantic import PositiveInt
from safetensors.numpy import load_file
from tqdm import tqdm

from benchmarks.speed.report import Claim, Report, Row, Spread, claim

K = 10
LINKS, CONSTRUCTION = 32, 120  # of hnswlib's graph, as of ours
EFS = (16, 32, 64, 128, 256, 512, 1024)
EXACT = "exact, one matrix product"
HNSWLIB = "hnswlib"
TOLERANCE = 1e-4  # of a score: the order of summation differs

Search = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # (1, E) -> rows, scores


@dataclass(frozen=True, kw_only=True)
class Config:
    """`vectors` of `width` in clusters, and the items of the generation `corpus`; `queries` each.

    `kinds` are ours; `recall` is what a search is tuned to, on other queries than it is timed with.
    Indexes are built by `build_threads`, which changes no answer and not the processor time told.
    """

    vectors: PositiveInt = 1_000_000
    width: PositiveInt = 128
    queries: PositiveInt = 500
    kinds: tuple[str, ...] = ("flat", "fp16", "sq8", "ivf", "hnsw")
    corpus: Path | None = None
    recall: float = 0.99
    threads: PositiveInt = 1
    build_threads: PositiveInt = os.cpu_count() or 1
    out: Path = Path("results/speed/retrieve.json")

    def __post_init__(self) -> None:
        """Refuse fewer vectors than there are nearest ones to miss."""
        if self.vectors < 1000:
            raise ValueError(f"vectors is {self.vectors}; 1,000 or more have nearest ones to miss")


def measure(config: Config) -> Report:
    """Return the rows of both cases, beside the aims on the generated vectors."""
    real = None if config.corpus is None else of_generation(config.corpus, 2 * config.queries)
    faiss.omp_set_num_threads(config.threads)
    vectors, queries = generated(config.vectors, config.width, 2 * config.queries)
    case = f"{config.vectors:,} generated, width {config.width}"
    rows = compare(case, vectors, queries, config)
    if real is not None:
        rows += compare(*real, config)
    return Report(rows=rows, claims=claims(case, rows))


def generated(rows: int, width: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors and queries of 2,000 overlapping clusters, of Zipf sizes."""
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((2000, width), np.float32)
    share = 1 / np.arange(1, 2001) ** 0.7

    def sample(count: int) -> np.ndarray:
        of = draw.choice(2000, count, p=share / share.sum())
        vectors = centres[of] + 0.8 * draw.standard_normal((count, width), np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return sample(rows), sample(queries)


def of_generation(index: Path, queries: int) -> tuple[str, np.ndarray, np.ndarray]:
    """Return a case of a generation: the vectors of its items and the states of its users.

    Raises FileNotFoundError where there is no generation.
    """
    if not (index / "CURRENT").is_file():
        raise FileNotFoundError(f"no index in {index}; clue index makes one")
    arrays = load_file(index / (index / "CURRENT").read_text() / "arrays.safetensors")
    items = np.ascontiguousarray(arrays["item_vectors"])
    states = arrays.get("user_states", arrays["user_vectors"])
    chosen = np.random.default_rng(0).permutation(len(states))[:queries]
    return f"{len(items):,} items of {index.name}", items, np.ascontiguousarray(states[chosen])


def compare(case: str, vectors: np.ndarray, queries: np.ndarray, config: Config) -> list[Row]:
    """Return a row for the matrix product, hnswlib and each kind of ours, on the second half of
    `queries` (2 q, E); the first half is for tuning.
    """
    half = len(queries) // 2
    probes, timed = queries[:half], queries[half:]
    truth = (
        [exact(vectors, each[None]) for each in probes],
        [exact(vectors, q[None]) for q in timed],
    )
    rows = [row_of(case, EXACT, partial(exact, vectors), timed, truth[1], 0.0, 0)]
    builders: dict[str, Callable[[], tuple[Search, int, str]]] = {
        f"ours, {kind}": partial(ours, vectors, probes, kind, config.recall)
        for kind in config.kinds
    }
    builders[HNSWLIB] = partial(by_hnswlib, vectors, probes, truth[0], config)
    for arm, build in tqdm(builders.items(), desc=case, unit="index"):
        began = time.process_time()
        faiss.omp_set_num_threads(config.build_threads)
        try:
            search, size, effort = build()
        except ModuleNotFoundError as missing:
            note = f"{missing.name} is not installed; pip install 'clue-users[bench]'"
            rows.append(Row(case=case, arm=arm, status="not measured", note=note))
            continue
        took = time.process_time() - began
        faiss.omp_set_num_threads(config.threads)
        rows.append(row_of(case, f"{arm}{effort}", search, timed, truth[1], took, size))
    return rows


def exact(vectors: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and the scores of the K greatest products with a query (1, E)."""
    scores = vectors @ query[0]
    best = np.argpartition(scores, -K)[-K:]
    best = best[np.lexsort((best, -scores[best]))]
    return best, scores[best]


def ours(
    vectors: np.ndarray, probes: np.ndarray, kind: str, recall: float
) -> tuple[Search, int, str]:
    """Return the search by a base index of the service, its bytes and its effort."""
    # here, and by this benchmark alone: the others need none of the service's packages
    from serving.base_index import BaseIndex, Choice

    kinds: Any = kind
    index = BaseIndex(vectors, Choice(kind=kinds, device="cpu", recall=recall), probes)

    def search(query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (hits,) = index.search(query, K)
        return hits.rows, hits.scores

    return search, index.built.bytes, f", effort {index.built.effort}" * bool(index.built.effort)


def by_hnswlib(
    vectors: np.ndarray, probes: np.ndarray, truth: Sequence[Any], config: Config
) -> tuple[Search, int, str]:
    """Return the search by hnswlib at the least ef that reaches the recall on `probes`."""
    import hnswlib as untyped

    library: Any = untyped
    graph = library.Index(space="ip", dim=vectors.shape[1])
    graph.init_index(len(vectors), ef_construction=CONSTRUCTION, M=LINKS, random_seed=1)
    graph.add_items(vectors, num_threads=config.build_threads)
    graph.set_num_threads(config.threads)

    def search(query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, distances = graph.knn_query(query, k=K)
        return rows[0].astype(np.int64), 1 - distances[0]

    ef = EFS[-1]
    for ef in EFS:
        graph.set_ef(ef)
        if recall_of([search(q[None])[0] for q in probes], [rows for rows, _ in truth]) >= (
            config.recall
        ):
            break
    size = int(graph.index_file_size())
    return search, size, f", effort {ef}"


def recall_of(rows: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    """Return the share of the true rows that are among the rows."""
    return float(np.mean([np.isin(t, r).mean() for r, t in zip(rows, truth, strict=True)]))


def row_of(
    case: str,
    arm: str,
    search: Search,
    queries: np.ndarray,
    truth: Sequence[tuple[np.ndarray, np.ndarray]],
    build_seconds: float,
    size: int,
) -> Row:
    """Return the row of one arm: its searches of `queries`, one at a time, beside the `truth`."""
    answers = [search(query[None]) for query in queries[:50]]  # warms up too
    wrong = _difference(answers, truth[:50]) if "flat" in arm else ""
    if wrong:
        return Row(case=case, arm=arm, status="not comparable", note=wrong)
    seconds: list[float] = []
    rows: list[np.ndarray] = []
    for query in queries:
        began = time.perf_counter()
        rows.append(search(query[None])[0])
        seconds.append(time.perf_counter() - began)
    thirds = [1e3 * np.array(part) for part in np.array_split(seconds, 3)]
    figures = {
        "build, processor s": Spread.of([build_seconds]),
        "MB beside the vectors": Spread.of([size / 1e6]),
        "recall@10": Spread.of([recall_of(rows, [rows for rows, _ in truth])]),
        "p50 ms": Spread.of([float(np.median(part)) for part in thirds]),
        "p99 ms": Spread.of([float(np.quantile(part, 0.99)) for part in thirds]),
    }
    return Row(case=case, arm=arm, figures=figures)


def _difference(answers: Sequence[Any], truth: Sequence[Any]) -> str:
    """Return where exact answers are not the matrix product's; empty where they agree."""
    worst = max(
        float(np.abs(scores - true).max()) if len(scores) == len(true) else np.inf
        for (_, scores), (_, true) in zip(answers, truth, strict=True)
    )
    return "" if worst <= TOLERANCE else f"scores differ by {worst:.1e}"


def claims(case: str, rows: Sequence[Row]) -> list[Claim]:
    """Return what is aimed at on the generated vectors."""
    figures = {row.arm.split(", effort")[0]: row.figures for row in rows if row.case == case}
    ivf, rival = figures.get("ours, ivf", {}), figures.get(HNSWLIB, {})
    recall = ivf["recall@10"].median if ivf else None
    speed = figures[EXACT]["p50 ms"].median / ivf["p50 ms"].median if ivf else None
    build = (
        rival["build, processor s"].median / ivf["build, processor s"].median
        if (ivf and rival)
        else None
    )
    return [
        claim(f"recall@10 of ivf, {case}", recall, "at least", 0.99),
        claim("p50, exact / ivf", speed, "at least", 10),
        claim("Build, hnswlib / ivf", build, "at least", 1),
    ]
