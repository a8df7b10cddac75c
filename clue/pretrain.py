"""Pretrain a model of users: `accelerate launch clue/pretrain.py [CONFIG] [key=value ...]`.

Reads a corpus that `clue/prepare.py` wrote. The contrastive encoder trains on the training users
and is measured by matching the validation users; with objective=next_item a decoder over item ids
trains on all users' sequences but for their last events, and is measured on those. Writes
runs/NAME/: log.jsonl (one line a logged step), config.yaml (resolved), checkpoints/, and `best` and
`last`, which name two of them. The same command again goes on from the last checkpoint, bitwise as
if it had never stopped. On another number of processes it goes on too, equal but for the rounding
of sums, and for dropout, which draws by step and process.

SIGTERM and Ctrl-C save a checkpoint before the run ends, if they reach it. `accelerate launch` of
several processes passes them on and kills after 30 s; of one process it does not pass SIGTERM on: a
container or a scheduler should then run `exec python clue/pretrain.py`, which needs no launcher.

Without arguments it trains the demo on the synthetic world, which it makes where it is missing:
    accelerate launch clue/pretrain.py
    accelerate launch clue/pretrain.py configs/pretrain/food_kitchen.yaml batch=4096
    accelerate launch clue/pretrain.py configs/pretrain/next_item/ml1m.yaml
"""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from clue.config import run_command
from clue.data.corpus import Corpus
from clue.data.ingest.prepare_config import (
    FieldConfig,
    PrepareConfig,
    ServiceConfig,
    TokenizerConfig,
)
from clue.evaluation.matching import mean_entropy, selection_score
from clue.monitor.run_log import RunLog, installed
from clue.monitor.throughput import StepTiming
from clue.prepare import prepare
from clue.run import checkpoint
from clue.run.objectives.base import Drawn, Objective
from clue.run.objectives.contrastive import Contrastive
from clue.run.objectives.next_item import NextItemObjective
from clue.run.objectives.universal import Universal
from clue.run.pretrain_config import PretrainConfig
from clue.run.resume import find_start
from clue.run.train_state import TrainState, prepared
from clue.synthetic.world import SyntheticConfig, write_world
from clue.train import phases
from clue.train.distributed import (
    broadcast,
    check_same_step,
    init_accelerator,
    leave,
    preemption_vote,
)
from clue.train.optimiser import set_learning_rate
from clue.train.precision import uses_bf16
from clue.train.state_dict import gather
from clue.train.step import train_step

OBJECTIVES = {"contrastive": Contrastive, "next_item": NextItemObjective, "universal": Universal}
STOPPED = 143  # the exit status of a process that SIGTERM ended


def main() -> None:
    """Run the command line."""
    ended = run_command(PretrainConfig, pretrain, description=__doc__, also=(FloatingPointError,))
    leave()
    if not ended:
        sys.exit(STOPPED)


def pretrain(config: PretrainConfig) -> bool:
    """Train until `config.steps`; return False where a signal stopped it earlier, at a checkpoint.

    Raises ValueError or FileNotFoundError, before any training, for a config that does not fit the
    corpus, the checkpoints or the machine, FloatingPointError where training diverges, and OSError
    where the disk refuses a checkpoint.
    """
    # --- machine, corpus, model: everything that can be refused is refused here
    bf16 = uses_bf16(config.precision, config.narrowest)
    accelerator = init_accelerator(
        bf16=bf16,
        trackers=installed(config.trackers),
        run=config.run,
        in_turns=config.objective == "universal",
    )
    with accelerator.main_process_first():  # it makes the demo's corpus, sets aside the damaged
        corpus = open_corpus(config)
        start = find_start(config, corpus)
    first = check_same_step(start.step if start is not None else 0)
    objective: Objective = OBJECTIVES[config.objective](config, corpus)
    rank, world = accelerator.process_index, accelerator.num_processes
    objective.check(world)

    learner = prepared(config, accelerator, objective, start)

    # --- the loop: batch k+1 is drawn while step k computes; nothing else lives between steps
    with (
        RunLog(
            config,
            accelerator,
            objective,
            chunk_tokens=learner.budget.tokens,
            first=first,
            progress=learner.progress,
        ) as log,
        preemption_vote(accelerator.device) as asked_to_stop,
    ):
        run = Run(config, corpus, objective, log)
        last = first if learner.progress.phase == "done" else config.steps
        for step, batch, waited in drawn_ahead(objective, range(first, last), rank, world):
            began, busy = time.perf_counter(), time.process_time()
            # dropout depends on the step alone, so that a resumed run repeats the straight one
            torch.manual_seed((config.seed * 1_000_003 + step) * 1_009 + rank)
            rate = phases.rate(learner.progress, config.optimizer, step, config.steps)
            set_learning_rate(learner.stepping(), rate)
            done = step + 1
            with log.guard(done, batch):
                report = train_step(
                    accelerator,
                    learner.model,
                    learner.stepping(),
                    partial(
                        objective.forward,
                        batch=batch,
                        budget=learner.budget,
                        device=accelerator.device,
                    ),
                    clip=config.optimizer.clip,
                )
            learner.average.update(learner.core, step)
            spent = waited + time.perf_counter() - began, waited, time.process_time() - busy
            log.train(done, report, rate, StepTiming(*spent))

            stopping = asked_to_stop() and done < config.steps
            # whoever stops has little time, but a measurement left out could end a phase later
            patient = not stopping or config.optimizer.patience > 0
            validating = patient and due(done, config.validate_every, config.steps)
            saving = stopping or due(done, config.checkpoint_every, config.steps)
            if validating or saving:
                measure_and_save(run, learner, done, validating=validating, saving=saving)
            if stopping:
                return False
            if learner.progress.phase == "done":
                break
    return True


