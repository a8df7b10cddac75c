"""What a run learns: how training on the contrastive encoder and on the next-item model differ.

The loop of `pretrain` knows nothing else of a model: an objective makes it, draws its batches,
computes its loss and measures it on held-out events.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import nn

from clue.data.batches import Batch
from clue.data.sequences import SequenceBatch
from clue.data.windows import WindowBatch
from clue.train.flops import StepFlops, Work
from clue.train.packing import Budget
from clue.train.step import Forward

Drawn = Batch | SequenceBatch | WindowBatch
Autocast = Callable[[], AbstractContextManager[object]]


class Objective(Protocol):
    """`task` names what is measured on held-out events, as the log calls it."""

    task: str

    def check(self, world: int) -> None:
        """Raise ValueError where `world` processes cannot share a batch equally."""
        ...

    def model(self) -> nn.Module:
        """Return the model with fresh weights, on the CPU."""
        ...

    def begin(self, core: Any) -> None:
        """Put into a fresh model what has a closed form, before the first step of a run."""
        ...

    def draw(self, step: int, rank: int = 0, world: int = 1) -> Drawn:
        """Return this process's part of batch `step`: a function of its arguments alone."""
        ...

    def budget(
        self, core: Any, batch: Any, *, free: int, fixed: bool, autocast: Autocast
    ) -> Budget:
        """Return what steps on such batches may hold of `free` bytes; ValueError for too few.

        With `fixed`, chunks have one shape, and the encoders are compiled where the config says so.
        """
        ...

    def forward(
        self, model: nn.Module, batch: Any, budget: Budget, device: torch.device
    ) -> Forward:
        """Return the loss of this process's part of a batch, with gradient, and what it showed."""
        ...

    def flops(self, work: Work) -> StepFlops:
        """Return what the work of a step costs one process."""
        ...

    def held_out(self, weights: dict[str, torch.Tensor]) -> dict[str, dict[str, float]]:
        """Return figures on held-out events, by name, of a plain model with these weights."""
        ...
