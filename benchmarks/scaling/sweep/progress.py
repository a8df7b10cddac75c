"""What a sweep looks like: a table that is drawn again, or lines where there is no terminal."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table
from scipy.optimize import nnls

from benchmarks.scaling.sweep.grid import Point
from benchmarks.scaling.sweep.launch import Running
from clue.monitor.console import duration
from clue.monitor.read_log import read_log
from clue.train.optimiser import decay_start

FIRST_SPEED = 1e9  # FLOP/s assumed before a point is done; small models spend their time elsewhere
BAR = 24  # characters


@dataclass(frozen=True)
class Beside:
    """A sweep as part of a job: runs before it, and after it in `seconds`; its `own` estimate."""

    before: int = 0
    after: int = 0
    seconds: float = 0.0
    own: float = 0.0


def work_left(points: Sequence[Point]) -> dict[str, tuple[float, float]]:
    """Return steps and FLOPs that each point will take, what it has from a trunk left out.

    `points` are all of a sweep: those of a family together, and each after its trunk.
    """
    kept: dict[str, list[int]] = {}  # checkpoints of a family in which a branch may begin
    work: dict[str, tuple[float, float]] = {}
    for point in points:
        steps, rhythm = point.run.steps, point.run.checkpoint_every
        stable = decay_start(point.run.optimizer, steps)
        before = kept.setdefault(point.family, [])
        own = steps - max((step for step in before if step <= stable), default=0)
        if point.run.keep_every:
            before += range(rhythm, stable + 1, rhythm)
        work[point.name] = (own, own * point.facts.step_flops)
    return work


class Board:
    """Which points are done, running, left and failed, and when the last one will end."""

    def __init__(self, points: Sequence[Point], jobs: int, beside: Beside | None = None) -> None:
        """`points` are those of the roles that are trained; the summary counts `beside` too."""
        self.points, self.jobs, self.beside = points, jobs, beside
        self.work = work_left(points)
        self.done: dict[str, Mapping[str, Any]] = {}
        self.failed: dict[str, str] = {}
        console = Console(stderr=True)
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def seconds(self) -> dict[str, float]:
        """Return the wall seconds each point will take: a start, its steps and its FLOPs.

        The three costs are fitted to the points that are done.
        """
        known = [kept["own"] for kept in self.done.values() if kept["own"]["wall"] > 0]
        costs = np.array([0.0, 0.0, 1 / FIRST_SPEED])
        if known:
            scale = np.array([1.0, 1e3, 1e12])
            counts = np.array([[1.0, own["steps"], own["flops"]] for own in known]) / scale
            walls = np.array([[own["wall"]] for own in known])
            # relative errors: a long point may not hide what a short one takes
            costs = nnls(counts / walls, np.ones(len(walls)))[0] / scale
        return {name: float(costs @ [1.0, *each]) for name, each in self.work.items()}

    def left(self, running: Sequence[Running]) -> float:
        """Return the seconds until all points are done, in `jobs` slots."""
        seconds = self.seconds()
        busy = {one.point.name: one.wall for one in running}
        names = seconds.keys() - self.done.keys() - self.failed.keys()
        rest = [max(0.0, seconds[name] - busy.get(name, 0.0)) for name in names]
        return max([sum(rest) / self.jobs, *rest], default=0.0)

    def summary(self, running: Sequence[Running]) -> str:
        """Return the counts and the projected end in a line."""
        if self.beside is not None:
            return self._whole(running, self.beside)
        waiting = len(self.points) - len(self.done) - len(running) - len(self.failed)
        words = f"{len(self.done)} done, {len(running)} running, {waiting} left"
        words += f", {len(self.failed)} failed" if self.failed else ""
        end = f", about {duration(self.left(running))} to the end"
        return words + (end if waiting or running else "")

    def _whole(self, running: Sequence[Running], beside: Beside) -> str:
        """Return how far the job is, of which this sweep is a part."""
        done, runs = beside.before + len(self.done), beside.before + len(self.points) + beside.after
        bar = "━" * (BAR * done // runs)
        own = self.left(running) if self.done else beside.own
        left = duration(own + beside.seconds)
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"{bar:╌<{BAR}} {done} of {runs} runs{failed}, about {left} to the end"

    def say(self, line: str) -> None:
        """Write a line, above the table where there is one."""
        if self.live is not None:
            self.live.console.print(line, markup=False, highlight=False)
        else:
            sys.stderr.write(line + "\n")

    def draw(self, running: Sequence[Running]) -> None:
        """Draw the table, if there is a terminal."""
        if self.live is None:
            return
        table = Table(title=self.summary(running), title_justify="left")
        for name in ("point", "role", "FLOPs", "state", "held-out loss"):
            table.add_column(name)
        states = dict.fromkeys(self.done, "done") | dict.fromkeys(self.failed, "failed")
        states |= {one.point.name: _progress(one) for one in running}
        shown = [point for point in self.points if point.name in states]
        for point in shown[-self.live.console.height + 6 :]:
            loss = f"{self.done[point.name]['row']['loss']:.4f}" if point.name in self.done else ""
            flops = f"{point.flops:.2e}"
            table.add_row(point.name, point.role, flops, states[point.name], loss)
        self.live.update(table, refresh=True)


def _progress(one: Running) -> str:
    """Return how far a run is, by the last line of its log."""
    try:
        done = read_log(one.point.run.run).last_step
    except FileNotFoundError:
        return f"starting, {duration(one.wall)}"
    return f"{done}/{one.point.run.steps} steps, {duration(one.wall)}"