@dataclass(frozen=True)
class Run:
    """What stays the same from the first step to the last."""

    config: PretrainConfig
    corpus: Corpus
    objective: Objective
    log: RunLog


def measure_and_save(
    run: Run, learner: TrainState, done: int, *, validating: bool, saving: bool
) -> None:
    """Measure the held-out events after `done` steps, and write a checkpoint where one is due.

    One is due where `saving`, at the lowest loss so far, and where the optimiser's phase ends.
    """
    config, log = run.config, run.log
    state = gather(learner.core, learner.plain_stepping(), learner.average.weights)
    progress = learner.progress
    if state is not None:
        metrics = run.objective.held_out(state.weights) if validating else {}
        log.valid(done, metrics)
        if validating:
            held_out = mean_entropy(metrics)
            progress = phases.advance(progress, config.optimizer, done, held_out)
        turning = progress.phase != learner.progress.phase
        score = selection_score(metrics, config.best_by)
        if saving or turning or score < checkpoint.best_score(config.run):
            if turning:  # no optimiser's state goes from one phase to the next
                state = replace(state, optimizer={})
            checkpoint.save(config, run.corpus, state, done, metrics, progress)
            log.saved(done)
    learner.go_on(broadcast(progress))  # the others wait here meanwhile
    log.phase(done, learner.progress)


def drawn_ahead(
    objective: Objective, steps: range, rank: int, world: int
) -> Iterator[tuple[int, Drawn, float]]:
    """Return each step, this process's part of its batch, and the seconds it was waited for.

    The next batch is drawn in a thread of its own meanwhile; none beyond the last step.
    """
    with ThreadPoolExecutor(1) as drawer:
        upcoming = drawer.submit(objective.draw, steps.start, rank, world) if steps else None
        for step in steps:
            assert upcoming is not None
            began = time.perf_counter()
            batch = upcoming.result()
            if step + 1 in steps:
                upcoming = drawer.submit(objective.draw, step + 1, rank, world)
            yield step, batch, time.perf_counter() - began


def due(done: int, interval: int, steps: int) -> bool:
    """Return whether what comes every so many steps, and at the end, is due after `done` steps."""
    return done % interval == 0 or done == steps


def open_corpus(config: PretrainConfig) -> Corpus:
    """Return the corpus of the run; the demo's is made where it is missing."""
    if not config.corpus.exists() and config.corpus == PretrainConfig().corpus:
        make_demo_corpus(config.corpus)
    return Corpus.open(config.corpus, config.cache)


def make_demo_corpus(path: Path) -> None:
    """Write the synthetic world's logs and prepare them by configs/prepare/synthetic.yaml."""
    world = SyntheticConfig()
    write_world(world, world.out)
    prepare(demo_recipe(world, path))


def demo_recipe(world: SyntheticConfig, out: Path) -> PrepareConfig:
    """Return how the logs of `world` become the corpus `out`."""
    return PrepareConfig(
        name=out.name,
        out=out,
        events=[str(world.out / "events.parquet")],
        items=[str(world.out / "items.parquet")],
        services={name: ServiceConfig(template="{title}") for name in world.services},
        fields={
            "amount": FieldConfig(kind="numeric"),
            "channel": FieldConfig(kind="categorical"),
        },
        tokenizer=TokenizerConfig(vocab_size=4096),
    )


if __name__ == "__main__":
    main()
