"""Benchmark `serve`: the service on one core beside the bare encoder, an empty route and a rival.

    python -m benchmarks.speed serve checkpoint=runs/demo index=indexes/demo

The server has one core, the load generator another, and answers are compared before anything is
timed. Generated load is open-loop: an answer's time counts from the moment its request was due.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import PositiveFloat, PositiveInt

from benchmarks.speed.report import Report
from benchmarks.speed.service import (
    bare,
    encode,
    hostile,
    known,
    overload,
    process,
    rebuild,
    rival,
)
from benchmarks.speed.service.study import Study

PARTS = ("overload", "hostile", "rival", "known", "rebuild")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which model and index; `seconds` of load for each arm in each round; which `parts`
    beside the embedding.

    The load are `users` of the index with their newest `events`. An answer under overload counts
    where it came within `deadline` seconds.
    """

    checkpoint: Path
    index: Path
    seconds: PositiveFloat = 10.0
    rounds: PositiveInt = 3
    users: PositiveInt = 2048
    events: PositiveInt = 50
    deadline: PositiveFloat = 1.0
    parts: tuple[str, ...] = PARTS
    out: Path = Path("results/speed/serve.json")

    def __post_init__(self) -> None:
        """Refuse parts that are not there."""
        for name in self.parts:
            if name not in PARTS:
                raise ValueError(f"parts has {name!r}; there are {', '.join(PARTS)}")


def measure(config: Config) -> Report:
    """Return the rows and claims of all parts."""
    ours, load = process.cores()
    with (
        tempfile.TemporaryDirectory(prefix="clue-serve-") as folder,
        process.worker(load) as generator,
        process.worker(ours, bare.begin, config.checkpoint, config.index) as encoder,
    ):
        study = Study(
            checkpoint=config.checkpoint,
            index=config.index,
            seconds=config.seconds,
            rounds=config.rounds,
            root=Path(folder),
            users=bare.users_of(config.index, config.users, events=config.events),
            generator=generator,
        )
        with study.serving("server") as server:
            peak = encode.measure(study, server, encoder)
            if "overload" in config.parts:
                overload.measure(study, server, peak, config.deadline)
            if "hostile" in config.parts:
                hostile.measure(study, server, peak)
            if "rival" in config.parts:
                rival.measure(study, server)
        if "known" in config.parts:
            known.measure(study)
        if "rebuild" in config.parts:
            rebuild.measure(study, peak)
    return Report(rows=study.rows, claims=study.claims, notes=study.notes)
