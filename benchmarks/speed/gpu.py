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
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from clue.atomic import write_text

# Dense matrix products in bf16, TFLOP/s without sparsity, as the vendor's data sheets state them.
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0}
BATCHES = (8_192, 32_768, 131_072, 262_144)
SIZES = {"5m": "6m", "40m": "41m", "160m": "142m"}  # nearest sizes of configs/pretrain/ladder
# Rivals need environments of their own, thus a network; the dense formula is the reference.
LOSS = "loss device=cuda rivals=[] rounds=1"
STEP = (
    "step device=cuda precision=bf16 variants=[ours] rows=[] plain_rows=[] chunk_tokens=0 "
    "pairs=4096 control_pairs=256 world.users=4096 rounds=1 repeats=3"
)


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
    ending: Literal["done", "failed", "out of time", "not run"] = "not run"
    seconds: float = 0.0
    last_line: str = ""


@dataclass(frozen=True, kw_only=True)
class Config:
    """`seconds` are for all parts together; `parts` are names, all of them where it is empty."""

    seconds: PositiveInt = 480
    parts: list[str] = field(default_factory=list[str])
    out: Path = Path("results/gpu")

    def __post_init__(self) -> None:
        """Refuse names of no part."""
        known = [part.name for part in plan(self.out, 0.0)]
        unknown = [name for name in self.parts if name not in known]
        if unknown:
            raise ValueError(f"parts has {', '.join(unknown)}; there are {', '.join(known)}")


def plan(out: Path, peak_tflops: float) -> list[Part]:
    """Return the parts in order, cheapest knowledge first: 8 minutes in all."""
    speed = [(f"loss_{batch}", 30, f"{LOSS} batches=[{batch}]") for batch in BATCHES]
    for mode in ("eager", "compiled"):
        for size, rung in SIZES.items():
            keys = f"preset=configs/pretrain/ladder/{rung}.yaml compile={mode == 'compiled'}"
            step = f"{STEP} {keys} peak_tflops={peak_tflops:g}"
            speed.append((f"step_{size}_{mode}", 40, step))
    speed.append(("faiss", 35, "faiss rounds=3"))
    return [
        Part("tests", "pytest", ("-q", "-m", "gpu", "tests/train/test_cuda.py"), 60),
        *(
            Part(name, "benchmarks.speed", (*keys.split(), f"out={out}/{name}.json"), seconds)
            for name, seconds, keys in speed
        ),
        Part("indexes", "pytest", ("-q", "-m", "gpu", "tests/serving/test_base_index.py"), 25),
    ]


def measure(config: Config) -> None:
    """Run the parts and print how they ended; status 1 where one of them did not end well."""
    if not gpu_name():
        sys.stderr.write("error: torch sees no CUDA device here; run this on a machine with one\n")
        raise SystemExit(2)
    results = run(config)
    for one in results:
        sys.stdout.write(f"{one.part:22} {one.ending:12} {one.seconds:6.1f} s  {one.last_line}\n")
    raise SystemExit(any(one.ending != "done" for one in results))


def run(config: Config) -> list[Result]:
    """Return how each part ended, having written it into OUT/summary.json after every one."""
    config.out.mkdir(parents=True, exist_ok=True)
    name = gpu_name()
    peak = next((peak for known, peak in PEAK_TFLOPS.items() if known in name), 0.0)  # 0: no MFU
    parts = [p for p in plan(config.out, peak) if p.name in (config.parts or [p.name])]
    results = {part.name: Result(part.name) for part in parts}
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
    with (
        log.open("w", encoding="utf-8") as written,
        subprocess.Popen(
            command, stdout=written, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            ending = "failed" if process.wait(seconds) else "done"
        except subprocess.TimeoutExpired:
            ending = "out of time"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
    return Result(part.name, ending, round(time.monotonic() - began, 1), lines[-1][:300])


def write_summary(out: Path, gpu: str, results: Sequence[Result]) -> None:
    """Write OUT/summary.json, whole or not at all."""
    tree = {"gpu": gpu, "parts": [asdict(result) for result in results]}
    write_text(out / "summary.json", json.dumps(tree, indent=1) + "\n")


def missing(out: Path) -> list[str]:
    """Return the parts of the plan whose figures are not in `out`, each with the reason."""
    file = out / "summary.json"
    tree = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"parts": []}
    endings: dict[str, str] = {one["part"]: one["ending"] for one in tree["parts"]}
    ended = {part.name: endings.get(part.name, "not run") for part in plan(out, 0.0)}
    return [f"{name}: {ending}" for name, ending in ended.items() if ending != "done"]


def gpu_name() -> str:
    """Return the name of the GPU, empty where torch sees none."""
    import torch  # here: the documentation calls `missing`, which needs no torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
