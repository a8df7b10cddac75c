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
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator

from clue import checkpoint
from clue.config import PretrainConfig
from clue.data.batches import Batch, PairSampler
from clue.data.corpus import Corpus
from clue.data.recipe import PrepareConfig, ServiceText, TokenizerConfig
from clue.data.synthetic import SyntheticConfig, write_world
from clue.encode import history_vectors
from clue.nn.model import Clue
from clue.prepare import prepare
from clue.runlog import RunLog, installed
from clue.settings import read_command_line
from clue.train.evaluation import MatchingPairs, evaluate_matching, matching_pairs
from clue.train.optimiser import learning_rate, make_optimizer
from clue.train.step import train_step

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
        log_with=[*installed(config.trackers)] or None,
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
    core_optimizer = make_optimizer(core, config.optimizer)
    if start is not None:
        core.load_state_dict(start.weights())
        checkpoint.load_optimizer(core_optimizer, start)
    model, optimizer = accelerator.prepare(core, core_optimizer)

    # --- the loop: batch k+1 is drawn while step k computes; nothing else lives between steps
    first = start.step if start is not None else 0
    with (
        RunLog(config, accelerator, vocab_size=corpus.manifest.vocab_size, first=first) as log,
        signals_noted() as received,
    ):
        for step, batch, waited in drawn_ahead(sampler, range(first, config.steps), rank, world):
            began = time.perf_counter()
            # dropout depends on the step alone, so that a resumed run repeats the straight one
            torch.manual_seed((config.seed * 1_000_003 + step) * 1_009 + rank)
            rate = learning_rate(config.optimizer, step, config.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            done = step + 1
            with log.guard(done, batch):
                report = train_step(
                    accelerator, model, optimizer, batch, clip=config.optimizer.clip
                )

            log.train(done, report, rate, waited + time.perf_counter() - began, waited)
            stopping = any_process(accelerator, received) and done < config.steps
            validating = not stopping and due(done, config.validate_every, config.steps)
            saving = stopping or due(done, config.checkpoint_every, config.steps)
            if accelerator.is_main_process and (validating or saving):
                metrics = validate(core, corpus, pairs) if validating else {}
                log.valid(done, metrics)
                improved = mean_entropy(metrics) < best
                best = min(best, mean_entropy(metrics))
                if saving or improved:
                    state = checkpoint.State(core, core_optimizer, done, metrics)
                    checkpoint.save(config, corpus, state, best=improved)
                    log.saved(done)
            accelerator.wait_for_everyone()
            if stopping:
                return False
    return True


def drawn_ahead(
    sampler: PairSampler, steps: range, rank: int, world: int
) -> Iterator[tuple[int, Batch, float]]:
    """Gives each step, this process's part of its batch, and the seconds it was waited for.

    The next batch is drawn in a thread of its own meanwhile.
    """
    with ThreadPoolExecutor(1) as drawer:
        upcoming = drawer.submit(sampler.at, steps.start, rank, world)
        for step in steps:
            began = time.perf_counter()
            batch, upcoming = upcoming.result(), drawer.submit(sampler.at, step + 1, rank, world)
            yield step, batch, time.perf_counter() - began


def due(done: int, every: int, steps: int) -> bool:
    """Says whether what happens every so many steps, and at the end, happens after `done` steps."""
    return done % every == 0 or done == steps


def uses_bf16(config: PretrainConfig) -> bool:
    """Says whether to compute in bf16: as asked, or where the processor multiplies it natively."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = Path("/proc/cpuinfo")
    return cpu.is_file() and any(
        flag in cpu.read_text(encoding="utf-8") for flag in ("avx512_bf16", "amx_bf16")
    )


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

    Raises ValueError where the run's checkpoints were trained with another config or corpus.
    """
    last = checkpoint.find_last(config.run)
    if last is None:
        return None, math.inf
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


def changed(before: PretrainConfig, now: PretrainConfig) -> list[str]:
    """Names the keys that change what is learnt and differ between the two configs."""
    free = {"corpus", "runs", "resume", "trackers"}
    free |= {"log_every", "validate_every", "checkpoint_every"}
    old, new = asdict(before), asdict(now)
    return [key for key in old if key not in free and old[key] != new[key]]


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
