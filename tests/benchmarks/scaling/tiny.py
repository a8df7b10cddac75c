"""A corpus of tastes, a study of it that trains in seconds, runs that are forked, not launched."""

import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.scaling.sweep.sweep_config import Grid, Size, SweepConfig
from clue.config import load
from clue.data.corpus import Corpus
from clue.pretrain import STOPPED, pretrain
from clue.run.pretrain_config import PretrainConfig
from tests.benchmarks.worlds import corpus_of, parts, taste_events
from tests.processes import FORKS


def corpus(directory: Path) -> Corpus:
    split = parts(160)
    return corpus_of(directory, taste_events(split, np.random.default_rng(0)), split)


def study(directory: Path, made: Corpus, **keys: Any) -> SweepConfig:
    """Two sizes at 10 and at 40 steps of 16 users, the tokens' texts of two words."""
    settings: dict[str, Any] = {
        "name": "tiny",
        "pretrain": Path("configs/pretrain/scaling_world.yaml"),
        "overrides": [f"corpus={made.path}", "batch=16", "gallery=30", "compile=false"],
        "unit": "steps",
        "sizes": {"a": Size(width=8, layers=1, head=8), "b": Size(width=16, layers=1, head=8)},
        "grids": [Grid(budgets=[10, 40])],
        "threads": 1,
        "validations": 2,
        "runs": directory / "runs",
        "out": directory / "out",
    }
    return SweepConfig(**{**settings, **keys})


class Forked:
    """What `subprocess.Popen` is to a launched run: the same training, without a start of 10 s."""

    started: list[str]

    def __init__(self, command: list[str], **_: Any) -> None:
        type(self).started.append(Path(command[-1]).stem)
        ours, theirs = FORKS.Pipe()
        self.process = FORKS.Process(target=_train, args=(Path(command[-1]), theirs))
        self.process.start()
        ours.recv()
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int | None:
        self.process.join()
        return self.process.exitcode


def _train(run: Path, begun: Connection) -> None:
    os.setpgid(0, 0)
    begun.send("leads a group of its own")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    sys.stderr = run.with_suffix(".out").open("w")
    status = 1
    try:
        status = 0 if pretrain(load(PretrainConfig, run)) else STOPPED
    except Exception as error:
        sys.stderr.write(f"error: {error}\n")
    finally:
        sys.stderr.flush()
        os._exit(status)
