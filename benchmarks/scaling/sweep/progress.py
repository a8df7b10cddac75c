"""What a sweep says of itself: counts of its points, and when the last one will end."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import nnls

from benchmarks.scaling.sweep.grid import Point
from benchmarks.scaling.sweep.launch import Running
from clue.monitor.console import duration
from clue.train.optimiser import decay_start

FIRST_SPEED = 1e9  # FLOP/s assumed before a point is done; small models spend their time elsewhere


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

    def __init__(self, points: Sequence[Point], jobs: int) -> None:
        """`points` are those of the roles that are trained."""
        self.points, self.jobs = points, jobs
        self.work = work_left(points)
        self.done: dict[str, Mapping[str, Any]] = {}
        self.failed: dict[str, str] = {}

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
        waiting = len(self.points) - len(self.done) - len(running) - len(self.failed)
        words = f"{len(self.done)} done, {len(running)} running, {waiting} left"
        words += f", {len(self.failed)} failed" if self.failed else ""
        end = f", about {duration(self.left(running))} to the end"
        return words + (end if waiting or running else "")
