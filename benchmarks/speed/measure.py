"""Inside one arm's process: its time, its peak memory, its loss and gradient norm.

Runs in the rivals' environments too, so it needs torch and nothing else.
"""

import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MIB = 2**20
PACKAGES = (
    *("torch", "numpy", "sentence-transformers", "transformers"),
    *("open_clip_torch", "pytorch-lifestream", "rectools", "pandas", "duckdb"),
    *("faiss-cpu", "hnswlib"),
)


def run_arm(arm: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Run `arm` on the spec (JSON) in argv[1] and write its figures to the file argv[2]."""
    spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    if spec["device"] == "cuda" and not torch.cuda.is_available():
        raise SystemExit("device=cuda, but torch sees no CUDA device here; use device=cpu")
    figures = {**arm(spec), "versions": versions()}
    Path(sys.argv[2]).write_text(json.dumps(figures), encoding="utf-8")


def timed(step: Callable[[], tuple[Tensor, Tensor]], spec: dict[str, Any]) -> dict[str, Any]:
    """Return the loss, the gradient norm and the `figures` of `step`, which gives the first two.

    One warm-up, whose seconds stand apart; then `spec["repeats"]` timed runs, none for a gate. The
    peak is that of all of them above what the process held before, in MiB; on CUDA of what torch
    allocated.
    """
    before = _reset_peak(spec["device"])
    times = [time.perf_counter()]
    result: dict[str, float] = {}
    for _ in range(1 + spec["repeats"]):
        loss, norm = step()
        # on CUDA the numbers wait for the result
        result = result or {"loss": loss.item(), "grad_norm": norm.item()}
        (loss + norm).item()
        times.append(time.perf_counter())
    peak = torch.cuda.max_memory_allocated() if spec["device"] == "cuda" else memory("VmHWM")
    figures = {
        "seconds": (times[-1] - times[1]) / spec["repeats"] if spec["repeats"] else math.nan,
        "peak MiB": (peak - before) / MIB,
        "warm-up s": times[1] - times[0],
    }
    return {**result, "figures": figures}


def gradient_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the norm of the gradients of `tensors` together, and drop them."""
    squares: list[Tensor] = []
    for tensor in tensors:
        assert tensor.grad is not None
        squares.append(tensor.grad.double().square().sum())
        tensor.grad = None
    return torch.stack(squares).sum().sqrt()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide, those that are here."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def memory(field: str) -> int:
    """Return a field of /proc/self/status (VmRSS, VmHWM, VmData) in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {field}: this benchmark needs Linux")


def _reset_peak(device: str) -> int:
    """Start the peak again and return what is held now, in bytes."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM starts again at VmRSS
    return memory("VmRSS")
