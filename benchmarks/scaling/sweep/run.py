"""Command: trains the points of a study that are missing, and writes the table of all runs.

    python -m benchmarks.scaling sweep configs/sweep/synthetic.yaml dry=true
    python -m benchmarks.scaling sweep configs/sweep/synthetic.yaml
    python -m benchmarks.scaling sweep configs/sweep/synthetic.yaml roles=[fit,held_out]

Every point is an ordinary run of `clue/pretrain.py`, of which RUNS/NAME.yaml is the config. Of runs
that differ in their length alone, the shorter ones branch off the longest: they pay for their own
cooldown. The same command again goes on: a finished point is never repeated, a stopped one goes on
from its checkpoint, a failed one is tried again. OUT/runs.parquet has a row for each finished point
(benchmarks/scaling/sweep/run_records.py), OUT/curves.parquet the held-out loss along each run.
Held-out points are trained only once OUT/prediction.json says what their losses will be.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence

import torch

from benchmarks.external import machine
from benchmarks.json_files import read_prediction
from benchmarks.metrics.format import aligned
from benchmarks.scaling.sweep.grid import Point, lay_out
from benchmarks.scaling.sweep.launch import Running, start, tail, trunk_of
from benchmarks.scaling.sweep.progress import Beside, Board, work_left
from benchmarks.scaling.sweep.run_records import finished, record, write_tables
from benchmarks.scaling.sweep.sweep_config import ROLES, SweepConfig
from clue.config import run_command
from clue.monitor.console import duration

POLL = 0.5  # seconds between two looks at the running points


class Sweep:
    """The points of a study in `jobs` slots, each with `threads` threads and perhaps a GPU."""

    def __init__(self, config: SweepConfig, beside: Beside | None = None) -> None:
        """Lay out the points; ValueError or FileNotFoundError for one that cannot work.

        `beside` are the runs of the job of which the sweep is a part.
        """
        self.config, self.points = config, lay_out(config)
        roles = [role for role in ROLES if role in config.roles]
        self.chosen = [point for role in roles for point in self.points if point.role == role]
        self.gpus = torch.cuda.device_count()
        self.jobs = config.jobs or max(1, self.gpus)
        self.threads = config.threads or max(1, (os.cpu_count() or 1) // self.jobs)
        self.machine = machine.describe("cuda" if self.gpus else "cpu", self.threads)
        self.board = Board(self.chosen, self.jobs, beside)
        kept = {point.name: finished(point) for point in self.chosen}
        self.board.done |= {name: one for name, one in kept.items() if one is not None}
        self.running: list[Running] = []

    def train(self) -> int:
        """Train what is missing and return how many points failed; the others go on."""
        config, board = self.config, self.board
        write_tables(config, self.points)
        board.say(f"{config.name}: {board.summary(self.running)}")
        if board.live is not None:
            board.live.start()
        try:
            while self._fill() or self.running:
                time.sleep(POLL)
                for one in [one for one in self.running if one.process.poll() is not None]:
                    self.running.remove(one)
                    self._ended(one)
                board.draw(self.running)
        finally:
            for one in self.running:
                one.stop()
            if board.live is not None:
                board.live.stop()
        for name, reason in board.failed.items():
            board.say(f"failed: {name}: {reason}")
        return len(board.failed)

    def _fill(self) -> bool:
        """Start points in the free slots; return whether any is running."""
        for slot in sorted({*range(self.jobs)} - {one.slot for one in self.running}):
            point = next((point for point in self.chosen if self._is_ready(point)), None)
            if point is None:
                break
            trunk, gpus, threads = trunk_of(point, self._family(point)), self.gpus, self.threads
            try:
                self.running.append(start(point, trunk, slot=slot, gpus=gpus, threads=threads))
            except (ValueError, OSError) as error:
                self.board.failed[point.name] = str(error)
            self.board.draw(self.running)
        return bool(self.running) or any(self._is_ready(point) for point in self.chosen)

    def _family(self, point: Point) -> list[Point]:
        return [other for other in self.points if other.family == point.family]

    def _is_ready(self, point: Point) -> bool:
        """Return whether a point may start: it waits for those of which it can branch off."""
        over = self.board.done.keys() | self.board.failed.keys()
        if point.name in over or any(point is one.point for one in self.running):
            return False
        rank = (ROLES.index(point.role), not point.leads)
        return all(
            other.name in over
            for other in self.chosen
            if other.family == point.family
            and other.leads
            and other is not point
            and (ROLES.index(other.role), not other.leads) <= rank
        )

    def _ended(self, one: Running) -> None:
        """Take in a run that ended: its record, the tables, or why it failed."""
        point, board = one.point, self.board
        try:
            if one.process.returncode:
                raise ValueError(f"status {one.process.returncode}: {tail(point)}")
            record(self.config, point, self.machine, one.wall)
        except (ValueError, OSError, KeyError) as error:
            board.failed[point.name] = str(error)
            board.say(f"{point.name} failed; the next call tries it again. {error}")
            return
        kept = finished(point)
        assert kept is not None
        board.done[point.name] = kept
        write_tables(self.config, self.points)
        row = kept["row"]
        board.say(
            f"{point.name}: loss {row['loss']:.4f} at K {row['negatives']}, {row['flops']:.2e} "
            f"FLOPs, {duration(one.wall)}; {board.summary(self.running)}"
        )
        self._prune(point)

    def _prune(self, point: Point) -> None:
        """Delete the checkpoints for branches once a family has all its points, of every role."""
        runs = [other.run.run for other in self._family(point) if finished(other) is not None]
        for run in runs if len(runs) == len(self._family(point)) else []:
            named = {(run / name).read_text(encoding="utf-8").strip() for name in ("last", "best")}
            for folder in run.glob("checkpoints/step_*"):
                if folder.name not in named:
                    shutil.rmtree(folder)


def plan(points: Sequence[Point]) -> str:
    """Return the points as lines, with what each adds and what all cost."""
    work = work_left(points)
    lines = [["point", "role", "steps", "FLOPs", "own steps", "epochs", "params"]]
    for point in points:
        steps, epochs = point.run.steps, point.run.steps / point.facts.epoch
        counts = [f"{steps}", f"{point.flops:.2e}", f"{work[point.name][0]:.0f}", f"{epochs:.2f}"]
        lines.append([point.name, point.role, *counts, f"{point.facts.params:,}"])
    steps, flops = (sum(own[n] for own in work.values()) for n in (0, 1))
    end = f"{len(points)} points, {steps:,.0f} steps and {flops:.2e} FLOPs to be trained"
    return f"{aligned(lines)}\n{end}\n"


def sweep(config: SweepConfig, beside: Beside | None = None) -> int:
    """Train what is missing, or print the plan where `dry`; return how many points failed.

    Raises ValueError or FileNotFoundError, before any run, where a point cannot work, or is held
    out and not predicted.
    """
    if config.dry:
        sys.stdout.write(plan(lay_out(config)))
        return 0
    study = Sweep(config, beside)
    _refuse_unpredicted(config, study)
    return study.train()


def _refuse_unpredicted(config: SweepConfig, study: Sweep) -> None:
    """Refuse to train what is held out before it is predicted: later it would be no prediction."""
    left = [p for p in study.chosen if p.role == "held_out" and p.name not in study.board.done]
    file = config.out / "prediction.json"
    targets = read_prediction(file)["targets"] if left and file.is_file() else []
    unknown = sorted({point.name for point in left} - {target["name"] for target in targets})
    if unknown:
        raise ValueError(
            f"{unknown[0]} is held out, and {file} does not say what its loss will be; predict it "
            f"first: python -m benchmarks.scaling predict {config.out / 'runs.parquet'} "
            f"sweep=CONFIG out={file}"
        )


def stopping() -> None:
    """Let a SIGTERM end this process as Ctrl-C does, so that running points save a checkpoint."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def main(argv: Sequence[str]) -> None:
    """Run the command line; SIGTERM and Ctrl-C let the running points save a checkpoint."""
    stopping()
    if run_command(SweepConfig, sweep, argv, description=__doc__):
        raise SystemExit(1)
