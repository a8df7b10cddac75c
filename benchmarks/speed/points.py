"""Short trainings whose held-out figures a benchmark compares, and steps timed side by side."""

import json
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import scipy
import torch
from scipy import stats

from clue.config import PretrainConfig
from clue.pretrain import pretrain
from clue.settings import to_yaml


def train(config: PretrainConfig) -> dict[str, float]:
    """Gives the held-out figures at the end of a run: entropy (nats), R@10, seconds a step.

    Its figures are kept beside where it lay, RUN.json, so that a finished point is never repeated;
    its checkpoints go.
    """
    kept = config.runs / f"{config.name}.json"
    asked = to_yaml(config)
    if kept.is_file():
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found["config"] == asked:
            return found["figures"]
    pretrain(config)
    figures = _figures(config.run / "log.jsonl")
    kept.write_text(json.dumps({"config": asked, "figures": figures}, indent=1), encoding="utf-8")
    shutil.rmtree(config.run)
    return figures


def _figures(log: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    valid = [line for line in lines if line["kind"] == "valid"][-1]["matching"].values()
    steps = [line for line in lines if line["kind"] == "train"]
    return {
        "entropy": statistics.fmean(f["calibrated_entropy"] for f in valid),
        "recall_at_10": statistics.fmean(f["recall_at_10"] for f in valid),
        "negatives": statistics.fmean(f["negatives"] for f in valid),
        "loss": steps[-1]["loss"],
        "seconds_a_step": statistics.median(line["seconds"] for line in steps),
    }


def interleaved(
    arms: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Gives each arm's wall and processor seconds of `rounds` calls, in turn: A B A B.

    A call before the first, whose time is not kept, warms each arm up.
    """
    for arm in arms.values():
        arm()
    found: dict[str, dict[str, list[float]]] = {n: {"wall": [], "processor": []} for n in arms}
    for _ in range(rounds):
        for name, arm in arms.items():
            wall, processor = time.perf_counter(), time.process_time()
            arm()
            found[name]["processor"].append(time.process_time() - processor)
            found[name]["wall"].append(time.perf_counter() - wall)
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Gives median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def paired_difference(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """Gives the mean of a_i - b_i over n >= 2 seeds and its interval of 95 % by Student's t."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean, n = statistics.fmean(differences), len(differences)
    half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(differences) / n**0.5
    return {"mean": mean, "low": mean - half, "high": mean + half}


def machine() -> dict[str, Any]:
    """Gives processor, threads, load and versions: where the figures were made."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    fields = {
        line.split(":")[0].strip(): line.split(":", 1)[1].strip()
        for line in text.splitlines()
        if ":" in line
    }
    fast = [f for f in ("avx512_bf16", "amx_bf16") if f in fields.get("flags", "").split()]
    return {
        "processor": ", ".join([fields.get("model name", platform.processor()), *fast]),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "scipy": scipy.__version__,
        },
    }


def write(out: Path, report: Mapping[str, Any]) -> Path:
    """Writes the report as JSON and gives its path."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
    return out
