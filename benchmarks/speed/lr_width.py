"""Command: does a learning rate found at one width suit another, with the rule and without?

    python -m benchmarks.speed.lr_width

Trains every width at every rate, once with `optimizer.base_width` at the smallest width and once
without, and writes the entropies, a plot beside them, and what it costs to take the best rate of
the smallest width to the others: the regret, in nats above the best rate of that width.
"""

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.speed.optim import SHORT
from benchmarks.speed.points import machine, train, write
from clue.config import PretrainConfig
from clue.settings import load, read_command_line

RULES = ("rule", "none")
Curve = dict[float, float]  # learning rate -> entropy, mean over seeds


@dataclass(frozen=True, kw_only=True)
class LrWidthConfig:
    """Heads of 16 at every width, `widths[0]` is the base; one user layer count for all."""

    config: Path = Path("configs/demo.yaml")
    corpus: Path = Path("corpora/demo")
    runs: Path = Path("runs/speed/lr_width")
    out: Path = Path("results/speed/lr_width.json")
    kinds: list[str] = field(default_factory=lambda: ["adamw", "muon"])
    widths: list[int] = field(default_factory=lambda: [32, 64, 128])
    rates: list[float] = field(default_factory=lambda: [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2])
    seeds: list[int] = field(default_factory=lambda: [0])
    layers: int = 1
    batch: int = 128
    steps: int = 120

    def __post_init__(self) -> None:
        """Refuses widths that heads of 16 do not fill."""
        if any(width % 16 for width in self.widths):
            raise ValueError(f"widths {self.widths} must be multiples of 16, the width of a head")


def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    out = run(read_command_line(LrWidthConfig, argv, description=__doc__ or ""))
    sys.stdout.write(out.read_text(encoding="utf-8"))


def run(config: LrWidthConfig) -> Path:
    """Trains every point and gives the path of the JSON; the plot lies beside it."""
    curves: dict[str, dict[str, dict[int, Curve]]] = {}
    points: list[dict[str, Any]] = []
    for kind in config.kinds:
        curves[kind] = {rule: {} for rule in RULES}
        for width in config.widths:
            for rule in RULES:
                curve: Curve = {}
                for rate in config.rates:
                    found = [
                        train(run_of(config, kind, rule, width, (rate, s))) for s in config.seeds
                    ]
                    where = {"kind": kind, "rule": rule, "width": width, "lr": rate}
                    points += [
                        {**where, "seed": s, **f} for s, f in zip(config.seeds, found, strict=True)
                    ]
                    curve[rate] = statistics.fmean(f["entropy"] for f in found)
                curves[kind][rule][width] = curve
    report = {
        "settings": asdict(config),
        "machine": machine(),
        "summary": {
            kind: {rule: transfer(curves[kind][rule]) for rule in RULES} for kind in config.kinds
        },
        "points": points,
    }
    plot(curves, config.out.with_suffix(".svg"))
    return write(config.out, report)


def run_of(
    config: LrWidthConfig, kind: str, rule: str, width: int, where: tuple[float, int]
) -> PretrainConfig:
    """Gives the run at `where`, a rate and a seed. At the base width both rules are one run."""
    rate, seed = where
    ruled = rule == "rule" and width != config.widths[0]
    name = f"{kind}-{'rule' if ruled else 'none'}-{width}-lr{rate:g}-seed{seed}"
    steps, heads = config.steps, width // 16
    base = load(
        PretrainConfig,
        config.config,
        [
            *(f"name={name}", f"corpus={config.corpus}", f"runs={config.runs}", f"seed={seed}"),
            *(f"batch={config.batch}", f"steps={steps}", "trackers=[]", "precision=fp32"),
            *(f"validate_every={steps}", f"checkpoint_every={steps}", "log_every=20"),
            f"model.item={{layers: 0, width: {width}, heads: {heads}}}",
            *(f"model.user.width={width}", f"model.user.heads={heads}"),
            *(f"model.user.layers={config.layers}", "model.user.embedding=64", *SHORT),
        ],
    )
    optimizer = replace(
        base.optimizer,
        kind=kind,  # pyright: ignore[reportArgumentType]
        lr=rate,
        warmup_steps=min(base.optimizer.warmup_steps, steps // 6),
        base_width=config.widths[0] if ruled else None,
    )
    return replace(base, optimizer=optimizer)


def transfer(curves: Mapping[int, Curve]) -> dict[str, Any]:
    """Gives each width's best rate, and the regret of the first width's best rate at each."""
    first = next(iter(curves.values()))
    taken = min(first, key=lambda rate: first[rate])
    return {
        "best_lr": {
            width: min(curve, key=lambda rate: curve[rate]) for width, curve in curves.items()
        },
        "lowest_of_parabola": {width: lowest(curve) for width, curve in curves.items()},
        "entropy": {width: min(curve.values()) for width, curve in curves.items()},
        "regret": {width: curve[taken] - min(curve.values()) for width, curve in curves.items()},
    }


def lowest(curve: Curve) -> float:
    """Gives the rate where the parabola through the best point and its neighbours is lowest.

    In the logarithm of the rate, whose grid must be even; at an edge of the grid the edge itself.
    """
    rates = sorted(curve)
    at = min(range(len(rates)), key=lambda i: curve[rates[i]])
    if at in (0, len(rates) - 1):
        return rates[at]
    below, best, above = (curve[rates[at + i]] for i in (-1, 0, 1))
    shift = 0.5 * (below - above) / (below - 2 * best + above)
    return rates[at] * math.exp(shift * math.log(rates[at + 1] / rates[at]))


def plot(curves: Mapping[str, Mapping[str, Mapping[int, Curve]]], path: Path) -> None:
    """Draws entropy over the rate, a panel for each optimiser and rule, a line for each width."""
    figure = Figure(figsize=(4.2 * len(RULES), 3 * len(curves)), layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(len(curves), len(RULES), squeeze=False, sharey=True)
    for row, (kind, rules) in zip(panels, curves.items(), strict=True):
        for panel, rule in zip(row, RULES, strict=True):
            for (width, curve), mark in zip(rules[rule].items(), "osD^v", strict=False):
                rates = sorted(curve)
                panel.plot(rates, [curve[r] for r in rates], f"{mark}-", label=f"width {width}")
            panel.set(xscale="log", xlabel="learning rate", title=f"{kind}, {rule}")
        row[0].set_ylabel("held-out entropy, nats")
    panels[0][0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1:])
