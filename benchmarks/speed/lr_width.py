"""Benchmark `lr_width`: does a rate found at one width suit another, with the rule and without?

    python -m benchmarks.speed lr_width

Trains every width at every rate, once with `optimizer.base_width` at the smallest width and once
without, on the demo's corpus, which it makes where it is missing. The regret is what it costs to
take the best rate of the smallest width to another: nats above the best rate of that width. A plot
lies beside the JSON.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.external import machine
from benchmarks.speed.command import finish, read, recorded
from benchmarks.speed.measure import versions
from benchmarks.speed.points import short_run, train
from benchmarks.speed.report import Claim, Report, Row, Spread
from clue.run.pretrain_config import PretrainConfig

Kind = Literal["muon", "adamw"]
RULES = {"rule": "with the rule", "none": "without"}
Curve = dict[float, float]  # learning rate -> entropy
Curves = dict[int, list[Curve]]  # width -> a curve a seed


@dataclass(frozen=True, kw_only=True)
class LrWidthConfig:
    """Heads of 16 at every width, `widths[0]` is the base; `rates` is a grid for each optimiser."""

    config: Path = Path("configs/pretrain/demo.yaml")
    corpus: Path = Path("corpora/demo")
    runs: Path = Path("runs/speed/lr_width")
    rates: dict[Kind, list[float]] = field(
        default_factory=lambda: {
            "muon": [4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2],
            "adamw": [5e-4, 1e-3, 2e-3, 4e-3, 8e-3],
        }
    )
    widths: list[int] = field(default_factory=lambda: [32, 64, 128])
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    layers: int = 1
    batch: int = 128
    steps: int = 120
    threads: int = 1
    out: Path = Path("results/speed/lr_width.json")

    def __post_init__(self) -> None:
        """Refuse widths that heads of 16 do not fill, and what leaves nothing to compare."""
        if any(width % 16 for width in self.widths):
            raise ValueError(f"widths {self.widths} must be multiples of 16, the width of a head")
        if len(self.widths) < 2:
            raise ValueError(f"widths {self.widths}: give the base and one that it is taken to")
        few = [kind for kind, rates in self.rates.items() if len(rates) < 3]
        if few:
            raise ValueError(f"rates of {', '.join(few)}: a parabola needs three or more")


def main(argv: list[str]) -> None:
    """Runs the command line."""
    finish(measure(read(LrWidthConfig, argv, __doc__)), argv)


def measure(config: LrWidthConfig) -> tuple[Report, Path]:
    """Trains every point and gives the report and where it belongs; the plot is drawn there."""
    torch.set_num_threads(config.threads)
    facts = machine.describe("cpu", config.threads)
    points: list[dict[str, Any]] = []
    curves = {kind: sweep(config, kind, facts, points) for kind in config.rates}
    plot(curves, config.out.with_suffix(".svg"))
    rows = [row for kind, rules in curves.items() for row in kind_rows(kind, rules)]
    report = Report(
        name="lr_width",
        command="python -m benchmarks.speed lr_width",
        machine=machine.finished(facts, [{"versions": versions()}]),
        config=recorded(config),
        rows=tuple(rows),
        claims=tuple(claims(rows, list(config.rates), config.widths)),
        notes=notes(config, curves),
        points=tuple(points),
    )
    return report, config.out


def sweep(
    config: LrWidthConfig, kind: Kind, facts: Mapping[str, Any], points: list[dict[str, Any]]
) -> dict[str, Curves]:
    """Return the curves of one optimiser with the rule and without; adds each run to `points`."""

    def curve(rule: str, width: int, seed: int) -> Curve:
        found: Curve = {}
        for rate in sorted(config.rates[kind]):
            figures = train(run_of(config, kind, rule, width, (rate, seed)), facts)
            where = {"kind": kind, "rule": rule, "width": width, "lr": rate, "seed": seed}
            points.append({**where, **figures})
            found[rate] = figures["entropy"]
        return found

    base, *others = config.widths
    first = [curve("none", base, seed) for seed in config.seeds]  # where the rule changes nothing
    return {
        rule: {base: first}
        | {width: [curve(rule, width, seed) for seed in config.seeds] for width in others}
        for rule in RULES
    }


def run_of(
    config: LrWidthConfig, kind: Kind, rule: str, width: int, where: tuple[float, int]
) -> PretrainConfig:
    """Return the run at `where`, a rate and a seed."""
    rate, seed = where
    heads = width // 16
    keys = [f"name={kind}-{rule}-{width}-lr{rate:g}-seed{seed}", f"corpus={config.corpus}"]
    keys += [f"runs={config.runs}", f"seed={seed}", f"batch={config.batch}", "precision=fp32"]
    keys += [f"model.item={{layers: 0, width: {width}, heads: {heads}}}"]
    keys += [f"model.user.width={width}", f"model.user.heads={heads}", "model.user.embedding=64"]
    keys += [f"model.user.layers={config.layers}"]
    keys += [f"optimizer.kind={kind}", f"optimizer.lr={rate!r}"]
    if rule == "rule":
        keys.append(f"optimizer.base_width={config.widths[0]}")
    return short_run(config.config, config.steps, keys)


def case_of(kind: str, width: int) -> str:
    """Return how a width is called in the table."""
    return f"{kind}, width {width}"


def kind_rows(kind: str, rules: Mapping[str, Curves]) -> list[Row]:
    """Return an optimiser's rows: best rates, entropies there and regrets, of each width and rule.

    The rate that is taken over is the best of the first width by the mean over seeds, and a regret
    is against the best rate of its width, found in the same way.
    """
    rows: list[Row] = []
    base, *_ = rules["none"]
    taken = best_of(mean(rules["none"][base]))
    for width in rules["none"]:
        for rule, title in RULES.items() if width != base else [("none", "the base")]:
            found = rules[rule][width]
            best = best_of(mean(found))
            figures = {
                "best lr": Spread.of([lowest(curve) for curve in found]),
                "entropy there": Spread.of([curve[best] for curve in found]),
                "regret": Spread.of([curve[taken] - curve[best] for curve in found]),
            }
            case = case_of(kind, width)
            rows.append(Row(case=case, arm=title, status="measured", figures=figures))
    return rows


def mean(curves: Sequence[Curve]) -> Curve:
    """Return the curve of the means over seeds."""
    return {rate: statistics.fmean(curve[rate] for curve in curves) for rate in curves[0]}


def best_of(curve: Curve) -> float:
    """Return the rate of the grid with the lowest entropy."""
    return min(curve, key=lambda rate: curve[rate])


def lowest(curve: Curve) -> float:
    """Return the rate where the parabola through the best point and its neighbours is lowest.

    In the logarithm of the rate, whose grid must be even; at an edge of the grid the edge itself.
    """
    rates = sorted(curve)
    at = rates.index(best_of(curve))
    if at in (0, len(rates) - 1):
        return rates[at]
    below, best, above = (curve[rates[at + i]] for i in (-1, 0, 1))
    shift = 0.5 * (below - above) / (below - 2 * best + above)
    return rates[at] * math.exp(shift * math.log(rates[at + 1] / rates[at]))


def claims(rows: Sequence[Row], kinds: Sequence[str], widths: Sequence[int]) -> list[Claim]:
    """Return the aim for each optimiser: at the largest width the rule's regret is no larger."""
    regrets = {(row.case, row.arm): row.figures["regret"].median for row in rows}
    found: list[Claim] = []
    for kind in kinds:
        case = case_of(kind, widths[-1])
        gap = regrets[case, RULES["rule"]] - regrets[case, RULES["none"]]
        what = f"{case}: regret of width {widths[0]}'s best rate, with the rule - without, nats"
        found.append(Claim(what=what, aim="at most 0", found=gap, holds=gap <= 0))
    return found


