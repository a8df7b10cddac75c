"""Command: one benchmark of speed, `python -m benchmarks.speed NAME [key=value ...]`.

    python -m benchmarks.speed loss            the loss alone, against open_clip and others
    python -m benchmarks.speed step            a training step, against sentence-transformers
    python -m benchmarks.speed batch           the largest batch at a fixed memory limit
    python -m benchmarks.speed loader          views a second, against pytorch-lifestream
    python -m benchmarks.speed optim           Muon against AdamW: what a short training reaches
    python -m benchmarks.speed precision       bf16 against fp32: a step's time, what is reached
    python -m benchmarks.speed lr_width        does a learning rate carry over to another width?
    python -m benchmarks.speed embed           users a second of a universal encoder, by block
    python -m benchmarks.speed faiss           exact search, on a GPU against the processor
    python -m benchmarks.speed faults          the service killed, its files damaged: what is lost
    python -m benchmarks.speed offline_faults  preparation, embedding, upload killed: what is read
    python -m benchmarks.speed engines         one corpus by DuckDB and by Spark: time, bytes
    python -m benchmarks.speed prepare         logs larger than memory, against others' first step
    python -m benchmarks.speed retrieve        nearest vectors, by kind of index, against hnswlib
    python -m benchmarks.speed serve           the service on one core, overload, rivals, rebuilds
    python -m benchmarks.speed soak            mixed load for half an hour: memory, descriptors
    python -m benchmarks.speed gpu             all that only a GPU can show, in at most 8 minutes
    python -m benchmarks.speed NAME --help     the keys of NAME and their defaults

Each writes results/speed/NAME.json and prints its table. Rivals are installed into environments of
their own below .rivals/ when they are first needed.
"""

import importlib
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.external import machine
from benchmarks.external.environments import ArmFailed, RivalMissing
from benchmarks.speed.measure import versions
from benchmarks.speed.report import markdown, recorded, write_report
from clue.config import read_command_line, user_errors

NAMES = re.findall(r"benchmarks\.speed ([a-z_]+) ", __doc__ or "")  # those above


def main(argv: Sequence[str]) -> None:
    """Run the benchmark that `argv` names and write its report; status 2 for a wrong name.

    Keys that are absolute paths are left out of the command, as `recorded` leaves them out.
    """
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(__doc__ or "")
        return
    name, *keys = argv
    if name not in NAMES:
        sys.stderr.write(f"error: no benchmark {name!r}; there are {', '.join(NAMES)}\n")
        raise SystemExit(2)
    # Imported when it is named: a machine needs the packages of one benchmark alone.
    module = importlib.import_module(f"benchmarks.speed.{name.replace('faiss', 'faiss_search')}")
    config = read_command_line(module.Config, keys, description=module.__doc__ or "")
    device, threads = getattr(config, "device", "cpu"), getattr(config, "threads", 1)
    before = {**machine.describe(device, threads), "versions": versions()}
    torch.set_num_threads(threads)
    with user_errors(ArmFailed, RivalMissing):
        report = module.measure(config)
        shown = [key for key in keys if not Path(key.partition("=")[2]).is_absolute()]
        report = replace(
            report,
            name=name,
            command=" ".join([f"python -m benchmarks.speed {name}", *shown]),
            machine={**before, "load_end": machine.load(), **report.machine},
            config={**recorded(config), **report.config},
        )
        write_report(report, config.out)
    sys.stdout.write(markdown(report) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
