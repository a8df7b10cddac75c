"""The page laws/NAME/law.html, which needs nothing else, and the ten lines that a terminal gets."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.law.doubts import doubts
from benchmarks.law.planner import batch_words, fit_of, rate_words
from benchmarks.report.charts import Line, Panel, inline, save
from benchmarks.report.rendering import write_page
from benchmarks.report.sizing import number
from benchmarks.scaling.fit.figures import banded, logarithmic, named_loss
from benchmarks.scaling.fit.isoflop import Cost, optima
from benchmarks.scaling.fit.law_intervals import Band
from benchmarks.scaling.fit.law_summary import band
from benchmarks.scaling.fit.run_table import Runs, read_runs
from benchmarks.scaling.fit.study import Laws, laws_of

BEYOND = 10.0  # times the largest run's compute, as far as the curve is drawn
BEST = (  # where the law has one
    " The band holds 80 % of the laws that resampled runs have, at the law's best size for each "
    "compute; the held-out runs are of one size, and lie above it where that is not the best."
)
DEVICES = ("here", "a100", "h100")  # whose hours the table of plans has
MODELS = {"contrastive": "contrastive user encoder", "next_item": "next-item model"}
FINE = 80  # points of a curve


def write(folder: Path, tree: Mapping[str, Any]) -> Path:
    """Write FOLDER/law.html and its figures from law.json's tree and the runs; return the page."""
    runs = read_runs(folder / "runs.parquet")
    laws = laws_of(fit_of(folder, tree["min_decades"]), runs, ("surface",))
    corpus, about = tree["corpus"], tree["table"]
    drawn = charts(runs, laws, tree)
    for (_, figure, _), name in zip(drawn, ("compute", "data"), strict=False):
        save(figure, folder / f"{name}.svg")
    return write_page(
        "law.html.j2",
        folder / "law.html",
        title=f"Scaling law of {tree['name']}",
        lead=(
            f"The {MODELS[tree['objective']]} on {corpus['users']:,} users, {corpus['items']:,} "
            f"items and {corpus['events']:,} events of {', '.join(corpus['services'])}: "
            f"{about['rows']} small runs of {about['sizes']} sizes, a law through them, and "
            "what it says of a larger one, written down before that was trained. The loss is in "
            f"nats, of {corpus['queries']:,} held-out queries among {about['negatives'] + 1:,} "
            "candidates each; lower is better."
        ),
        cards=cards(tree),
        charts=[(title, inline(figure, title), note) for title, figure, note in drawn],
        held=tree["verified"]["targets"],
        worth=[(*worth_words(one),) for one in tree["worth"]],
        plans=plan_rows(tree),
        devices=DEVICES,
        no_plan=tree["no_plan"],
        scores=list(tree["plans"][0]["plan"]["scores"]) if tree["plans"] else [],
        doubts=doubts(tree),
        laws=[[name, law_words(law)] for name, law in tree["laws"].items()],
        rates=rate_rows(tree["rates"]),
        rate_words=rate_words(tree),
        batch_words=batch_words(tree),
        folder=str(folder),
        made=made(tree),
    )


def charts(runs: Runs, laws: Laws, tree: Mapping[str, Any]) -> list[tuple[str, Figure, str]]:
    """Return title, figure and note of each figure; none where there is no surface."""
    if "surface" not in laws.fits:
        return []
    return [
        (
            "Loss over compute",
            over_compute(runs, laws, tree),
            "A mark is a run." + (BEST if tree["plans"] else ""),
        ),
        (
            "Loss over data, by size",
            over_data(runs, laws),
            "Lines are the law at each size. Where they flatten a larger model is due, where they "
            "still fall more data is.",
        ),
    ]


