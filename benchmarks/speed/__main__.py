"""Command: one benchmark of speed, `python -m benchmarks.speed NAME [key=value ...]`.

    python -m benchmarks.speed loss            the loss alone, against open_clip and others
    python -m benchmarks.speed step            a training step, against sentence-transformers
    python -m benchmarks.speed batch           the largest batch at a fixed memory limit
    python -m benchmarks.speed loader          views a second, against pytorch-lifestream
    python -m benchmarks.speed optim           Muon against AdamW: what a short training reaches
    python -m benchmarks.speed precision       bf16 against fp32: a step's time, what is reached
    python -m benchmarks.speed lr_width        does a learning rate carry over to another width?
    python -m benchmarks.speed faiss           exact search, on a GPU against the processor
    python -m benchmarks.speed gpu             all that only a GPU can show, in at most 8 minutes
    python -m benchmarks.speed NAME --help     the keys of NAME and their defaults

Each writes results/speed/NAME.json and prints its table. Rivals are installed into environments of
their own below .rivals/ when they are first needed.
"""

import importlib
import sys

from benchmarks.external.environments import RivalMissing
from benchmarks.speed.interleave import ArmFailed
from clue.config import user_errors

# By module, imported when it is asked for: a machine needs the packages of one benchmark alone.
COMMANDS = {
    "step": "step",
    "loss": "loss",
    "batch": "batch",
    "loader": "loader",
    "optim": "optim",
    "precision": "precision",
    "lr_width": "lr_width",
    "faiss": "faiss_search",
    "gpu": "gpu",
}


def main(argv: list[str]) -> None:
    """Runs the benchmark that `argv` names; a wrong name ends the process with status 2."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(__doc__ or "")
        return
    name, *keys = argv
    if name not in COMMANDS:
        sys.stderr.write(f"error: no benchmark {name!r}; there are {', '.join(COMMANDS)}\n")
        raise SystemExit(2)
    module = importlib.import_module(f"benchmarks.speed.{COMMANDS[name]}")
    with user_errors(ArmFailed, RivalMissing):
        module.main(keys)


if __name__ == "__main__":
    main(sys.argv[1:])
