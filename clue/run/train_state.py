"""What learns in a run: model, optimisers, average and phase, in the hands of the accelerator."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from clue.run import checkpoint
from clue.run.checkpoint import Checkpoint
from clue.run.objectives.base import Objective
from clue.run.pretrain_config import PretrainConfig
from clue.train import phases
from clue.train.ema import Average
from clue.train.memory import free_memory
from clue.train.optimiser import make_optimizers, make_sgd
from clue.train.packing import Budget
from clue.train.phases import Progress
from clue.train.state_dict import restore
from clue.train.transfer import nest, rescale

ITEMS = "decoder.item.weight"  # of NextItem


@dataclass
class TrainState:
    """What learns: `core` is the plain model inside `model`, which the processes share.

    `optimizers` step and `plain_optimizers` are inside them; the last one is SGD, where the run has
    a phase of it, and `progress` says which phase it is in. `average` is that of the weights.
    """

    core: nn.Module
    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    plain_optimizers: list[torch.optim.Optimizer]
    average: Average
    budget: Budget
    progress: Progress
    has_sgd: bool

    def stepping(self) -> Sequence[torch.optim.Optimizer]:
        """Return the optimisers of the present phase."""
        return self._of_phase(self.optimizers)

    def plain_stepping(self) -> Sequence[torch.optim.Optimizer]:
        """Return the plain ones inside them, whose state a checkpoint holds."""
        return self._of_phase(self.plain_optimizers)

    def go_on(self, progress: Progress) -> None:
        """Take in where the run stands; where SGD begins, the optimisers before it forget."""
        if self.has_sgd and progress.phase != self.progress.phase:
            phases.hand_over(self.plain_stepping())
        self.progress = progress

    def _of_phase(self, optimizers: list[torch.optim.Optimizer]) -> Sequence[torch.optim.Optimizer]:
        first, sgd = (optimizers[:-1], optimizers[-1]) if self.has_sgd else (optimizers, None)
        return phases.active(self.progress, first, sgd)


def prepared(
    config: PretrainConfig, accelerator: Accelerator, objective: Objective, start: Checkpoint | None
) -> TrainState:
    """Return fresh weights and optimisers, or those of `start`, in the hands of the accelerator.

    Raises ValueError where not even the vectors of a batch fit into the free memory.
    """
    torch.manual_seed(config.seed)
    core = objective.model()
    if start is None:
        if config.nested:
            nest(core, config.seed)
        rescale(core, config.optimizer.base)
        objective.begin(core)
    if start is None and config.warm_start is not None:
        warm(core, config.warm_start)
    core.to(accelerator.device)
    budget = step_budget(accelerator, core, objective)
    plain = make_optimizers(core, config.optimizer)
    has_sgd = config.optimizer.sgd_lr > 0
    if has_sgd:
        plain.append(make_sgd(core, config.optimizer))
    model, *optimizers = accelerator.prepare(core, *plain)
    average = Average(core, config.optimizer.ema)
    progress = start.progress if start is not None else Progress()
    learner = TrainState(core, model, optimizers, plain, average, budget, progress, has_sgd)
    if start is not None:
        restore(core, learner.plain_stepping(), start.trained(), start.optimizer())
        average.load(start.weights())
    return learner


def warm(core: nn.Module, run: Path) -> None:
    """Put the weights of another run's best checkpoint into a next-item model, but for its items.

    The two may know different catalogues: what was learnt about sequences goes over, the items are
    learnt anew. Raises ValueError where the models have different shapes.
    """
    theirs = checkpoint.find(run).weights()
    ours = {name: value for name, value in core.state_dict().items() if name != ITEMS}
    shapes = {n: tuple(w.shape) for n, w in theirs.items() if n != ITEMS}
    for name in sorted(ours.keys() | shapes.keys()):
        own = tuple(ours[name].shape) if name in ours else None
        if own != shapes.get(name):
            raise ValueError(
                f"warm_start={run} has {name} of shape {shapes.get(name)}, this model {own}; give "
                "a next-item run of the same decoder"
            )
    core.load_state_dict({n: theirs[n] for n in ours}, strict=False)


def step_budget(accelerator: Accelerator, core: nn.Module, objective: Objective) -> Budget:
    """Return the chunks of a step and how much may stay in memory, from what is free now.

    With fixed shapes the encoders are compiled, where the config lets them. Before the model is
    sharded: a part of it alone could not compute afterwards.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    fixed = accelerator.device.type == "cuda" and accelerator.mixed_precision == "bf16"
    if fixed:
        # DDP would split the graphs to overlap its exchange, and compile each part again
        torch._dynamo.config.optimize_ddp = False  # pyright: ignore[reportPrivateUsage]
    return objective.budget(
        core,
        objective.draw(0, rank, world),
        free=free_memory(accelerator.device, world),
        fixed=fixed,
        autocast=lambda: accelerator.autocast(),
    )
