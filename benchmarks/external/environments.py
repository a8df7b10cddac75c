"""The rivals' own environments below .rivals/, made with plain pip at the versions named here.

Nothing of theirs is part of this project. torch comes first and alone, so that no rival chooses
another: every arm of a comparison computes with the same torch.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TORCH = "torch==2.13.0"


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A package to compare with: `bare` is installed without what it asks for, `needs` with it."""

    name: str
    bare: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


# With what clue.nn and clue.data import, since its arm trains our own model.
SENTENCE_TRANSFORMERS = Rival(
    name="sentence-transformers",
    needs=("sentence-transformers==6.2.0", "transformers==5.24.0", "pyarrow>=20", "jaxtyping"),
)
# Its package imports torchvision, of which the loss needs nothing: only its file is loaded.
OPEN_CLIP = Rival(name="open_clip", bare=("open_clip_torch==3.3.0",), needs=("numpy",))
# Found by trial: its loader runs with current releases of what it imports, but needs transformers
# before 5, which moved a class; hydra-core, which it also asks for, is only read by its commands.
LIFESTREAM = Rival(
    name="pytorch-lifestream",
    bare=("pytorch-lifestream==0.6.0",),
    needs=(
        "transformers<5",
        "pytorch-lightning<3",
        "torchmetrics",
        "omegaconf",
        "scikit-learn",
        "pandas<4",
        "pyarrow>=20",
        "duckdb",
        "numpy<3",
    ),
)
# Found by trial: below Python 3.12 it needs numpy before 2, with which pyarrow 26 does not import.
RECTOOLS = Rival(name="rectools", needs=("rectools[torch]==0.19.0", "pyarrow>=20,<26"))


class RivalMissing(RuntimeError):
    """A rival's environment could not be made; the message has pip's own last line."""


def python_of(rival: Rival, home: Path = ROOT / ".rivals") -> Path:
    """Return the Python of the rival's environment, which is made where it is not complete.

    Raises RivalMissing where pip fails; a half-made environment is removed at the next try.
    """
    place = home / rival.name
    python = place / "bin" / "python"
    wanted = "\n".join((TORCH, *rival.bare, *rival.needs))
    stamp = place / "complete"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    sys.stderr.write(f"installing {rival.name} into {place}, a minute or two\n")
    shutil.rmtree(place, ignore_errors=True)
    _run(rival, [sys.executable, "-m", "venv", str(place)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-compile"]
    _run(rival, [*pip, TORCH])
    if rival.bare:
        _run(rival, [*pip, "--no-deps", *rival.bare])
    _run(rival, [*pip, TORCH, *rival.needs])
    stamp.write_text(wanted, encoding="utf-8")
    return python


def _run(rival: Rival, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1:] or "")
        raise RivalMissing(f"{rival.name}: `{' '.join(command)}` failed: {reason}")
