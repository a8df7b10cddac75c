"""Structures that find candidates among many vectors: FAISS on the processor, one class for all.

The distances are those of the vectors as they are searched: for an inner product of vectors that
are not of length one each gets one more coordinate, by which the nearest in L2 are the greatest
inner products (Bachrach et al., RecSys 2014, "Speeding up the Xbox recommender system").
"""

from typing import Any, Literal, Protocol

import faiss as untyped
import numpy as np

faiss: Any = untyped  # its types are incomplete

Kind = Literal["flat", "fp16", "sq8", "ivf", "hnsw"]
AnyKind = Literal[
    "auto", "flat", "fp16", "sq8", "ivf", "hnsw", "gpu_flat", "gpu_ivfpq", "gpu_cagra"
]

# Processor time of one query on one core, 200,000 vectors of width 256: flat 9.7 ms, sq8 4.1, ivf
# .26, hnsw .24. Below 50,000 an exact scan is cheaper than encoding a user. hnsw took 49 s to build
# there and ivf 5, and a process builds at every start: hnsw is chosen by name alone.
MOST_FLAT = 50_000
MOST_SQ8 = 200_000
# of a scan of coarse codes so many candidates for each result are ranked again by their vectors
CANDIDATES = {"flat": 1, "fp16": 2, "sq8": 4, "ivf": 1, "hnsw": 1}
LINKS = 32  # of an HNSW node; 16 lost recall below .99 at efSearch 128
EFFORTS = (16, 32, 64, 128, 256, 512, 1024)  # nprobe and efSearch that are tried at build
# FAISS compares coded vectors of such a width, or a multiple, a vector of numbers at a time: at
# width 97 a scan of 191,000 took 20.9 ms, at 112 with zeros 2.1, and one of floats 2.4
SCALAR_LANES = 16
SEED = 1234


class Structure(Protocol):
    """What finds candidates. `efforts` are what a search may spend, least first; () without.

    `nearest` returns positions (m, count), -1 where there are none, in any order.
    """

    kind: str
    efforts: tuple[int, ...]
    candidates: int
    bytes: int

    def nearest(  # noqa: D102
        self, queries: np.ndarray, count: int, effort: int, allowed: np.ndarray | None
    ) -> np.ndarray: ...


def chosen_by_size(rows: int) -> Kind:
    """Return the kind for so many vectors where the operator names none."""
    if rows <= MOST_FLAT:
        return "flat"
    return "sq8" if rows <= MOST_SQ8 else "ivf"


class CpuStructure:
    """A FAISS index on the processor over a copy of vectors (n, E), of any `Kind` but "flat"."""

    def __init__(self, vectors: np.ndarray, kind: Kind) -> None:
        """Build it; the same vectors give the same structure on one thread."""
        self.kind = kind
        self.candidates = CANDIDATES[kind]
        self._lift = Lift(vectors, SCALAR_LANES if kind in ("fp16", "sq8") else 1)
        lifted = self._lift.vectors(vectors)
        rows, width = lifted.shape
        self.efforts: tuple[int, ...] = ()
        if kind in ("fp16", "sq8"):
            coding = faiss.ScalarQuantizer
            bits = coding.QT_fp16 if kind == "fp16" else coding.QT_8bit
            self._faiss: Any = faiss.IndexScalarQuantizer(width, bits, faiss.METRIC_L2)
        elif kind == "ivf":
            lists = lists_for(rows)
            self._coarse = faiss.IndexFlatL2(width)
            self._faiss = faiss.IndexIVFFlat(self._coarse, width, lists, faiss.METRIC_L2)
            self._faiss.cp.seed = SEED
            self._faiss.cp.max_points_per_centroid = 64  # of 256; recall is measured after
            self.efforts = (*(e for e in EFFORTS if e < lists), lists)
        else:
            self._faiss = faiss.IndexHNSWFlat(width, LINKS, faiss.METRIC_L2)
            self._faiss.hnsw.efConstruction = 120
            self.efforts = EFFORTS
        if not self._faiss.is_trained:
            self._faiss.train(lifted)
        self._faiss.add(lifted)
        if self._faiss.ntotal != rows:
            raise RuntimeError(f"FAISS holds {self._faiss.ntotal} of {rows} vectors")
        stored = self._faiss.storage if kind == "hnsw" else self._faiss
        self.bytes = rows * stored.sa_code_size()
        if kind == "ivf":
            self.bytes += rows * 8 + self._coarse.ntotal * self._coarse.code_size
        if kind == "hnsw":
            self.bytes += self._faiss.hnsw.neighbors.size() * 4

    def nearest(
        self, queries: np.ndarray, count: int, effort: int, allowed: np.ndarray | None
    ) -> np.ndarray:
        """Return the positions (m, count) of candidates among the `allowed` (n,), all without."""
        # per call: nprobe and efSearch are fields of the index, which threads would share
        selector, bits = selector_of(allowed)
        if self.kind == "ivf":
            parameters: Any = faiss.SearchParametersIVF(nprobe=effort, sel=selector)
        elif self.kind == "hnsw":
            parameters = faiss.SearchParametersHNSW(efSearch=max(effort, count), sel=selector)
        else:
            parameters = faiss.SearchParameters(sel=selector)
        found = self._faiss.search(self._lift.queries(queries), count, params=parameters)[1]
        del bits  # the selector reads it until here
        return found


class Lift:
    """The coordinate that makes the nearest in L2 the greatest inner products; none where unit.

    Zeros follow it up to a multiple of `lanes` coordinates.
    """

    def __init__(self, vectors: np.ndarray, lanes: int = 1) -> None:
        """Read the lengths of vectors (n, E)."""
        squares = np.einsum("ij,ij->i", vectors, vectors)
        self._greatest = float(squares.max(initial=0.0))
        self.needed = bool(self._greatest - squares.min(initial=np.inf) > 1e-3)
        self._width = -(-(vectors.shape[1] + self.needed) // lanes) * lanes

    def vectors(self, vectors: np.ndarray) -> np.ndarray:
        """Return vectors (n, E) as they are stored, (n, at least E)."""
        stored = self.queries(vectors)
        if self.needed:
            rest = np.maximum(self._greatest - np.einsum("ij,ij->i", vectors, vectors), 0)
            stored[:, vectors.shape[1]] = np.sqrt(rest)
        return stored

    def queries(self, queries: np.ndarray) -> np.ndarray:
        """Return queries (m, E) as they are searched, (m, at least E)."""
        width = queries.shape[1]
        if width == self._width:
            return np.ascontiguousarray(queries)
        padded = np.zeros((len(queries), self._width), np.float32)
        padded[:, :width] = queries
        return padded


def selector_of(allowed: np.ndarray | None) -> tuple[Any, np.ndarray | None]:
    """Return FAISS's selector of a mask (n,), and the bits that it reads while it lives."""
    if allowed is None:
        return None, None
    bits = np.packbits(allowed, bitorder="little")
    return faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits)), bits


def lists_for(rows: int) -> int:
    """Return the number of IVF lists: a power of two about 2 sqrt(n), 39 vectors in each or more.

    FAISS warns below 39 training vectors a list.
    """
    return max(1, min(1 << int(np.log2(2 * np.sqrt(rows) + 1)), rows // 39))
