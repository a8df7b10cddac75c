"""Command: training killed with -9 at many moments, also inside the save, and what is then left.

    python -m benchmarks.robustness kills=50 out=results/robustness

A tiny model on the synthetic world writes a checkpoint after every step. Its process is killed,
started again, killed again: every second time inside a save, else at a moment drawn from the whole
life of the process. After each kill the newest checkpoint must be whole by its hashes and at most
one step behind the log; in the end weights, optimiser state and losses must equal those of a run
that nobody disturbed, bitwise. Writes robustness.json; any failure is an AssertionError.
"""

import json
import multiprocessing
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clue.config import load, read_command_line
from clue.monitor.read_log import read_log
from clue.prepare import prepare
from clue.pretrain import demo_recipe, pretrain
from clue.run import checkpoint
from clue.run.pretrain_config import PretrainConfig
from clue.synthetic.world import SyntheticConfig, write_world

# Children begin with torch and clue imported, or 50 starts would take longer than all the training.
FORK = multiprocessing.get_context("fork")
MOST_STEPS = 2  # of one life, so that the run outlasts the kills


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig:
    """How often to kill, by which draw, and where robustness.json goes."""

    kills: int = 50
    seed: int = 0
    out: Path = Path("results/robustness")


@dataclass(frozen=True)
class Kill:
    """One kill: when in the life of the process, inside what, and what was lost.

    `logged` is the newest step in the log, `kept` the step of the newest whole checkpoint.
    """

    seconds: float
    inside_save: bool
    inside_prune: bool
    logged: int
    kept: int


def main() -> None:
    """Run the command line."""
    config = read_command_line(RobustnessConfig, sys.argv[1:], description=__doc__ or "")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        results = measure(config, Path(work))
    config.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1) + "\n"
    (config.out / "robustness.json").write_text(text, encoding="utf-8")
    shown = {key: value for key, value in results.items() if key != "each"}
    sys.stdout.write(json.dumps(shown, indent=1) + "\n")


def measure(config: RobustnessConfig, work: Path) -> dict[str, Any]:
    """Return the kills and what was lost in all. Raises AssertionError where anything was."""
    straight = tiny_run(work, steps=MOST_STEPS * config.kills + 10)
    began = time.monotonic()
    finish(child(make_corpus, straight.corpus, work))
    process, start = child(pretrain, straight), time.monotonic()
    wait_until(lambda: (straight.run / "last").is_file())
    startup = time.monotonic() - start
    finish(process)
    killed = replace(straight, name="killed")
    draw = np.random.default_rng(config.seed)
    kills: list[Kill] = []
    while len(kills) < config.kills:
        # inside: some way into a save, which takes 0.1 to 0.25 s; else start-up and as long again
        inside = len(kills) % 2 == 1
        delay = draw.uniform(0, 0.2 if inside else 2 * startup)
        kills.append(kill_once(killed, delay, inside=inside))
        sys.stderr.write(f"kill {len(kills)}/{config.kills}: {kills[-1]}\n")
    finish(child(pretrain, killed))
    assert_equal(straight, killed)
    return {
        "command": f"python -m benchmarks.robustness kills={config.kills} seed={config.seed}",
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "kills": len(kills),
        "inside_save": sum(kill.inside_save for kill in kills),
        "inside_prune": sum(kill.inside_prune for kill in kills),
        "most_steps_lost": max(kill.logged - kill.kept for kill in kills),
        "torn_or_lost_checkpoints": 0,
        "equals_the_undisturbed_run_bitwise": True,
        "seconds": round(time.monotonic() - began, 1),
        "each": [asdict(kill) for kill in kills],
    }


