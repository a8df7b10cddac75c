"""The same structures on a GPU: flat, IVF-PQ and CAGRA, by a FAISS that is built for one.

One thread may use a GPU index at a time (faiss#4525), which is the model thread. Not run on a GPU
by the tests that CI runs; `make gpu` runs those that are marked so.
"""

from typing import Any

import faiss as untyped
import numpy as np

from serving.structures import SEED, Lift, lists_for

faiss: Any = untyped  # its types are incomplete
TEMPORARY_BYTES = 128 << 20  # of each index; FAISS would take 1.5 GB, and each service has one
MOST_RESULTS = 2048  # a limit of FAISS on GPUs
# Flat is exact and reads all of the vectors for each batch: 1 GB is .25 ms of an H200's memory.
MOST_FLAT_BYTES = 8 << 30
LEAST_ROWS = 10_000  # below, the processor takes less than .5 ms for a query of width 256
SHARE = 0.5  # of the free memory that an index may take; the model and its batches need the rest
WIDTHS = (96, 64, 56, 48, 32, 28, 24, 20, 16, 12, 8, 4, 2, 1)  # bytes of a PQ code on a GPU


def reason() -> str | None:
    """Return why FAISS cannot use a GPU here, None where it can."""
    if not hasattr(faiss, "StandardGpuResources"):
        return "FAISS is built without GPU support; pip install 'clue-users[gpu]' has one that is"
    if not faiss.get_num_gpus():
        return "FAISS sees no CUDA device"
    return None


def free_bytes() -> int:
    """Return the bytes of the device's memory that nobody has taken."""
    import torch  # here: FAISS has no call for it

    return int(torch.cuda.mem_get_info()[0])


def chosen_by_memory(rows: int, width: int, free: int, *, cagra: bool) -> str:
    """Return the kind for vectors (rows, width) in `free` bytes: exact while it is quick, and fits.

    CAGRA keeps the vectors and a graph of 64 links; IVF-PQ a code of `code_bytes` for each.
    """
    size = 4 * rows * width
    if size <= min(MOST_FLAT_BYTES, SHARE * free):
        return "gpu_flat"
    return "gpu_cagra" if cagra and size + rows * 64 * 4 <= SHARE * free else "gpu_ivfpq"


def code_bytes(width: int) -> int:
    """Return the bytes of a PQ code: the most that divide the width, up to one for 4 numbers."""
    return next(m for m in WIDTHS if width % m == 0 and m <= max(1, width // 4))


def build(vectors: np.ndarray, kind: str | None) -> "GpuStructure | str":
    """Return the structure of this kind, or that of the memory; or why there is none."""
    why = reason()
    if why is not None:
        return why
    cagra = hasattr(faiss, "GpuIndexCagra")
    if kind == "gpu_cagra" and not cagra:
        return "FAISS is built without CAGRA; faiss-gpu-cuvs has it"
    rows, width = vectors.shape
    wanted = kind or chosen_by_memory(rows, width, free_bytes(), cagra=cagra)
    if not wanted.startswith("gpu_"):
        graph = "gpu_cagra" if cagra else "gpu_flat"
        wanted = {"flat": "gpu_flat", "hnsw": graph}.get(wanted, "gpu_ivfpq")
    if wanted != "gpu_flat" and rows < LEAST_ROWS:
        wanted = "gpu_flat"  # IVF-PQ trains 256 centroids for each byte of its codes
    try:
        return GpuStructure(vectors, wanted)
    except RuntimeError as error:  # out of memory, or a width that the kernels do not take
        return f"{wanted} could not be built: {str(error).splitlines()[0][:200]}"


class GpuStructure:
    """A FAISS index on the first GPU over a copy of vectors (n, E)."""

    def __init__(self, vectors: np.ndarray, kind: str) -> None:
        """Build it; raises RuntimeError where memory or the width do not suffice."""
        self.kind = kind
        self._lift = Lift(vectors)
        self._resources = faiss.StandardGpuResources()
        self._resources.setTempMemory(TEMPORARY_BYTES)
        rows, width = vectors.shape
        self.efforts: tuple[int, ...] = ()
        if kind == "gpu_flat":
            self._faiss: Any = faiss.GpuIndexFlatIP(self._resources, width)
            self.candidates, self.bytes, added = 1, 4 * rows * width, vectors
        elif kind == "gpu_ivfpq":
            lists, code = lists_for(rows), code_bytes(width)
            self._faiss = faiss.GpuIndexIVFPQ(
                self._resources, width, lists, code, 8, faiss.METRIC_INNER_PRODUCT
            )
            self._faiss.cp.seed = SEED
            self.candidates, self.bytes, added = 16, rows * (code + 8) + 4 * lists * width, vectors
            self.efforts = (*(e for e in (16, 32, 64, 128, 256) if e < lists), lists)
        else:
            added = self._lift.vectors(vectors)
            self._faiss = faiss.GpuIndexCagra(self._resources, added.shape[1], faiss.METRIC_L2)
            self.candidates, self.bytes = 2, rows * 4 * (added.shape[1] + 64)
            self.efforts = (64, 128, 256, 512)
        added = np.ascontiguousarray(added)
        if not self._faiss.is_trained:
            self._faiss.train(added)
        if not self._faiss.ntotal:  # CAGRA takes its vectors when it is trained
            self._faiss.add(added)

    def nearest(
        self, queries: np.ndarray, count: int, effort: int, allowed: np.ndarray | None
    ) -> np.ndarray:
        """Return positions (m, at most count); a filter is applied to what came, by -1."""
        parameters: Any = None
        asked = queries
        if self.kind == "gpu_ivfpq":
            parameters = faiss.SearchParametersIVF(nprobe=min(effort, MOST_RESULTS))
        elif self.kind == "gpu_cagra":
            parameters = faiss.SearchParametersCagra()
            parameters.itopk_size = max(effort, min(count, 512))
            asked = self._lift.queries(queries)
        fetched = min(count, MOST_RESULTS, self._faiss.ntotal)
        asked = np.ascontiguousarray(asked)
        positions = self._faiss.search(asked, fetched, params=parameters)[1]
        if allowed is not None:
            positions[(positions >= 0) & ~allowed[positions]] = -1
        return positions
