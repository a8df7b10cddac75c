"""Benchmark `gpu`: all that only a GPU can show, in at most 8 minutes, without a network.

    make gpu                       with the Python of the machine, a plain CUDA image
    make gpu WHEELS=wheels         after installing what the image lacks from a folder of wheels
    python -m benchmarks.speed gpu seconds=480 parts=[tests,loss_8192]

Each part is a process with a limit of its own and writes its own file, so that what was measured
stays when time runs out. OUT/summary.json says after every part how each of them ended.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from clue.atomic import write_text

Ending = Literal["done", "failed", "out of time", "not run"]
# Dense matrix products in bf16, TFLOP/s without sparsity, as the vendor's data sheets state them.
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0}
BATCHES = (8_192, 32_768, 131_072, 262_144)
SIZES = {"5m": "6m", "40m": "41m", "160m": "142m"}  # nearest sizes of configs/pretrain/ladder


@dataclass(frozen=True)
class Part:
    """One command: `python -m MODULE KEYS`, stopped after `seconds`."""

    name: str
    module: str
    keys: tuple[str, ...]
    seconds: int


@dataclass(frozen=True)
class Result:
    """How a part ended, after how long, and the last line that it printed."""

    part: str
    ending: Ending
    seconds: float = 0.0
    last_line: str = ""


@dataclass(frozen=True, kw_only=True)
class Config:
    """`seconds` are for all parts together; `parts` are names, all of them where it is empty."""

    seconds: int = 480
    parts: list[str] = field(default_factory=list[str])
    out: Path = Path("results/gpu")

    def __post_init__(self) -> None:
        """Refuse a limit that is none, and names of no part."""
        if self.seconds < 1:
            raise ValueError(f"seconds is {self.seconds}; it must be a positive limit")
        known = [part.name for part in plan(self.out, 0.0)]
        unknown = [name for name in self.parts if name not in known]
        if unknown:
            raise ValueError(f"parts has {', '.join(unknown)}; there are {', '.join(known)}")


def plan(out: Path, peak_tflops: float) -> list[Part]:
    """Return the parts in order, cheapest knowledge first: 8 minutes in all."""

    def speed(name: str, seconds: int, kind: str, *keys: str) -> Part:
        return Part(name, "benchmarks.speed", (kind, *keys, f"out={out}/{name}.json"), seconds)

    parts = [Part("tests", "pytest", ("-q", "-m", "gpu", "tests/train/test_cuda.py"), 60)]
    # Rivals need environments of their own, thus a network; the dense formula is the reference.
    parts += [
        speed(
            f"loss_{batch}",
            30,
            "loss",
            *("device=cuda", f"batches=[{batch}]", "rivals=[]", "rounds=1"),
        )
        for batch in BATCHES
    ]
    common = ("device=cuda", "precision=bf16", "variants=[ours]", "rows=[]", "plain_rows=[]")
    parts += [
        speed(
            f"step_{size}_{'compiled' if compiled else 'eager'}",
            40,
            "step",
            *(*common, f"preset=configs/pretrain/ladder/{name}.yaml", "chunk_tokens=0"),
            *(f"compile={str(compiled).lower()}", f"peak_tflops={peak_tflops:g}"),
            *("pairs=4096", "control_pairs=256", "world.users=4096", "rounds=1", "repeats=3"),
        )
        for compiled in (False, True)
        for size, name in SIZES.items()
    ]
    return [*parts, speed("faiss", 45, "faiss", "rounds=3")]


def run(config: Config) -> list[Result]:
    """Return how each part ended, having written it into OUT/summary.json after every one."""
    config.out.mkdir(parents=True, exist_ok=True)
    name = gpu_name()
    parts = plan(config.out, peak_of(name))
    parts = [part for part in parts if not config.parts or part.name in config.parts]
    results = {part.name: Result(part.name, "not run") for part in parts}
    deadline = time.monotonic() + config.seconds
    for part in parts:
        left = deadline - time.monotonic()
        if left > 0:
            sys.stderr.write(f"gpu: {part.name}, {left:.0f} s left\n")
            results[part.name] = execute(part, min(left, part.seconds), config.out)
        write_summary(config.out, name, list(results.values()))
    return list(results.values())


def execute(part: Part, seconds: float, out: Path) -> Result:
    """Return how a part ended; its output is OUT/PART.log, and its children end with it."""
    log, began = out / f"{part.name}.log", time.monotonic()
    command = [sys.executable, "-m", part.module, *part.keys]
    with log.open("w", encoding="utf-8") as written:
        process = subprocess.Popen(
            command, stdout=written, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            ending: Ending = "failed" if process.wait(seconds) else "done"
        except subprocess.TimeoutExpired:
            ending = "out of time"
        finally:
            _end(process)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    took = round(time.monotonic() - began, 1)
    return Result(part.name, ending, took, lines[-1][:300] if lines else "")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the part's process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write_summary(out: Path, gpu: str, results: Sequence[Result]) -> None:
    """Write OUT/summary.json, whole or not at all."""
    tree = {"gpu": gpu, "parts": [asdict(result) for result in results]}
    write_text(out / "summary.json", json.dumps(tree, indent=1) + "\n")


def missing(out: Path) -> list[str]:
    """Return the parts of the plan whose figures are not in `out`, each with the reason."""
    file = out / "summary.json"
    tree = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"parts": []}
    endings: Mapping[str, str] = {one["part"]: one["ending"] for one in tree["parts"]}
    names = [part.name for part in plan(out, 0.0)]
    return [
        f"{name}: {endings.get(name, 'not run')}" for name in names if endings.get(name) != "done"
    ]


def gpu_name() -> str:
    """Return the name of the GPU, empty where torch sees none."""
    import torch  # here: `missing` is asked by the documentation, which needs no torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def peak_of(name: str) -> float:
    """Return the peak of bf16 in TFLOP/s by the GPU's name; 0, for no MFU, where none is known."""
    return next((peak for known, peak in PEAK_TFLOPS.items() if known in name), 0.0)


def measure(config: Config) -> None:
    """Run the parts and print how they ended; status 1 where one of them did not end well."""
    if not gpu_name():
        sys.stderr.write("error: torch sees no CUDA device here; run this on a machine with one\n")
        raise SystemExit(2)
    results = run(config)
    for one in results:
        sys.stdout.write(f"{one.part:22} {one.ending:12} {one.seconds:6.1f} s  {one.last_line}\n")
    raise SystemExit(any(one.ending != "done" for one in results))