def over_compute(runs: Runs, laws: Laws, tree: Mapping[str, Any]) -> Figure:
    """Return the runs, the law's best at each compute, and the held-out runs beside it."""
    surface, sample = laws["surface"], laws.sample("surface")
    fitted = laws.rows["surface"]
    x = np.geomspace(sample.flops.min(), BEYOND * sample.flops.max(), FINE)
    best = optima(surface, Cost.of(sample.flops, *sample.x.T), x)
    lines: list[Line] = []
    if tree["plans"] and all(np.isfinite(one.value) for one in best.loss):
        lines.append(banded("law's best", x, best.loss)[1])
    lines += sized(fitted, "flops")
    held = runs.take(runs["role"] == "held_out")
    ends = {one["name"]: Band(**one["predicted"]) for one in tree["verified"]["targets"]}
    bands = [ends[str(name)] for name in held["point"]]
    value, low, high = np.array([(b.value, b.low80, b.high80) for b in bands]).T
    lines.append(Line("predicted, 80 %", held["flops"], value, low, high, role="points"))
    lines.append(Line("held out", held["flops"], held["loss"], role="points"))
    figure = logarithmic(
        [Panel(lines, "", "FLOPs of a training", named_loss(fitted), 10)], (5.4, 4.4)
    )
    if best.loss[-1].value > 0:  # down to where the curve ends: a decade more is what is asked for
        axis = figure.axes[0]
        axis.set_ylim(bottom=min(axis.get_ylim()[0], 0.98 * best.loss[-1].value))
    return figure


def over_data(runs: Runs, laws: Laws) -> Figure:
    """Return the runs over what they read, with the law's line of each size."""
    surface, rows = laws["surface"], laws.rows["surface"]
    x = np.geomspace(rows["pairs"].min(), 4 * rows["pairs"].max(), FINE)
    lines = sized(rows, "pairs")
    for size in np.unique(rows["params"]):
        theirs = np.stack([np.full(FINE, float(size)), x], 1)
        lines.append(Line("law", x, surface.fit.loss(theirs), role="background"))
    unit = "windows read" if str(rows["objective"][0]) == "next_item" else "pairs read"
    figure = logarithmic([Panel(lines, "", unit, named_loss(rows), 10)], (5.4, 4.4))
    figure.axes[0].xaxis.set_minor_formatter(NullFormatter())  # within a decade they run together
    return figure


def sized(rows: Runs, x: str) -> list[Line]:
    """Return the runs as points, those of a size under its number of parameters."""
    return [
        Line(
            f"{number(float(size))} parameters",
            rows[x][rows["params"] == size].astype(np.float64),
            rows["loss"][rows["params"] == size],
            role="points",
        )
        for size in np.unique(rows["params"])
    ]


