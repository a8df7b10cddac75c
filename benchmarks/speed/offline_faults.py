"""Preparation, embedding and upload killed at random moments: what can be read then, what is lost.

    python -m benchmarks.speed offline_faults checkpoint=runs/demo corpus=corpora/demo

Each job runs in a process that is killed with SIGKILL at a moment drawn from the length of an
undisturbed run, and is started again, which goes on. After each kill what it writes must be absent
or whole, and what was finished must be as it was; in the end all files must equal those of the
undisturbed run, byte by byte, no other file may lie there, and no process may be left. The store is
an S3 server on this machine (moto). On Spark each second kill takes its JVM and its workers too.
"""

import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from pydantic import PositiveInt

from benchmarks.speed.offline_jobs import ADDRESS, CREDENTIALS, Job, JobName, jobs_of, s3_server
from benchmarks.speed.report import Report, Row, Spread, claim
from clue.synthetic.world import SyntheticConfig

# Children begin with torch and clue imported, so that the moments lie in the work and not before.
FORK = multiprocessing.get_context("fork")
ALL: tuple[JobName, ...] = ("prepare", "prepare on Spark", "embed", "upload")
GONE = 60.0  # seconds that what a killed process started may take to end
COUNTS = ("kills", "absent", "whole", "read in part", "parts made twice", "runs that ended")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A model, a corpus for it and a world's logs (`clue synthetic`); `kills` of each of `jobs`."""

    checkpoint: Path
    corpus: Path
    logs: Path = SyntheticConfig().out
    jobs: list[JobName] = field(default_factory=lambda: list(ALL))
    kills: PositiveInt = 20
    seed: int = 0
    out: Path = Path("results/speed/offline_faults.json")


def measure(config: Config) -> Report:
    """Return how often each job was killed and what came of it; AssertionError for a half one."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="clue-offline-") as folder, s3_server() as port:
        root = Path(folder)
        (root / "tmp").mkdir()
        here = {"AWS_ENDPOINT_URL": f"http://{ADDRESS}:{port}", "TMPDIR": str(root / "tmp")}
        os.environ |= {**CREDENTIALS, **here}  # noqa: TID251
        tempfile.tempdir = None  # read again
        jobs = jobs_of(config.jobs, (config.checkpoint, config.corpus, config.logs), root, inside)
        for job in jobs:
            rng = random.Random(f"{config.seed} {job.name}")
            figures = killed(job, config.kills, rng, root)
            rows.append(
                Row(
                    case=job.name,
                    arm="CLUE",
                    figures={name: Spread.of([value]) for name, value in figures.items()},
                )
            )
    sums = {name: sum(row.figures[name].median for row in rows) for name in rows[0].figures}
    return Report(
        rows=rows,
        claims=[
            claim("kills -9", sums["kills"], "at least", len(rows) * config.kills),
            claim("half results that were read", sums["read in part"], "at most", 0),
            claim("finished parts made twice", sums["parts made twice"], "at most", 0),
            claim("processes left", sums["processes left"], "at most", 0),
            claim("files and folders left", sums["files left"], "at most", 0),
        ],
        notes=[
            "Every end was equal to the undisturbed run, on Spark to that of DuckDB, byte by byte."
        ],
    )


def killed(job: Job, kills: int, rng: random.Random, root: Path) -> dict[str, float]:
    """Kill a job `kills` times; return the counts. AssertionError where an end is not whole.

    What lies in `root` at the end is what lay there after the undisturbed run, or is left.
    """
    assert inside(job.state) == "absent", f"{job.name} has nothing to do"
    began = time.monotonic()
    inside(job.run)
    life = time.monotonic() - began
    assert inside(job.state) == "whole", job.name
    expected = names(root)
    job.clear()
    counts = dict.fromkeys(COUNTS, 0.0)
    known: dict[str, str] = {}
    started: list[psutil.Process] = []
    while counts["kills"] < kills:
        process = FORK.Process(target=job.run)
        process.start()
        process.join(rng.uniform(0, life))
        was_killed = process.is_alive()
        started += kill(process.pid, tree=job.tree and counts["kills"] % 2 == 1)
        process.join()
        ended = "" if was_killed else f"{job.name} ended with {process.exitcode}"
        assert was_killed or process.exitcode == 0, ended
        now = job.finished()
        counts["parts made twice"] += sum(now.get(name, was) != was for name, was in known.items())
        try:
            state = inside(job.state)
        except AssertionError as error:
            sys.stderr.write(f"{job.name}: {error}\n")
            state = "read in part"
        counts[state] += was_killed or state == "read in part"
        counts["kills" if was_killed else "runs that ended"] += 1
        sys.stderr.write(f"{job.name}: {counts['kills']:.0f} of {kills} kills, {state}\n")
        known = now
        if state != "absent":  # from its start again
            job.clear()
            known = {}
    inside(job.run)
    assert inside(job.state) == "whole", job.name
    rest = remains(job, started, root, expected)
    job.clear()
    return {**counts, **rest, "seconds undisturbed": life}


def remains(
    job: Job, started: Sequence[psutil.Process], root: Path, expected: set[str]
) -> dict[str, float]:
    """Return how many processes, and files not `expected` in `root`, a job has left: printed."""
    left = living(started, GONE)
    more = sorted(names(root) - expected)
    for each in [*left, *more]:
        sys.stderr.write(f"{job.name}: {each} is left\n")
    for each in left:
        each.kill()
    return {"processes left": float(len(left)), "files left": float(len(more))}


def kill(pid: int | None, *, tree: bool) -> list[psutil.Process]:
    """Kill a process, where `tree` with all that it has started; return what it has started."""
    try:
        process = psutil.Process(pid)
        process.suspend()  # it starts no other while they are listed
        children = process.children(recursive=True)
        process.kill()
    except psutil.NoSuchProcess:
        return []
    for child in children if tree else []:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    return children


def living(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Return which processes are still there after so long, or at once when none is."""
    end = time.monotonic() + seconds
    while True:
        left = [each for each in processes if is_living(each)]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.1)


def is_living(process: psutil.Process) -> bool:
    """Return whether a process runs; one that has ended may wait to be noticed by its parent."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def names(folder: Path) -> set[str]:
    """Return the paths of all that lies below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def inside(function: Callable[[], Any]) -> Any:
    """Return what a function does in a process of its own, or raise AssertionError with why not.

    This process starts no thread, which a fork would lose.
    """
    ours, theirs = FORK.Pipe(duplex=False)

    def work() -> None:
        try:
            theirs.send((True, function()))
        except BaseException as error:
            theirs.send((False, f"{type(error).__name__}: {error}"))

    process = FORK.Process(target=work)
    process.start()
    theirs.close()
    good, value = ours.recv()
    process.join()
    if not good:
        raise AssertionError(value)
    return value
