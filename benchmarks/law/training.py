"""The sweeps of a law: their configs, the timing of the sizes, the check of the learning rate."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.law.ladder import DECAY, Ladder, Timing, seconds_of
from benchmarks.law.law_config import LawConfig
from benchmarks.law.recipe import Recipe, size_of
from benchmarks.scaling.fit.rate_curves import EXCESS, judge
from benchmarks.scaling.fit.run_table import read_runs
from benchmarks.scaling.sweep.progress import Beside
from benchmarks.scaling.sweep.run import sweep
from benchmarks.scaling.sweep.sweep_config import Grid, SweepConfig
from clue.monitor.read_log import read_log

TIMED = 12  # steps of a run that is timed
SKIPPED = 3  # of them, the first: memory is found and taken there
EVERY = 2  # of so many widths one is timed, the others lie between
ROUNDS = 3  # of rates, each beyond the edge of the last
STEEPEST = 1.0  # power of the width with which a best rate may move


def sweep_of(
    config: LawConfig,
    recipe: Recipe,
    part: str,
    grids: Sequence[Grid],
    *,
    rates: Mapping[int, float] | None = None,
    warmup: int = 0,
) -> SweepConfig:
    """Return the sweep of a part of the law, "" for the law's own table, over all widths."""
    overrides = [f"optimizer.warmup_steps={warmup}"] if warmup else []
    if not torch.cuda.is_available():
        overrides.append("precision=fp32")
    widths = rates or dict.fromkeys(config.widths)
    names = {size for grid in grids for size in grid.sizes}
    sizes = {
        name_of(width): size_of(recipe.objective, width, config.layers, rate)
        for width, rate in widths.items()
        if name_of(width) in names
    }
    return SweepConfig(
        name=f"{config.name}_{part}" if part else str(config.name),
        pretrain=config.folder / "pretrain.yaml",
        overrides=overrides,
        unit="steps",
        sizes=sizes,
        grids=list(grids),
        decay_share=DECAY,
        validations=1,
        jobs=config.slots,
        threads=config.threads,
        runs=config.runs / str(config.name) / part,
        out=config.folder / part,
    )


def name_of(width: int) -> str:
    """Return what a size is called."""
    return f"w{width}"


def train(config: SweepConfig, beside: Beside | None = None) -> None:
    """Train what is missing of a sweep; ValueError where a run failed."""
    failed = sweep(config, beside)
    if failed:
        raise ValueError(
            f"{failed} runs failed, for the reasons above; the same command goes on with them"
        )


def time_sizes(config: LawConfig, recipe: Recipe) -> dict[int, Timing]:
    """Return the timing of every other width, by a few steps of each as a run of its own."""
    widths = sorted({*config.widths[::EVERY], config.widths[-1]})
    grid = Grid(sizes=[name_of(width) for width in widths], budgets=[TIMED])
    timed = sweep_of(config, recipe, "timing", [grid])
    train(timed)
    times: dict[int, Timing] = {}
    for name in read_runs(timed.out / "runs.parquet")["point"]:
        run = timed.runs / str(name)
        kept = json.loads((run / "point.json").read_text(encoding="utf-8"))
        seconds = [line["seconds"] for line in read_log(run).train]
        start = max(0.1, kept["own"]["wall"] - sum(seconds))
        times[kept["row"]["width"]] = Timing(float(np.median(seconds[SKIPPED:])), start)
    return times


def find_rates(
    config: LawConfig, recipe: Recipe, ladder: Ladder, times: Mapping[int, Timing]
) -> dict[str, Any]:
    """Return the rate of each width of the ladder, and what was tried at two of them.

    Rates are tried beyond the edge where the best one lies on it, in at most ROUNDS rounds. Where
    one that both tried costs neither more than EXCESS over its least loss, it serves all widths,
    as the rule of clue/train/transfer.py wants it: of several the nearest to the recipe's. Else
    each width has the rate of a line through the logarithms of the two best.
    """
    base = recipe.pretrain.optimizer.lr
    tried = {width: [base / 2, base, 2 * base] for width in ladder.rated}
    seconds = seconds_of(ladder, times, config.slots)
    tree: dict[str, Any] = {}
    for _ in range(ROUNDS):
        grids = [
            Grid(sizes=[name_of(width)], budgets=[ladder.rate_steps], rates=sorted(rates))
            for width, rates in tried.items()
        ]
        part = sweep_of(config, recipe, "rates", grids, warmup=ladder.warmup)
        after = Beside(after=sum(ladder.runs[1:]), seconds=sum(seconds[1:]), own=seconds[0])
        train(part, after)
        tree = judge(read_runs(part.out / "runs.parquet"))
        if not extend(tried, tree["sizes"]):
            break
    return {**chosen(tree, ladder, base), "steps": ladder.rate_steps, "sizes": tree["sizes"]}