def cards(tree: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return above, figure and below of each card at the top."""
    last = max(tree["verified"]["targets"], key=lambda one: one["factor"])
    shown = [
        (
            f"the held-out run, {last['factor']:.2g} x the compute of the fitted ones",
            f"{last['errors']['surface']:+.2%}",
            f"predicted {last['predicted']['value']:.4f}, came to {last['observed']:.4f}: "
            f"{inside(last)}",
        )
    ]
    shown += [
        (f"10 x {one['what']}", change(one["ratio"]), f"of the loss, 80 %: {ends(one['ratio'])}")
        for one in tree["worth"]
    ]
    return shown


def inside(target: Mapping[str, Any]) -> str:
    """Return in which interval a held-out run lies, in words."""
    if target["inside80"]:
        return "inside the interval of 80 %"
    return "inside that of 95 %, not of 80 %" if target["inside95"] else "outside the intervals"


def change(ratio: Mapping[str, float]) -> str:
    """Return a ratio of losses as a change in per cent."""
    return f"{ratio['value'] - 1:+.1%}"


def ends(ratio: Mapping[str, float | None]) -> str:
    """Return the interval of 80 % of such a change."""
    low, high = ratio["low80"], ratio["high80"]
    return "unknown" if low is None or high is None else f"{low - 1:+.1%} to {high - 1:+.1%}"


def worth_words(one: Mapping[str, Any]) -> Sequence[str]:
    """Return the cells of what ten times more buys."""
    losses = f"{one['before']:.4f}", f"{one['after']:.4f}"
    return one["what"], *losses, change(one["ratio"]), ends(one["ratio"])


def plan_rows(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the cells of each plan by the names that the template uses."""
    rows: list[dict[str, Any]] = []
    for one in tree["plans"]:
        planned, build = one["plan"], one["plan"]["build"]
        loss = planned["loss"]
        rows.append(
            {
                "budget": f"{planned['budget']:.2g}",
                "factor": f"{planned['factor']:.3g} x",
                "hours": [duration_words(one["hours"][name]) for name in DEVICES],
                "model": f"width {build['width']}, {build['layers']} layers",
                "params": number(build["params"]),
                "steps": f"{build['steps']:,} of {build['batch']}",
                "readings": f"{planned['epochs']:.2g}",
                "rate": f"{build['lr']:.3g}",
                "loss": f"{loss['value']:.4f}",
                "between": f"{loss['low80']:.4f} to {loss['high80']:.4f}",
                "scores": [f"{score['value']:.3f}" for score in planned["scores"].values()],
                "command": shlex.join(one["command"]),
            }
        )
    return rows


def duration_words(hours: float) -> str:
    """Return a time in the unit that suits it."""
    for limit, unit, factor in ((1 / 60, "s", 3600), (1.0, "min", 60), (48.0, "h", 1)):
        if hours < limit:
            return f"{hours * factor:.2g} {unit}"
    return f"{number(hours / 24)} days"


def law_words(law: Mapping[str, Any]) -> str:
    """Return the coefficients of a law with their intervals of 95 %."""
    known = {k: v for k, v in law["coefficients"].items() if k == "E" or k.startswith("a_")}
    return "; ".join(f"{name} {band(one, '.3g')}" for name, one in known.items())


def rate_rows(rates: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return width, the losses by rate, and the best rate of what was tried."""
    return [
        (
            str(one["width"]),
            ", ".join(
                f"{rate:.3g}: {loss:.4f}"
                for rate, loss in zip(one["rates"], one["losses"], strict=True)
            ),
            f"{rates['best'][str(one['width'])]:.3g}",
        )
        for one in rates["sizes"]
    ]


def made(tree: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts that a reader needs to make the law again."""
    ladder, call = tree["ladder"], tree["call"]
    return {
        "corpus": f"{tree['corpus']['path']}, {tree['corpus']['fingerprint'][:12]}",
        "fitted widths": f"{', '.join(map(str, ladder['fitted']))}, seeds "
        f"{', '.join(map(str, ladder['seeds']))}; held out {ladder['held_out']}",
        "lengths": f"{', '.join(map(str, ladder['steps']))} steps",
        "time": f"{sum(call['seconds']) / 60:.0f} minutes in {len(call['seconds'])} calls, of "
        f"{call['minutes']:g} allowed; {call['jobs']} runs at once, {call['threads']} threads each",
        "machine": f"{tree['device']}; the largest fitted width trained at "
        f"{tree['flops_per_second']:.2e} FLOP/s",
        "prediction": f"sha256 {tree['verified']['prediction']}, made {tree['verified']['made']}",
        "commit": tree["commit"],
        "made": call["made"],
    }


def summary(folder: Path, tree: Mapping[str, Any]) -> str:
    """Return the law in ten lines, last the next command or why there is none."""
    corpus, about, ladder = tree["corpus"], tree["table"], tree["ladder"]
    call = tree["call"]
    last = max(tree["verified"]["targets"], key=lambda one: one["factor"])
    surface = tree["laws"].get("surface")
    worths = [f"{change(one['ratio'])} by 10 x {one['what']}" for one in tree["worth"]]
    notes = doubts(tree)
    lines = [
        f"law        {tree['name']}: {MODELS[tree['objective']]}, {corpus['users']:,} users, "
        f"{corpus['events']:,} events",
        f"runs       {about['rows']} of widths {', '.join(map(str, ladder['fitted']))}, "
        f"{about['decades']:.2f} decades of compute, {sum(call['seconds']) / 60:.0f} minutes",
        f"fitted     {law_words(surface) if surface else tree['refused']['surface']}",
        f"held out   width {ladder['held_out']}: predicted {last['predicted']['value']:.4f}, came "
        f"to {last['observed']:.4f}, {last['errors']['surface']:+.2%}, {inside(last)}",
        f"worth      {'; '.join(worths) or 'unknown: the law has no best size'}",
        f"rate       {rate_words(tree)}",
        f"batch      {batch_words(tree)}",
        f"doubts     {len(notes)}, the first: {notes[0]}" if notes else "doubts     none",
        f"page       {folder / 'law.html'}",
        f"next       clue law plan {folder} hours=8 device=h100"
        if tree["plans"]
        else f"no plan    {tree['no_plan']}",
    ]
    return "\n".join(lines) + "\n"
