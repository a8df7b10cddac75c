"""The phases of a run: AdamW or Muon until the held-out loss stops falling, then SGD until it does.

The switching optimiser of LSRM (Zhang et al. 2023, arXiv 2311.11351): Adam until it converges, then
SGD until final convergence. Converged is what `patience` held-out measurements in a row show.

SGD goes on from the weights as they are, not from the best ones: `patience` measurements later they
may have begun to overfit, but the paper finds that the point of the switch hardly matters, the best
checkpoint stays on the disk whatever follows, and a run that never goes back is the same with and
without a stop in between. Nothing else is handed over: SGD starts without momentum, and the first
optimisers forget theirs. A checkpoint holds the state of the phase in which the run goes on: none
at the switch itself, SGD's momentum after it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch.optim import Optimizer

from clue.train.optimiser import OptimizerConfig, learning_rate


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands: what a checkpoint keeps of it, as JSON by `asdict` and `Progress(**...)`.

    `began` is how many steps had been taken when the phase began. `best` is the held-out loss to
    beat, in nats: the lowest of the run, but for gains within `min_gain`; None before the first
    finite one. `stale` counts the measurements of this phase since then.
    """

    phase: Literal["first", "sgd", "done"] = "first"
    began: int = 0
    best: float | None = None
    stale: int = 0


def advance(progress: Progress, config: OptimizerConfig, step: int, held_out: float) -> Progress:
    """Return where the run stands after `step` steps, when `held_out` nats were measured.

    A loss that is not finite is no lower one. SGD has to beat the best of the first phase. All
    processes must be told the same loss, and a measurement counts only where a run without a stop
    makes it too.
    """
    if not config.patience or progress.phase == "done":
        return progress
    level = math.inf if progress.best is None else progress.best - config.min_gain
    if math.isfinite(held_out) and held_out < level:
        return replace(progress, best=held_out, stale=0)
    if progress.stale + 1 < config.patience:
        return replace(progress, stale=progress.stale + 1)
    last = progress.phase == "sgd" or not config.sgd_lr
    return Progress(phase="done" if last else "sgd", began=step, best=progress.best)


def rate(progress: Progress, config: OptimizerConfig, step: int, steps: int) -> float:
    """Return the rate of step `step` (from 0) of `steps`: the schedule's, and `sgd_lr` under SGD.

    SGD has no warm-up: without moments there is no estimate to wait for.
    """
    if progress.phase == "first":
        return learning_rate(config, step, steps)
    return config.sgd_lr


def active(
    progress: Progress, first: Sequence[Optimizer], sgd: Optimizer | None
) -> Sequence[Optimizer]:
    """Return the optimisers that step, and whose state a checkpoint holds.

    `sgd` is None where the run has no such phase. Of a run that is done, those of its last phase.
    """
    return first if progress.phase == "first" or sgd is None else [sgd]


def hand_over(first: Iterable[Optimizer]) -> None:
    """Free the state of the first phase's optimisers, at the switch; weights stay as they are."""
    for optimizer in first:
        optimizer.state.clear()
