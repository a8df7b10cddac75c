"""The rivals' own environments below .rivals/, made with plain pip at the versions named here.

Nothing of theirs is part of this project. torch comes first and alone, so that no rival chooses
another: every worker of a comparison computes with the same torch.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TORCH = "torch==2.13.0"
# Logits and hard negatives of 350 to 420 MB a step. With these glibc keeps such blocks instead of
# asking the kernel for fresh pages each time: 28 % less seconds for SASRec on one core and .4 s
# instead of 2.2 s a step of CoLES, the same losses to the bit.
ALLOCATOR = (
    "MALLOC_MMAP_MAX_=0",
    "MALLOC_TRIM_THRESHOLD_=17179869184",
    "MALLOC_TOP_PAD_=268435456",
)


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A package to compare with: `bare` is installed without what it asks for, `needs` with it."""

    name: str
    bare: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def packages(self) -> tuple[str, ...]:
        """All that pip is asked for."""
        return (TORCH, *self.bare, *self.needs)


# With what clue.nn, clue.data and clue.train import, since its arm trains our own model.
SENTENCE_TRANSFORMERS = Rival(
    name="sentence-transformers",
    needs=(
        *("sentence-transformers==6.2.0", "transformers==5.24.0"),
        *("accelerate>=1.10,<2", "pyarrow>=20", "jaxtyping"),
    ),
)
# Its package imports torchvision, of which the loss needs nothing: only its file is loaded.
OPEN_CLIP = Rival(name="open_clip", bare=("open_clip_torch==3.3.0",), needs=("numpy",))
# 0.7.0 lacks a folder of its own preprocessing; 0.6.0 without what it asks for (spacy 3.7.4, Spark,
# hydra-core, which only its commands read) and with these instead trains and embeds under Python
# 3.11. transformers 5 moved a class it needs.
LIFESTREAM = Rival(
    name="pytorch-lifestream",
    bare=("pytorch-lifestream==0.6.0",),
    needs=(
        "pytorch-lightning==2.6.6",
        "torchmetrics==1.9.0",
        "transformers==4.57.6",
        "omegaconf==2.4.0",
        "scikit-learn==1.9.1",
        "pandas==3.1.1",
        "pyarrow==26.0.1",
        "duckdb==2.0.1",
        "numpy==2.4.6",
    ),
)
# Found by trial: below Python 3.12 it needs numpy before 2, with which pyarrow 26 does not import.
RECTOOLS = Rival(name="rectools", needs=("rectools[torch]==0.19.0", "pyarrow>=20,<26"))

# The newest release; its command line wants the click of its time.
INFINITY = Rival(name="infinity", needs=("infinity-emb[server,torch]==0.0.77", "click==8.1.8"))


class RivalMissing(RuntimeError):
    """A rival's environment could not be made; the message has pip's own last line."""


class ArmFailed(RuntimeError):
    """A worker's process ended with an error; the message is the end of what it wrote."""


def python_of(rival: Rival, home: Path = ROOT / ".rivals") -> Path:
    """Return the Python of the rival's environment, which is made where it is not complete.

    Raises RivalMissing where pip fails; a half-made environment is removed at the next try.
    """
    folder = home / rival.name
    python = folder / "bin" / "python"
    wanted = "\n".join(rival.packages)
    stamp = folder / "complete"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    sys.stderr.write(f"installing {rival.name} into {folder}, a minute or two\n")
    shutil.rmtree(folder, ignore_errors=True)
    _run(rival, [sys.executable, "-m", "venv", str(folder)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-compile"]
    _run(rival, [*pip, TORCH])
    if rival.bare:
        _run(rival, [*pip, "--no-deps", *rival.bare])
    _run(rival, [*pip, TORCH, *rival.needs])
    stamp.write_text(wanted, encoding="utf-8")
    return python


def worker_command(rival: Rival, module: str, leave_out: str) -> list[str]:
    """Return the command of a worker; its environment is made where it is not complete.

    Raises FileNotFoundError where it cannot be made; `leave_out` is the key that does without it.
    """
    try:
        python = python_of(rival)
    except RivalMissing as error:
        raise FileNotFoundError(
            f"{error}\n{rival.name} needs an environment of its own, .rivals/{rival.name}, made by "
            f"pip of {' '.join(rival.packages)}: run this once where a package index can be "
            f"reached, or leave it out with {leave_out}=null"
        ) from None
    return ["env", *ALLOCATOR, str(python), "-W", "ignore", "-m", module]


def run_worker(command: list[str], spec: Mapping[str, Any], log: Path, name: str) -> None:
    """Run a worker on its spec, JSON in its last argument, and show its progress on stderr.

    ArmFailed with the last line of `log`, where its own stderr goes, where it fails.
    """
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            [*command, json.dumps(spec)], cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            sys.stderr.write(f"{name}: {line}")
    if process.returncode:
        lines = log.read_text(encoding="utf-8").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "nothing")
        raise ArmFailed(f"{name}, status {process.returncode}: {last[:300]} ({log} has all of it)")


def _run(rival: Rival, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1:] or "")
        raise RivalMissing(f"{rival.name}: `{' '.join(command)}` failed: {reason}")