def extend(tried: Mapping[int, list[float]], sizes: Sequence[Mapping[str, Any]]) -> bool:
    """Add a rate beyond each edge that is best; return whether there is any."""
    before = sum(map(len, tried.values()))
    for one in sizes:
        rates, at = one["rates"], int(np.argmin(one["losses"]))
        if at == 0:
            tried[one["width"]].append(float(rates[0]) / 2)
        elif at == len(rates) - 1:
            tried[one["width"]].append(float(rates[-1]) * 2)
    return sum(map(len, tried.values())) > before


def chosen(tree: Mapping[str, Any], ladder: Ladder, base: float) -> dict[str, Any]:
    """Return the rate by width, whether it is one for all, and the best one of each that tried.

    `base` is the recipe's rate.
    """
    sizes = {one["width"]: one for one in tree["sizes"]}
    tried = {
        width: dict(zip(map(float, one["rates"]), map(float, one["losses"]), strict=True))
        for width, one in sizes.items()
    }
    least = {width: min(losses.values()) for width, losses in tried.items()}
    common = set.intersection(*({*losses} for losses in tried.values()))
    excess = {
        rate: [losses[rate] / least[width] - 1 for width, losses in tried.items()]
        for rate in common
    }
    best = {
        width: float(
            one["best"] if not one["why"] else min(tried[width], key=tried[width].__getitem__)
        )
        for width, one in sizes.items()
    }
    good = [rate for rate, each in excess.items() if max(each) <= EXCESS]
    shared = bool(good)
    # short runs tell rates apart less than long ones: what studies found stays where it is as good
    middle = min(good, key=lambda rate: abs(np.log(rate / base)), default=base)
    small, large = ladder.rated
    slope = 0.0
    if not shared:
        slope = float(np.log(best[large] / best[small]) / np.log(large / small))
        slope = float(np.clip(slope, -STEEPEST, STEEPEST))
        middle = (best[small] * best[large]) ** 0.5
    between = (small * large) ** 0.5
    rates = {  # three digits are more than three rates know
        width: float(f"{middle * (width / between) ** slope:.3g}")
        for width in (*ladder.fitted, ladder.held_out)
    }
    return {"shared": shared, "best": best, "rates": rates, "slope": slope}


def ladder_sweep(
    config: LawConfig, recipe: Recipe, ladder: Ladder, rates: Mapping[int, float]
) -> SweepConfig:
    """Return the sweep of the fitted runs and of those held out."""
    steps = [float(count) for count in ladder.steps]
    grids = [
        Grid(sizes=[name_of(width)], budgets=steps, seeds=list(range(seeds)))
        for width, seeds in zip(ladder.fitted, ladder.seeds, strict=True)
    ]
    held = [float(count) for count in ladder.predicted]
    grids.append(Grid(sizes=[name_of(ladder.held_out)], budgets=held, role="held_out"))
    return sweep_of(config, recipe, "", grids, rates=rates, warmup=ladder.warmup)


def write_scores(runs: Path, table: Path, out: Path) -> Path:
    """Write loss and score of each fitted run, by task, as `plan` reads them; return the file."""
    rows = read_runs(table)
    fitted = rows.take(rows["role"] == "fit")
    points: list[dict[str, Any]] = []
    for name, loss in zip(fitted["point"], fitted["loss"], strict=True):
        last = read_log(runs / str(name)).valid[-1]
        each = list((last.get("next_item") or last.get("matching") or {}).values())
        for key, task in (("recall_at_10", "R@10"), ("ndcg_at_10", "NDCG@10")):
            if each and key in each[0]:
                score = float(np.mean([one[key] for one in each]))
                points.append({"loss": float(loss), "task": task, "score": score})
    out.write_text(json.dumps(points, indent=1) + "\n", encoding="utf-8")
    return out
