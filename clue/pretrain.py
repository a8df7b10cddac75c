"""Pretrain the user encoder: `accelerate launch clue/pretrain.py [CONFIG] [key=value ...]`.

Reads a corpus that `clue/prepare.py` wrote, trains on the training users, measures matching on the
validation users, and writes runs/NAME/: log.jsonl (one line a logged step), config.yaml (resolved),
checkpoints/, and `best` and `last`, which name two of them. The same command again goes on from the
last checkpoint, bitwise as if it had never stopped. SIGTERM and Ctrl-C save one before they end.

Without arguments it trains the demo on the synthetic world, which it makes where it is missing:
    accelerate launch clue/pretrain.py
    accelerate launch clue/pretrain.py configs/food_kitchen.yaml batch=4096 optimizer.lr=3e-3
"""

import math
import signal
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator

from clue import checkpoint
from clue.config import PretrainConfig, changed
from clue.data.batches import PairSampler
from clue.data.corpus import Corpus
from clue.data.recipe import PrepareConfig, ServiceText, TokenizerConfig
from clue.data.synthetic import SyntheticConfig, write_world
from clue.encode import history_vectors
from clue.nn.model import Clue
from clue.prepare import prepare
from clue.runlog import RunLog
from clue.settings import read_command_line
from clue.train.averaging import Average
from clue.train.evaluation import MatchingPairs, evaluate_matching, matching_pairs
from clue.train.optimiser import learning_rate, make_optimizers, set_learning_rate
from clue.train.step import train_step
from clue.trunk import stable_checkpoint

# bf16 over fp32, processor seconds a step with AVX512-BF16: 1.17 at width 64, .89 at 128, .86 at
# 192, .71 at 256 (results/speed/precision.json).
BF16_WIDTH = 128
STOPPED = 143  # the exit status of a process that SIGTERM ended


def main() -> None:
    """Runs the command line."""
    config = read_command_line(PretrainConfig, sys.argv[1:], description=__doc__ or "")
    try:
        finished = pretrain(config)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    if not finished:
        sys.exit(STOPPED)


def pretrain(config: PretrainConfig) -> bool:
    """Trains until `config.steps`; gives False where a signal stopped it earlier, at a checkpoint.

    Raises ValueError or FileNotFoundError, before any training, for a config that does not fit the
    corpus, the checkpoints or the machine, and FloatingPointError where training diverges.
    """
    # --- machine, corpus, model: everything that can be refused is refused here
    accelerator = Accelerator(
        # Said outright: torchrun on a machine without accelerator would else start processes that
        # each believe to be alone (configs/accelerate/cpu2.yaml).
        cpu=not torch.accelerator.is_available(),
        mixed_precision="bf16" if uses_bf16(config) else "no",
        log_with=[*config.trackers] or None,
        project_dir=config.run,
    )
    with accelerator.main_process_first():
        corpus = open_corpus(config)
    sampler = PairSampler(corpus, config.views, batch=config.batch, seed=config.seed)
    rank, world = accelerator.process_index, accelerator.num_processes
    sampler.check(world)
    pairs = matching_pairs(corpus, corpus.users_in("valid"), max_events=config.views.max_events)
    start, best = find_start(config, corpus)

    torch.manual_seed(config.seed)
    core = Clue(config.model, corpus.manifest.vocab_size)
    core_optimizers = make_optimizers(core, config.optimizer)
    model, *optimizers = accelerator.prepare(core, *core_optimizers)
    average = Average(core, config.optimizer.ema)
    first = restore(start, core, core_optimizers, average)

    # --- the loop: batch k+1 is drawn while step k computes; nothing else lives between steps
    with (
        RunLog(config, accelerator, first=first) as log,
        signals_noted() as received,
        ThreadPoolExecutor(1) as drawer,
    ):
        upcoming = drawer.submit(sampler.at, first, rank, world)
        for step in range(first, config.steps):
            began = time.perf_counter()
            batch, upcoming = upcoming.result(), drawer.submit(sampler.at, step + 1, rank, world)
            # dropout depends on the step alone, so that a resumed run repeats the straight one
            torch.manual_seed((config.seed * 1_000_003 + step) * 1_009 + rank)
            rate = learning_rate(config.optimizer, step, config.steps)
            set_learning_rate(optimizers, rate)
            report = train_step(accelerator, model, optimizers, batch, clip=config.optimizer.clip)
            average.update(core, step)

            done = step + 1
            log.train(done, report, rate, time.perf_counter() - began)
            stopping = any_process(accelerator, received) and done < config.steps
            validating = not stopping and due(done, config.validate_every, config.steps)
            saving = stopping or due(done, config.checkpoint_every, config.steps)
            if accelerator.is_main_process and (validating or saving):
                with average.in_use(core):
                    metrics = validate(core, corpus, pairs) if validating else {}
                    log.valid(done, metrics)
                    improved = mean_entropy(metrics) < best
                    best = min(best, mean_entropy(metrics))
                    if saving or improved:
                        state = checkpoint.State(
                            core, average.weights, core_optimizers, done, metrics
                        )
                        checkpoint.save(config, corpus, state, best=improved)
            accelerator.wait_for_everyone()
            if stopping:
                return False
    return True


