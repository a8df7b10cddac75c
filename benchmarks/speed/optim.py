"""Command: Muon against AdamW at equal steps and batch, and what a step of each costs.

    python -m benchmarks.speed.optim corpus=corpora/food_kitchen

Each arm's learning rate is the best of a grid by held-out entropy on one seed, the grid widened
until the best is not at its edge; the arms then meet on other seeds. Lower entropy is better.
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from benchmarks.speed.points import (
    interleaved,
    machine,
    paired_difference,
    spread,
    train,
    write,
)
from clue.config import PretrainConfig
from clue.data.batches import PairSampler
from clue.data.corpus import Corpus
from clue.nn.model import Clue
from clue.settings import load, read_command_line
from clue.train.losses import LossConfig
from clue.train.optimiser import make_optimizers
from clue.train.packing import Budget
from clue.train.step import train_step

KINDS = ("adamw", "muon")
# A run this short never sees a pair twice often enough to memorise it: dropout only slows it.
SHORT = ("model.user.dropout=0", "views.event_dropout=.1", "views.token_dropout=.1")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The run that both arms do: `config` with a smaller model; `rates` is the first grid."""

    config: Path = Path("configs/food_kitchen.yaml")
    corpus: Path = Path("corpora/food_kitchen")
    runs: Path = Path("runs/speed/optim")
    out: Path = Path("results/speed/optim.json")
    width: int = 64
    layers: int = 2
    batch: int = 512
    steps: int = 150
    rates: list[float] = field(default_factory=lambda: [2e-3, 4e-3, 8e-3])
    tuning_seed: int = 0
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    timed_rounds: int = 9

    def __post_init__(self) -> None:
        """Refuses what leaves nothing to compare."""
        if len(self.seeds) < 2:
            raise ValueError(f"seeds {self.seeds}: a difference needs two for its interval")


def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    out = run(read_command_line(OptimConfig, argv, description=__doc__ or ""))
    sys.stdout.write(out.read_text(encoding="utf-8"))


def run(config: OptimConfig) -> Path:
    """Tunes, trains and times both arms, and gives the path of the JSON with every figure."""
    points: list[dict[str, Any]] = []

    def point(kind: str, rate: float, seed: int) -> dict[str, float]:
        figures = train(run_of(config, kind, rate, seed))
        points.append({"kind": kind, "lr": rate, "seed": seed, **figures})
        return figures

    best = {kind: best_rate(config, partial_of(point, kind, config)) for kind in KINDS}
    arms = {kind: [point(kind, best[kind], seed) for seed in config.seeds] for kind in KINDS}
    summary = {
        figure: {
            **{kind: spread([f[figure] for f in arms[kind]]) for kind in KINDS},
            "muon_minus_adamw": paired_difference(
                *([f[figure] for f in arms[kind]] for kind in ("muon", "adamw"))
            ),
        }
        for figure in ("entropy", "recall_at_10")
    }
    report = {
        "settings": asdict(config),
        "machine": machine(),
        "best_lr": best,
        "summary": summary,
        "step": step_times(config, best),
        "points": points,
    }
    return write(config.out, report)


def run_of(config: OptimConfig, kind: str, rate: float, seed: int) -> PretrainConfig:
    """Gives the run of one point; validation and the only checkpoint are at its end."""
    width, steps = config.width, config.steps
    base = load(
        PretrainConfig,
        config.config,
        [
            *(f"name={kind}-lr{rate:g}-seed{seed}", f"corpus={config.corpus}"),
            *(f"runs={config.runs}", f"seed={seed}", f"batch={config.batch}", f"steps={steps}"),
            *(f"validate_every={steps}", f"checkpoint_every={steps}", "log_every=20"),
            *("trackers=[]", "precision=fp32", f"model.item.width={width}", "model.item.layers=0"),
            *(f"model.user.width={width}", f"model.user.layers={config.layers}"),
            *(f"model.user.embedding={width}", *SHORT),
        ],
    )
    warmup = min(base.optimizer.warmup_steps, steps // 6)
    optimizer = replace(base.optimizer, kind=kind, lr=rate, warmup_steps=warmup)  # pyright: ignore[reportArgumentType]
    return replace(base, optimizer=optimizer)


def partial_of(
    point: Callable[[str, float, int], dict[str, float]], kind: str, config: OptimConfig
) -> Callable[[float], float]:
    """Gives the entropy of one arm on the tuning seed as a function of the rate."""
    return lambda rate: point(kind, rate, config.tuning_seed)["entropy"]


def best_rate(config: OptimConfig, entropy: Callable[[float], float]) -> float:
    """Gives the best rate of a grid that grows by factors of two until its best is inside."""
    found = {rate: entropy(rate) for rate in sorted(config.rates)}
    while True:
        best = min(found, key=lambda rate: found[rate])
        if best == min(found):
            found[best / 2] = entropy(best / 2)
        elif best == max(found):
            found[best * 2] = entropy(best * 2)
        else:
            return best


def step_times(config: OptimConfig, best: dict[str, float]) -> dict[str, Any]:
    """Gives the seconds of a step on the same batch, the arms in turn, and their ratio."""
    arms: dict[str, Callable[[], None]] = {}
    accelerator = Accelerator(cpu=True)
    corpus = Corpus.open(config.corpus)
    for kind in KINDS:
        one = run_of(config, kind, best[kind], 0)
        batch = PairSampler(corpus, one.views, batch=one.batch, seed=0).at(0)
        torch.manual_seed(0)
        model = Clue(one.model, corpus.manifest.vocab_size)
        learners = make_optimizers(model, one.optimizer)

        def step(
            model: Clue = model,
            learners: list[torch.optim.Optimizer] = learners,
            batch: Any = batch,
            clip: float = one.optimizer.clip,
        ) -> None:
            train_step(
                accelerator, model, learners, batch, Budget(4096), loss=LossConfig(), clip=clip
            )

        arms[kind] = step
    times = interleaved(arms, config.timed_rounds)
    medians = {kind: statistics.median(times[kind]["processor"]) for kind in KINDS}
    return {
        "ratio_of_processor_seconds": medians["muon"] / medians["adamw"],
        **{kind: {clock: spread(v) for clock, v in times[kind].items()} for kind in KINDS},
        "every_call": times,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
