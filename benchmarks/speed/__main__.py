"""Command: one benchmark of speed, `python -m benchmarks.speed NAME [key=value ...]`.

    python -m benchmarks.speed loss            the loss alone, against open_clip and others
    python -m benchmarks.speed step            a training step, against sentence-transformers
    python -m benchmarks.speed batch           the largest batch at a fixed memory limit
    python -m benchmarks.speed loader          views a second, against pytorch-lifestream
    python -m benchmarks.speed optim           Muon against AdamW: what a short training reaches
    python -m benchmarks.speed precision       bf16 against fp32: a step's time, what is reached
    python -m benchmarks.speed lr_width        does a learning rate carry over to another width?
    python -m benchmarks.speed NAME --help     the keys of NAME and their defaults

Each writes results/speed/NAME.json and prints its table. Rivals are installed into environments of
their own below .rivals/ when they are first needed.
"""

import sys

from benchmarks.external.environments import RivalMissing
from benchmarks.speed import batch, loader, loss, lr_width, optim, precision, step
from benchmarks.speed.interleave import ArmFailed
from clue.config import user_errors

COMMANDS = {
    "step": step.main,
    "loss": loss.main,
    "batch": batch.main,
    "loader": loader.main,
    "optim": optim.main,
    "precision": precision.main,
    "lr_width": lr_width.main,
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
    with user_errors(ArmFailed, RivalMissing):
        COMMANDS[name](keys)


if __name__ == "__main__":
    main(sys.argv[1:])