def due(done: int, every: int, steps: int) -> bool:
    """Says whether what happens every so many steps, and at the end, happens after `done` steps."""
    return done % every == 0 or done == steps


def uses_bf16(config: PretrainConfig) -> bool:
    """Says whether to compute in bf16: as asked, or where the processor is faster with it."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8").split() if cpu.is_file() else []
    return bf16_pays(flags, min(config.model.item.width, config.model.user.width))


def bf16_pays(flags: list[str], width: int) -> bool:
    """Says whether a CPU with these flags trains a model of this width faster in bf16.

    With AMX always; with AVX512-BF16 alone from BF16_WIDTH on: below it the casts cost more than
    the products save.
    """
    return "amx_bf16" in flags or ("avx512_bf16" in flags and width >= BF16_WIDTH)


def open_corpus(config: PretrainConfig) -> Corpus:
    """Gives the corpus of the run; the demo's is made where it is missing.

    Raises ValueError where the item encoder reads shorter texts than the corpus holds.
    """
    if not config.corpus.exists() and config.corpus == PretrainConfig().corpus:
        make_demo_corpus(config.corpus)
    corpus = Corpus.open(config.corpus)
    longest, limit = corpus.manifest.max_item_tokens, config.model.item.max_tokens
    if longest > limit:
        raise ValueError(
            f"{config.corpus} holds texts of up to {longest} tokens, model.item.max_tokens is "
            f"{limit}; set model.item.max_tokens={longest}"
        )
    return corpus


def make_demo_corpus(path: Path) -> None:
    """Writes the synthetic world's logs and prepares them, as configs/data/synthetic.yaml says."""
    world = SyntheticConfig()
    write_world(world, world.out)
    prepare(demo_recipe(world, path))


def demo_recipe(world: SyntheticConfig, out: Path) -> PrepareConfig:
    """Gives how the logs of `world` become the corpus `out`."""
    return PrepareConfig(
        name=out.name,
        out=out,
        events=[str(world.out / "events.parquet")],
        items=[str(world.out / "items.parquet")],
        services={name: ServiceText(template="{title}") for name in world.services},
        tokenizer=TokenizerConfig(vocab_size=4096),
    )


def find_start(
    config: PretrainConfig, corpus: Corpus
) -> tuple[checkpoint.Checkpoint | None, float]:
    """Gives the checkpoint to go on from, if any, and the best held-out entropy so far, in nats.

    The run's own newest, else its trunk's. The trunk's score does not count: a run's best is one of
    its own. Raises ValueError where they were trained with another config or corpus.
    """
    last = checkpoint.find_last(config.run)
    if last is None:
        return stable_checkpoint(config, corpus) if config.trunk else None, math.inf
    if config.resume == "never":
        raise ValueError(f"{config.run} has checkpoints and resume=never; choose another name=")
    differing = changed(last.config, config)
    if differing:
        raise ValueError(
            f"{config.run} was begun with another {', '.join(differing)}; choose another name= or "
            f"give it the values of {last.path / 'config.yaml'}"
        )
    if last.corpus["fingerprint"] != corpus.fingerprint:
        raise ValueError(
            f"{config.run} was begun on corpus {last.corpus['fingerprint'][:12]}, {config.corpus} "
            f"is {corpus.fingerprint[:12]} now; choose another name= or prepare the old one again"
        )
    best = checkpoint.find(config.run)
    return last, min(mean_entropy(best.metrics), mean_entropy(last.metrics))


def restore(
    start: checkpoint.Checkpoint | None,
    model: Clue,
    optimizers: list[torch.optim.Optimizer],
    average: Average,
) -> int:
    """Puts what `start` holds into the three and gives the steps that are done, 0 without it."""
    if start is None:
        return 0
    model.load_state_dict(start.trained())
    checkpoint.load_optimizers(optimizers, start)
    average.load(start.weights())
    return start.step


def validate(
    model: Clue, corpus: Corpus, pairs: list[MatchingPairs]
) -> dict[str, dict[str, float]]:
    """Gives the held-out figures of each pair of services."""
    encode = partial(history_vectors, model, corpus.item_tokens)
    return evaluate_matching(pairs, encode, model.scale().item())


def mean_entropy(metrics: dict[str, dict[str, float]]) -> float:
    """Gives the mean held-out contrastive entropy in nats; infinite where nothing was measured."""
    found = [figures["calibrated_entropy"] for figures in metrics.values()]
    return sum(found) / len(found) if found else math.inf


@contextmanager
def signals_noted() -> Generator[list[int]]:
    """Gives the list that SIGTERM and SIGINT are appended to; a second one acts as usual."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def any_process(accelerator: Accelerator, received: list[int]) -> bool:
    """Says whether a signal reached any process: all must stop at the same step."""
    if accelerator.num_processes == 1:
        return bool(received)
    seen = accelerator.reduce(torch.tensor([len(received)], device=accelerator.device))
    assert isinstance(seen, torch.Tensor)
    return bool(seen.item())


if __name__ == "__main__":
    main()
