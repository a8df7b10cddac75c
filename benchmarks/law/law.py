"""The main path of `clue law`: log, recipe, ladder, rates, runs, prediction, held out, page.

Each stage leaves a file in laws/NAME, and what is there is not done again: a call after a kill goes
on where the last one was.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.json_files import write_json
from benchmarks.law import page
from benchmarks.law.ladder import Ladder, Timing, choose, seconds_of
from benchmarks.law.law_config import LawConfig
from benchmarks.law.law_tree import Facts, decades_of, largest_fitted, law_tree
from benchmarks.law.noise_scale import noise_scale
from benchmarks.law.planner import fit_of
from benchmarks.law.recipe import UNITS, Recipe, popularity, recipe_of
from benchmarks.law.training import find_rates, ladder_sweep, time_sizes, train, write_scores
from benchmarks.scaling.fit.run_table import read_runs
from benchmarks.scaling.predict.predict import PredictConfig, predict
from benchmarks.scaling.predict.verify import verify
from benchmarks.scaling.sweep.progress import Beside
from benchmarks.scaling.sweep.sweep_config import SweepConfig
from clue.atomic import write_text
from clue.config import to_yaml
from clue.data.corpus import Corpus
from clue.data.ingest.prepare_config import PrepareConfig
from clue.prepare import prepare

SHARE = 0.9  # of the time that is left, which the ladder is to take: timings are no promises
PAGE = 90.0  # seconds kept for the laws, the noise of the gradient and the page


def refuse_elsewhere() -> None:
    """Raise ValueError where this is not the folder of a clone: runs are started by its files."""
    if not Path("clue/pretrain.py").is_file():
        raise ValueError(f"{Path.cwd()} is no clone of the repository; go there: cd CLONE")


def law(config: LawConfig, prepared: PrepareConfig | None) -> str:
    """Return ten lines about the law, all files written.

    Raises ValueError, before any long work, for a log that is too small or a time that is too
    short, and for a folder that holds another law.
    """
    began = time.monotonic()
    path = prepare(prepared) if prepared else config.corpus
    assert path is not None  # `read_arguments` has seen to it
    corpus = Corpus.open(path)
    recipe = recipe_of(corpus, config)
    folder, spent = config.folder, begin(config, corpus)
    try:
        write_text(folder / "pretrain.yaml", to_yaml(recipe.pretrain))
        ladder, times = find_ladder(config, recipe, spent + time.monotonic() - began)
        if not (folder / "rates.json").is_file():
            write_json(folder / "rates.json", find_rates(config, recipe, ladder, times))
        rates = _json(folder / "rates.json")
        by_width = {int(width): rate for width, rate in rates["rates"].items()}
        swept = ladder_sweep(config, recipe, ladder, by_width)
        write_text(folder / "sweep.yaml", to_yaml(swept))
        verified = train_and_predict(config, swept, ladder, times)
        tree = law_tree(folder, facts_of(config, corpus, recipe, ladder, (rates, verified)))
    finally:
        end(folder, time.monotonic() - began)
    tree = write_json(folder / "law.json", {**tree, "call": _call(config)})
    page.write(folder, tree)
    return page.summary(folder, tree)


def begin(config: LawConfig, corpus: Corpus) -> float:
    """Return the seconds that earlier calls took; ValueError where they were of other settings."""
    keys = ("minutes", "objective", "widths", "layers", "jobs", "threads")
    settings = {key: getattr(config, key) for key in keys} | {"corpus": corpus.fingerprint}
    file = config.folder / "begun.json"
    begun: dict[str, Any] = _json(file) if file.is_file() else {"spent": []}
    if not (config.folder / "ladder.json").is_file():  # nothing is chosen yet
        write_json(file, {**begun, "settings": settings})
        return sum(begun["spent"])
    other = [key for key, value in settings.items() if begun["settings"][key] != value]
    if other:
        raise ValueError(
            f"{config.folder} holds a law of another {other[0]}, {begun['settings'][other[0]]}; "
            f"give another name=, or delete the folder and {config.runs / str(config.name)}"
        )
    return sum(begun["spent"])


def end(folder: Path, seconds: float) -> None:
    """Note how long this call took, whether it came to its end or not."""
    begun = _json(folder / "begun.json")
    write_json(folder / "begun.json", {**begun, "spent": [*begun["spent"], seconds]})


def find_ladder(
    config: LawConfig, recipe: Recipe, spent: float
) -> tuple[Ladder, dict[int, Timing]]:
    """Return the ladder and the timings, chosen once and kept in ladder.json."""
    file, began = config.folder / "ladder.json", time.monotonic()
    if not file.is_file():
        _say(f"{recipe.objective}, batch {recipe.pretrain.batch}: a few steps of each size")
        times = time_sizes(config, recipe)
        left = 60 * config.minutes - spent - (time.monotonic() - began) - PAGE
        ladder = choose(
            times,
            config.widths,
            seconds=SHARE * left,
            jobs=config.slots,
            most_steps=recipe.most_steps,
        )
        write_json(file, {"ladder": ladder, "times": times})
    kept = _json(file)
    ladder = Ladder(**kept["ladder"])
    _say(
        f"widths {', '.join(map(str, ladder.fitted))} for {', '.join(map(str, ladder.steps))} "
        f"steps, width {ladder.held_out} held out: {sum(ladder.runs)} runs, about "
        f"{ladder.seconds / 60:.0f} minutes"
    )
    return ladder, {int(width): Timing(**one) for width, one in kept["times"].items()}


def train_and_predict(
    config: LawConfig, swept: SweepConfig, ladder: Ladder, times: Mapping[int, Timing]
) -> dict[str, Any]:
    """Train the fitted runs, predict the held-out ones, train those; return how they compare."""
    folder, (rates, fitted, held) = config.folder, ladder.runs
    _, own, last = seconds_of(ladder, times, config.slots)
    train(swept, Beside(before=rates, after=held, seconds=last, own=own))
    table, out = folder / "runs.parquet", folder / "prediction.json"
    fit = fit_of(folder, decades_of(read_runs(table)))
    predicting = PredictConfig(fit=fit, sweep=folder / "sweep.yaml", out=out)
    if not out.is_file():
        mark = predict(predicting)["sha256"]
        _say(f"{out}: what the law says of width {ladder.held_out}, sha256 {mark[:12]}")
    train(replace(swept, roles=["held_out"]), Beside(before=rates + fitted, own=last))
    return verify(predicting)


def facts_of(
    config: LawConfig,
    corpus: Corpus,
    recipe: Recipe,
    ladder: Ladder,
    outcomes: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> Facts:
    """Return what is known beside the runs; `outcomes` are the rates and what was verified.

    Writes scores.json: the loss and the scores of each fitted run.
    """
    table, trained = config.folder / "runs.parquet", config.runs / str(config.name)
    write_scores(trained, table, config.folder / "scores.json")
    runs = read_runs(table)
    largest = trained / str(runs["point"][largest_fitted(runs)])
    manifest, (rates, verified) = corpus.manifest, outcomes
    return Facts(
        name=str(config.name),
        objective=recipe.objective,
        corpus={
            "path": corpus.path,
            "fingerprint": manifest.fingerprint,
            "users": manifest.num_users,
            "items": manifest.num_items,
            "events": sum(manifest.num_events.values()),
            "services": list(manifest.num_events),
            "unit": UNITS[recipe.objective],
            "once": recipe.once,
            "queries": recipe.queries,
            "popularity": popularity(corpus) if recipe.objective == "next_item" else None,
        },
        ladder={**vars(ladder), "warmup": ladder.warmup},
        rates=rates,
        verified=verified,
        critical_batch=noise_scale(largest) if recipe.objective == "next_item" else None,
    )


def _call(config: LawConfig) -> dict[str, Any]:
    """Return when the law was made, in which seconds of which minutes, how many runs at once."""
    return {
        "made": datetime.now(UTC).isoformat(timespec="minutes"),
        "seconds": _json(config.folder / "begun.json")["spent"],
        "minutes": config.minutes,
        "jobs": config.slots,
        "threads": config.threads,
    }


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
