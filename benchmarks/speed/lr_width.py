"""Benchmark `lr_width`: does a rate found at one width suit another, with the rule and without?

    python -m benchmarks.speed lr_width

Trains every width at every rate, once with `optimizer.base_width` at the smallest width and once
without, on the demo's corpus, which it makes where it is missing. The regret is what it costs to
take the best rate of the smallest width to another: nats above the best rate of that width. A plot
lies beside the JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from benchmarks.report.charts import Line, Panel, line_panels, save
from benchmarks.speed.report import Claim, Report, Row, Spread, claim
from benchmarks.speed.trainings import short_run, train
from clue.run.pretrain_config import PretrainConfig

RULES = {"rule": "with the rule", "none": "without"}
Grid = Annotated[list[float], Field(min_length=3)]  # a parabola needs three
Widths = Annotated[list[Annotated[int, Field(multiple_of=16)]], Field(min_length=2)]
Curves = dict[tuple[int, str], np.ndarray]  # (width, rule) -> entropies (seeds, rates)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Heads of 16 at every width, `widths[0]` is the base; `rates` is a grid for each optimiser."""

    config: Path = Path("configs/pretrain/demo_contrastive.yaml")
    corpus: Path = Path("corpora/demo")
    runs: Path = Path("runs/speed/lr_width")
    rates: dict[Literal["muon", "adamw"], Grid] = field(
        default_factory=lambda: {
            "muon": [4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2],
            "adamw": [5e-4, 1e-3, 2e-3, 4e-3, 8e-3],
        }
    )
    widths: Widths = field(default_factory=lambda: [32, 64, 128])
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    layers: int = 1
    batch: int = 128
    steps: int = 120
    threads: int = 1
    out: Path = Path("results/speed/lr_width.json")


def measure(config: Config) -> Report:
    """Train every point and draw the curves beside the JSON."""
    points: list[dict[str, Any]] = []

    def entropy(**point: Any) -> float:
        figures = train(run_of(config, **point))
        points.append({**point, **figures})
        return figures["entropy"]

    base, *others = config.widths
    # The rule changes nothing at the base.
    arms = [(base, "none"), *((width, rule) for width in others for rule in RULES)]
    curves: dict[str, Curves] = {}
    for kind, rates in config.rates.items():
        curves[kind] = {}
        for width, rule in arms:
            arm = partial(entropy, kind=kind, rule=rule, width=width)
            entropies = [[arm(lr=rate, seed=seed) for rate in rates] for seed in config.seeds]
            curves[kind][width, rule] = np.array(entropies)
    figure = line_panels(panels(config, curves), columns=2, share_y="row")
    save(figure, config.out.with_suffix(".svg"))
    rows = [row for kind in curves for row in kind_rows(config, kind, curves[kind])]
    return Report(
        rows=rows, claims=claims(config, rows), notes=notes(config, curves), points=points
    )


def run_of(
    config: Config, *, kind: str, rule: str, width: int, lr: float, seed: int
) -> PretrainConfig:
    """Return the run of a point."""
    keys = [f"name={kind}-{rule}-{width}-lr{lr:g}-seed{seed}", f"corpus={config.corpus}"]
    keys += [f"runs={config.runs}", f"seed={seed}", f"batch={config.batch}"]
    keys += [f"model.{part}.heads={width // 16}" for part in ("item", "user")]
    keys += ["model.user.embedding=64", f"optimizer.kind={kind}", f"optimizer.lr={lr!r}"]
    if rule == "rule":
        keys.append(f"optimizer.base_width={config.widths[0]}")
    return short_run(config.config, config.steps, width, (0, config.layers), keys)


def case_of(kind: str, width: int) -> str:
    """Return how a width is called in the table."""
    return f"{kind}, width {width}"


def kind_rows(config: Config, kind: Any, curves: Curves) -> list[Row]:
    """Return an optimiser's rows: best rates, entropies there and regrets, of each width and rule.

    The rate that is taken over is the best of the first width by the mean over seeds, and a regret
    is against the best rate of its width, found in the same way.
    """
    rows: list[Row] = []
    base = config.widths[0]
    taken = best_of(curves[base, "none"])
    for (width, rule), entropies in curves.items():
        best = best_of(entropies)
        figures = {
            "best lr": [lowest(config.rates[kind], curve) for curve in entropies],
            "entropy there": entropies[:, best].tolist(),
            "regret": (entropies[:, taken] - entropies[:, best]).tolist(),
        }
        arm = "the base" if width == base else RULES[rule]
        spreads = {name: Spread.of(values) for name, values in figures.items()}
        rows.append(Row(case=case_of(kind, width), arm=arm, figures=spreads))
    return rows


def best_of(entropies: np.ndarray) -> int:
    """Return the number of the rate with the lowest mean over seeds of (seeds, rates)."""
    return int(entropies.mean(0).argmin())


def lowest(rates: Sequence[float], curve: np.ndarray) -> float:
    """Return the rate where the parabola through the best point and its neighbours is lowest.

    In the logarithm of the rate, ascending; at an edge of the grid the edge itself.
    """
    best = int(curve.argmin())
    if best in (0, len(rates) - 1):
        return rates[best]
    near = slice(best - 1, best + 2)
    square, linear, _ = np.polyfit(np.log(rates[near]), curve[near], 2)
    return float(np.exp(-linear / (2 * square)))


def claims(config: Config, rows: Sequence[Row]) -> list[Claim]:
    """Return the aim for each optimiser: at the largest width the rule's regret is no larger."""
    regrets = {(row.case, row.arm): row.figures["regret"].median for row in rows}
    made: list[Claim] = []
    for kind in config.rates:
        case = case_of(kind, config.widths[-1])
        gap = regrets[case, RULES["rule"]] - regrets[case, RULES["none"]]
        what = f"{case}: regret of width {config.widths[0]}'s best rate"
        made.append(claim(f"{what}, with the rule - without, nats", gap, "at most", 0))
    return made


def notes(config: Config, curves: Mapping[str, Curves]) -> list[str]:
    """Return what was run, and which best rates are edges of their grid."""
    seeds = ", ".join(map(str, config.seeds))
    made = [
        f"{config.steps} steps of {config.batch} pairs, held-out entropy in nats, seeds {seeds}; "
        "the best rate is the lowest of a parabola through the best point of the grid and its "
        "neighbours, the regret is between points of the grid."
    ]
    edges = [
        f"{case_of(kind, width)} {RULES[rule]}"
        for kind in curves
        for (width, rule), entropies in curves[kind].items()
        if best_of(entropies) in (0, entropies.shape[1] - 1)
    ]
    if edges:
        made.append(
            f"The best rate is the edge of its grid, it may lie beyond: {'; '.join(edges)}."
        )
    return made


def panels(config: Config, curves: Mapping[str, Curves]) -> list[Panel]:
    """Return entropy over the rate, a panel for each optimiser and rule, a line for each width."""
    labels: dict[str, Any] = {"x_label": "learning rate", "y_label": "held-out entropy, nats"}
    made: list[Panel] = []
    for kind, rates in config.rates.items():
        for rule, title in RULES.items():
            lines = [
                Line(f"width {width}", rates, entropies.mean(0).tolist())
                for (width, other), entropies in curves[kind].items()
                if width == config.widths[0] or other == rule
            ]
            made.append(Panel(lines, title=f"{kind}, {title}", **labels, log=10))
    return made
