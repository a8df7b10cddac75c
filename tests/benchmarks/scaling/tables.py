"""Tables of runs drawn from a law that is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.scaling.fit.run_table import Runs, from_table

TRUE = {"E": 1.8, "A": 60.0, "B": 110.0, "alpha": 0.33, "beta": 0.36}


def surface(size: Any, data: Any) -> Any:
    """The true loss."""
    return TRUE["E"] + TRUE["A"] * size ** -TRUE["alpha"] + TRUE["B"] * data ** -TRUE["beta"]


def row(
    width: int, pairs: int, *, seed: int = 0, factor: float = 1.0, **other: Any
) -> dict[str, Any]:
    """One run of 2 layers; its loss is the true one times `factor`."""
    hidden = 24 * width**2
    params = hidden + 100 * width
    batch = other.get("batch", 256)
    return {
        "study": "synthetic",
        "point": f"w{width}-p{pairs}-s{seed}" + "".join(f"-{k}{v}" for k, v in other.items()),
        "seed": seed,
        "objective": "contrastive",
        "flops": 6.0 * params * pairs,
        "params": params,
        "params_hidden": hidden,
        "pairs": pairs,
        "users": 1_000_000,
        "events": 20_000_000,
        "epochs": pairs / 1_000_000,
        "steps": pairs // batch,
        "batch": batch,
        "max_events": 64,
        "width": width,
        "layers": 2,
        "lr": 0.3 / width,
        "loss": float(surface(params, pairs)) * factor,
        "loss_se": None,
        "negatives": 4095,
        "eval_set": "abc",
        "loss_kind": "held_out",
        "annealed": True,
        "seconds": 1.0,
        "device": "cpu",
        "commit": "0",
        "role": "fit",
        **other,
    }


def rows(noise: float = 0.004, seed: int = 0) -> list[dict[str, Any]]:
    """Six sizes by five lengths, three seeds at the two smallest: 50 runs, 3.7 decades."""
    draw = np.random.default_rng(seed)
    return [
        row(width, pairs, seed=s, factor=float(np.exp(draw.normal(0, noise))))
        for width in (16, 24, 32, 48, 64, 96)
        for pairs in (2**14, 2**16, 2**17, 2**18, 2**20)
        for s in range(3 if width < 32 else 1)
    ]


def table(found: list[dict[str, Any]]) -> pa.Table:
    """The rows as Arrow."""
    whole = pa.Table.from_pylist(found)
    at = whole.schema.get_field_index("loss_se")
    return whole.set_column(at, "loss_se", whole["loss_se"].cast(pa.float64()))


def runs(found: list[dict[str, Any]]) -> Runs:
    """The rows as a fit reads them."""
    return from_table(table(found))


def write(found: list[dict[str, Any]], file: Path) -> Path:
    """The rows as a file."""
    pq.write_table(table(found), file)
    return file
