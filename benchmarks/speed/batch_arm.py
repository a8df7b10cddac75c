"""One arm of the benchmark `batch`: the trainer's step under a limit of memory."""

import resource
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from benchmarks.speed.measure import MIB, memory, run_arm, timed
from benchmarks.speed.step_arm import WHOLE, make_model, make_sampler
from clue.data.batches import PairSampler
from clue.data.corpus import Corpus
from clue.data.views import ViewsConfig
from clue.train.losses.contrastive import LossConfig
from clue.train.memory import find_budget, free_memory
from clue.train.optimiser import OptimizerConfig, make_optimizers
from clue.train.packing import Budget
from clue.train.step import contrastive_forward, train_step

SPENT = ("memory", "could not create a primitive")  # torch's words and oneDNN's for no memory left


def arm(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of steps at `batch`, or `fits: False` where memory did not suffice.

    The process may hold `limit_mib` more private memory (RLIMIT_DATA) than it did with the model
    and the corpus open and before the first step, which brings the optimiser's state too.
    """
    if spec["corpus"] is None:
        sampler = make_sampler(spec)
    else:
        corpus = Corpus.open(Path(spec["corpus"]))
        sampler = PairSampler(corpus, ViewsConfig(), batch=spec["batch"], seed=0)
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=spec["device"] == "cpu")
    core = make_model(spec)
    model, *optimizers = accelerator.prepare(core, *make_optimizers(core, OptimizerConfig()))
    steps = 0

    def step() -> tuple[Tensor, Tensor]:
        nonlocal steps
        batch = sampler.at(steps)
        forward = partial(
            contrastive_forward,
            batch=batch,
            budget=budget(),
            loss=LossConfig(),
            device=accelerator.device,
        )
        report = train_step(accelerator, model, optimizers, forward, clip=1.0)
        steps += 1
        return torch.tensor(report.loss), torch.tensor(report.grad_norm)

    @cache
    def budget() -> Budget:  # found under the limit, as a run finds it before its first step
        if not spec["chunked"]:
            return Budget(WHOLE)
        return find_budget(
            core,
            sampler.at(0),
            chunk_tokens=None,
            free=free_memory(accelerator.device, 1),
            fixed=False,
            autocast=nullcontext,
        )

    limit = memory("VmData") + spec["limit_mib"] * MIB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        return {**timed(step, spec), "pairs": spec["batch"], "fits": True}
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in SPENT):
            raise
    return {"fits": False}


if __name__ == "__main__":
    run_arm(arm)
