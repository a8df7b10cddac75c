"""Where a benchmark ran: processor, threads, load, packages, commit."""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.external.environments import ROOT


def describe(device: str, threads: int) -> dict[str, Any]:
    """Return the facts that hold before the first arm: `load_start` is the one-minute average."""
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {
        "device": gpu or processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "load_start": load(),
        **revision(),
    }


@cache
def revision() -> dict[str, Any]:
    """Return the commit that this process runs, and whether anything differs from it.

    Of `uncommitted` changes those below results/, which the commands write, do not count.
    """
    changed = _git("status", "--porcelain", "--", ".", ":!results")
    return {"commit": _git("rev-parse", "--short", "HEAD"), "uncommitted": bool(changed)}


def merge_versions(arms: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the versions of packages that any of the arms had, where they differ all of them."""
    merged: dict[str, dict[str, None]] = {}
    for versions in arms:
        for package, version in versions.items():
            merged.setdefault(package, {})[version] = None
    return {package: " and ".join(versions) for package, versions in sorted(merged.items())}


def load() -> float:
    """Return the average number of processes that wanted to run in the last minute."""
    return round(os.getloadavg()[0], 2)


def processor() -> str:
    """Return the processor's model name and its bf16 abilities, as Linux tells them."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    plain = {key.strip(): value.strip() for key, value in fields.items()}
    fast = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in plain.get("flags", "").split()]
    return ", ".join([plain.get("model name", platform.processor()), *fast])


def _git(*words: str) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
