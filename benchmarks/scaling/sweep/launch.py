"""Points as processes: each an ordinary `accelerate launch clue/pretrain.py`, under a lock."""

import fcntl
import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
from typing import TextIO

from benchmarks.scaling.sweep.grid import Point
from clue.atomic import write_text
from clue.config import to_yaml
from clue.train.optimiser import decay_start

GRACE = 30.0  # seconds that a stopped run has for its checkpoint
TAIL = 1500  # characters of a failed run's output that are shown


@dataclass
class Running:
    """A point in training: its process, in which of the `jobs` slots, since when."""

    point: Point
    process: Popen[bytes]
    slot: int
    began: float

    @property
    def wall(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    def stop(self) -> None:
        """Let the run save a checkpoint and end; kill it where it takes more than GRACE."""
        signals = [(time.monotonic() + GRACE, signal.SIGKILL), (0.0, signal.SIGTERM)]
        while _alive(self.process):
            if signals and time.monotonic() >= signals[-1][0]:  # once: a second SIGTERM would kill
                os.killpg(self.process.pid, signals.pop()[1])  # the launcher passes nothing on
            time.sleep(0.1)


def command(run: Path, *, gpu: int | None, threads: int) -> list[str]:
    """Return the command that trains the config file `run` on a GPU, or on none."""
    machine = f"configs/accelerate/{'cpu' if gpu is None else 'gpu1'}.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    launch += ["--config_file", machine, "--num_cpu_threads_per_process", str(threads)]
    launch += [] if gpu is None else ["--gpu_ids", str(gpu)]
    return [*launch, "clue/pretrain.py", str(run)]


def start(point: Point, trunk: Path | None, *, slot: int, gpus: int, threads: int) -> Running:
    """Return the point, started; what it prints goes to RUNS/NAME.out, beside NAME.yaml.

    Raises ValueError where it is running already, from an earlier call that was killed: whoever
    trains a point holds a lock that ends with the last of its processes.
    """
    run = replace(point.run, trunk=trunk)
    run.runs.mkdir(parents=True, exist_ok=True)
    file = run.runs / f"{run.name}.yaml"
    with _locked(run.runs / f".{run.name}.lock") as lock:
        write_text(file, to_yaml(run))
        gpu = slot % gpus if gpus else None
        with file.with_suffix(".out").open("wb") as out:
            process = Popen(
                command(file, gpu=gpu, threads=threads),
                stdout=out,
                stderr=STDOUT,
                stdin=DEVNULL,
                start_new_session=True,  # so that one signal reaches the launcher and the run
                pass_fds=[lock.fileno()],
            )
    return Running(point, process, slot, time.monotonic())


def trunk_of(point: Point, family: list[Point]) -> Path | None:
    """Return the run of the family with the newest checkpoint in which this one may begin.

    That is one from before the cooldown of either; None where there is none, and the run is whole.
    """
    own = decay_start(point.run.optimizer, point.run.steps)
    begins: list[tuple[int, Path]] = []
    for other in (one for one in family if one is not point):
        limit = min(own, decay_start(other.run.optimizer, other.run.steps))
        saved = (folder.name for folder in other.run.run.glob("checkpoints/step_*"))
        steps = (int(name.removeprefix("step_")) for name in saved)
        begins += [(step, other.run.run) for step in steps if 0 < step <= limit]
    return max(begins, key=lambda begin: begin[0])[1] if begins else None


def tail(point: Point) -> str:
    """Return the end of what a run printed."""
    out = point.run.runs / f"{point.name}.out"
    return out.read_text(encoding="utf-8", errors="replace")[-TAIL:].strip()


def _locked(file: Path) -> TextIO:
    lock = file.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ValueError(
            f"{file} is held: the point is in training since an earlier call; wait for it, or end "
            f"it (fuser {file} names its processes), then call again"
        ) from None
    return lock


def _alive(process: Popen[bytes]) -> bool:
    """Return whether anything of the process's group is left."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