def notes(config: LrWidthConfig, curves: Mapping[str, Mapping[str, Curves]]) -> tuple[str, ...]:
    """Return what was run, and which best rates are edges of their grid."""
    edges = [
        f"{case_of(kind, width)} {RULES[rule]}"
        for kind, rules in curves.items()
        for rule, widths in rules.items()
        for width, found in widths.items()
        if best_of(mean(found)) in (min(found[0]), max(found[0]))
    ]
    told = [
        f"{config.steps} steps of {config.batch} pairs, held-out entropy in nats, seeds "
        f"{', '.join(map(str, config.seeds))}; the best rate is the lowest of a parabola through "
        "the best point of the grid and its neighbours, the regret is between points of the grid.",
    ]
    if edges:
        told.append(
            f"The best rate is the edge of its grid, it may lie beyond: {'; '.join(edges)}."
        )
    return tuple(told)


def plot(curves: Mapping[str, Mapping[str, Curves]], path: Path) -> None:
    """Draws entropy over the rate, a panel for each optimiser and rule, a line for each width."""
    figure = Figure(figsize=(4.2 * len(RULES), 3 * len(curves)), layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(len(curves), len(RULES), squeeze=False, sharey=True)
    for row, (kind, rules) in zip(panels, curves.items(), strict=True):
        for panel, (rule, title) in zip(row, RULES.items(), strict=True):
            for (width, found), mark in zip(rules[rule].items(), "osD^v", strict=False):
                curve = mean(found)
                panel.plot(list(curve), list(curve.values()), f"{mark}-", label=f"width {width}")
            panel.set(xscale="log", xlabel="learning rate", title=f"{kind}, {title}")
        row[0].set_ylabel("held-out entropy, nats")
    panels[0][0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": path.stem}):  # the same ids, whenever it is drawn
        figure.savefig(path, metadata={"Date": None})