def tiny_run(work: Path, *, steps: int) -> PretrainConfig:
    """Return a run whose save takes a visible share of a step: 3 M parameters and a small batch."""
    return load(
        PretrainConfig,
        None,
        [
            *("name=straight", f"corpus={work / 'corpus'}", f"runs={work}", "trackers=[]"),
            *("batch=8", f"steps={steps}", "validate_every=20", "checkpoint_every=1"),
            *("log_every=1", "precision=fp32", "views.max_events=16"),
            *("model.item.width=256", "model.item.layers=1", "model.item.dropout=.1"),
            *("model.user.width=256", "model.user.layers=1", "model.user.embedding=64"),
        ],
    )


def make_corpus(corpus: Path, work: Path) -> None:
    """Write a small synthetic world and prepare it."""
    world = SyntheticConfig(users=200, items_per_service=80, out=work / "logs")
    write_world(world, world.out)
    prepare(demo_recipe(world, corpus))


def child(task: Callable[..., object], *arguments: object) -> BaseProcess:
    """Return the process, begun, that runs `task`."""
    process = FORK.Process(target=task, args=arguments)
    process.start()
    return process


def finish(process: BaseProcess) -> None:
    """Wait for `process`. AssertionError where it failed."""
    process.join()
    assert process.exitcode == 0, f"the child ended with status {process.exitcode}"


def kill_once(config: PretrainConfig, delay: float, *, inside: bool) -> Kill:
    """Start the run again, kill it after `delay` seconds of its life or of a save, and check.

    It is killed earlier where it has taken MOST_STEPS steps.
    """
    before = checkpoint.find_last(config.run)
    least = before.step if before is not None else 0
    folder = config.run / "checkpoints"
    left = being_written(folder)
    began = time.monotonic()
    process = child(pretrain, config)
    if inside:
        wait_until(lambda: process.exitcode is not None or being_written(folder) - left)
        time.sleep(delay)
    else:
        end = began + delay
        enough = folder / f"step_{least + MOST_STEPS:08d}"
        wait_until(lambda: time.monotonic() >= end or enough.exists())
    process.kill()
    seconds = time.monotonic() - began
    process.join()
    assert process.exitcode == -9, f"ended with status {process.exitcode} before it was killed"
    kept = checkpoint.find_last(config.run)
    assert not [*folder.glob("damaged-*")], "a checkpoint was torn"
    logged = (config.run / "log.jsonl").is_file()
    kill = Kill(
        round(seconds, 3),
        bool([*folder.glob(".writing-*")]),
        bool([*folder.glob(".pruned-*")]),
        read_log(config.run).last_step if logged else 0,
        kept.step if kept is not None else 0,
    )
    assert kill.kept >= max(least, kill.logged - 1), f"a checkpoint was lost: {kill}"
    return kill


def being_written(folder: Path) -> set[tuple[str, int]]:
    """Return name and time of what saves have begun and not finished."""
    try:
        return {(path.name, path.stat().st_mtime_ns) for path in folder.glob(".writing-*")}
    except FileNotFoundError:  # renamed while we looked: too late for this save, not for the next
        return set()


def wait_until(happened: Callable[[], object], most: float = 120.0) -> None:
    """Return when `happened`, asked every millisecond. AssertionError after `most` s."""
    end = time.monotonic() + most
    while not happened():
        assert time.monotonic() < end, f"nothing happened in {most} s"
        time.sleep(0.001)


def assert_equal(one: PretrainConfig, other: PretrainConfig) -> None:
    """Raise AssertionError unless both runs learnt the same, to the last bit."""
    ends = [checkpoint.find_last(run.run) for run in (one, other)]
    assert ends[0] is not None and ends[1] is not None
    assert ends[0].step == ends[1].step == one.steps
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert ends[0].sha256[name] == ends[1].sha256[name], f"{name} differs"
    names = ("step", "loss", "grad_norm", "matching")
    logs = [
        [
            {name: line.get(name) for name in names}
            for line in (*history.train, *history.valid)  # every life of a run writes a "start"
        ]
        for history in (read_log(run.run) for run in (one, other))
    ]
    assert logs[0] == logs[1], "the logs differ"


if __name__ == "__main__":
    main()
