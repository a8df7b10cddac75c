"""Pretrain the user encoder: `accelerate launch clue/pretrain.py [CONFIG] [key=value ...]`.

Reads a corpus that `clue/prepare.py` wrote, trains on the training users, measures matching on the
validation users, and writes runs/NAME/: log.jsonl (one line a logged step), config.yaml (resolved),
checkpoints/, and `best` and `last`, which name two of them. The same command again goes on from the
last checkpoint, bitwise as if it had never stopped. On another number of processes it goes on too,
equal but for the rounding of sums, and for dropout, which draws by step and process.

SIGTERM and Ctrl-C save a checkpoint before the run ends, if they reach it. `accelerate launch` of
several processes passes them on and kills after 30 s; of one process it does not pass SIGTERM on: a
container or a scheduler should then run `exec python clue/pretrain.py`, which needs no launcher.

Without arguments it trains the demo on the synthetic world, which it makes where it is missing:
    accelerate launch clue/pretrain.py
    accelerate launch clue/pretrain.py configs/food_kitchen.yaml batch=4096 optimizer.lr=3e-3
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from clue import checkpoint
from clue.config import PretrainConfig
from clue.data.batches import PairSampler
from clue.data.corpus import Corpus
from clue.data.recipe import PrepareConfig, ServiceText, TokenizerConfig
from clue.data.synthetic import SyntheticConfig, write_world
from clue.encode import history_vectors
from clue.nn.model import Clue
from clue.prepare import prepare
from clue.runlog import RunLog
from clue.settings import read_command_line
from clue.train.evaluation import MatchingPairs, evaluate_matching, matching_pairs, mean_entropy
from clue.train.optimiser import learning_rate, make_optimizer
from clue.train.processes import agreed, join, stop_vote
from clue.train.state import gather, restore
from clue.train.step import train_step

STOPPED = 143  # the exit status of a process that SIGTERM ended


def main() -> None:
    """Runs the command line."""
    config = read_command_line(PretrainConfig, sys.argv[1:], description=__doc__ or "")
    try:
        finished = pretrain(config)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    if not finished:
        sys.exit(STOPPED)


def pretrain(config: PretrainConfig) -> bool:
    """Trains until `config.steps`; gives False where a signal stopped it earlier, at a checkpoint.

    Raises ValueError or FileNotFoundError, before any training, for a config that does not fit the
    corpus, the checkpoints or the machine, FloatingPointError where training diverges, and OSError
    where the disk refuses a checkpoint.
    """
    # --- machine, corpus, model: everything that can be refused is refused here
    accelerator = join(bf16=uses_bf16(config), trackers=config.trackers, run=config.run)
    with accelerator.main_process_first():  # it makes the demo's corpus, sets aside the damaged
        corpus = open_corpus(config)
        start = find_start(config, corpus)
    first = agreed(start.step if start is not None else 0)
    sampler = PairSampler(corpus, config.views, batch=config.batch, seed=config.seed)
    rank, world = accelerator.process_index, accelerator.num_processes
    sampler.check(world)
    pairs = matching_pairs(corpus, corpus.users_in("valid"), max_events=config.views.max_events)

    torch.manual_seed(config.seed)
    core = Clue(config.model, corpus.manifest.vocab_size)
    core_optimizer = make_optimizer(core, config.optimizer)
    model, optimizer = accelerator.prepare(core, core_optimizer)
    if start is not None:
        restore(core, [core_optimizer], start.trained(), start.optimizer())

    # --- the loop: batch k+1 is drawn while step k computes; nothing else lives between steps
    with (
        RunLog(config, accelerator, first=first) as log,
        stop_vote(accelerator.device) as asked_to_stop,
        ThreadPoolExecutor(1) as drawer,
    ):
        upcoming = drawer.submit(sampler.at, first, rank, world)
        for step in range(first, config.steps):
            began = time.perf_counter()
            batch, upcoming = upcoming.result(), drawer.submit(sampler.at, step + 1, rank, world)
            # dropout depends on the step alone, so that a resumed run repeats the straight one
            torch.manual_seed((config.seed * 1_000_003 + step) * 1_009 + rank)
            rate = learning_rate(config.optimizer, step, config.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            report = train_step(accelerator, model, optimizer, batch, clip=config.optimizer.clip)

            done = step + 1
            log.train(done, report, rate, time.perf_counter() - began)
            stopping = asked_to_stop() and done < config.steps
            validating = not stopping and due(done, config.validate_every, config.steps)
            saving = stopping or due(done, config.checkpoint_every, config.steps)
            if validating or saving:
                state = gather(core, [core_optimizer])
                if state is not None:
                    metrics = validate(state.weights, config, corpus, pairs) if validating else {}
                    log.valid(done, metrics)
                    improved = mean_entropy(metrics) < checkpoint.best_entropy(config.run)
                    if saving or improved:
                        checkpoint.save(config, corpus, state, done, metrics)
                accelerator.wait_for_everyone()
            if stopping:
                return False
    return True


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


def find_start(config: PretrainConfig, corpus: Corpus) -> checkpoint.Checkpoint | None:
    """Gives the checkpoint to go on from, if any.

    Raises ValueError where the run's checkpoints were trained with another config or corpus.
    """
    last = checkpoint.find_last(config.run)
    if last is None:
        return None
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
    return last


def changed(before: PretrainConfig, now: PretrainConfig) -> list[str]:
    """Names the keys that change what is learnt and differ between the two configs."""
    free = {"corpus", "runs", "resume", "trackers"}
    free |= {"log_every", "validate_every", "checkpoint_every", "keep_every"}
    old, new = asdict(before), asdict(now)
    return [key for key in old if key not in free and old[key] != new[key]]


def validate(
    weights: dict[str, torch.Tensor],
    config: PretrainConfig,
    corpus: Corpus,
    pairs: list[MatchingPairs],
) -> dict[str, dict[str, float]]:
    """Gives the held-out figures of each pair of services, of a plain model with `weights`.

    The model in training may be sharded, and then computes only where all processes do.
    """
    model = Clue(config.model, corpus.manifest.vocab_size)
    model.load_state_dict(weights)
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    encode = partial(history_vectors, model, corpus.item_tokens)
    return evaluate_matching(pairs, encode, model.scale().item())


if __name__ == "__main__":
    main()
