"""Command: from raw logs to an evaluated, indexed and reported model, by the documented commands.

    python -m benchmarks.demo
    python -m benchmarks.demo events=my.parquet

Without arguments it invents a synthetic world, whose truth the report then shows. With `events` it
takes a log of yours: columns user_id, item_id, timestamp and, if there are any, service and text.
Every command is printed before it runs, and the first that fails ends the demo.
"""

import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml

from benchmarks.metrics.format import aligned, show
from benchmarks.suite import results as scores
from benchmarks.suite.pipeline import Stages
from benchmarks.suite.summary import CONTROL, OURS, TaskTable, tables
from clue.config import load, run_command
from clue.data.corpus import Corpus
from clue.data.ingest.files import log_file
from clue.data.ingest.readers import columns_of
from clue.evaluation.matching import matching_pairs
from clue.run.pretrain_config import PretrainConfig

WORLD = Path("data/synthetic")
NEEDED = ("user_id", "item_id", "timestamp")
RESAMPLES = 1000
LEAST = 16  # users that a batch must hold: fewer negatives teach nothing


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """`events` is a log of your own; `name` that of the run, demo or the file's unless set.

    `pretrain` is the run's config, its `batch` and views fitted to a log of your own. `on_bad_row`
    and `overwrite` are those of clue/prepare.py.
    """

    events: Path | None = None
    name: str | None = None
    pretrain: Path = Path("configs/pretrain/demo.yaml")
    on_bad_row: Literal["error", "drop"] = "error"
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse a name that is no name of a directory."""
        if self.name is not None and not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(f"name={self.name!r} must be letters, digits, dots and dashes")


def demo(config: DemoConfig) -> str:
    """Return what to print at the end: the small table, where the report is, what to try next.

    Raises ValueError or FileNotFoundError, naming it, for a log that cannot be used, and
    SystemExit where a stage fails.
    """
    own = config.events is not None
    name = config.name or ("demo" if config.events is None else plain_name(config.events))
    corpus, run, results = Path("corpora") / name, Path("runs") / name, Path("results") / name
    data, truth = Path("configs/prepare/synthetic.yaml"), ""
    if config.events is not None:
        data = write_data_config(config.events, name, run)
    else:
        truth = f" users={WORLD}/users.parquet label=category"
    stages = Stages()
    if not own:
        stages.run("synthetic world", f"python -m clue.synthetic.world out={WORLD}")
    rules = f"on_bad_row={config.on_bad_row} overwrite={str(config.overwrite).lower()}"
    stages.run("corpus", f"python clue/prepare.py {data} name={name} out={corpus} {rules}")
    fitted = fit_to(Corpus.open(corpus), load(PretrainConfig, config.pretrain)) if own else []
    arguments = " ".join([str(config.pretrain), f"name={name}", f"corpus={corpus}", *fitted])
    stages.run("pretraining", f"accelerate launch clue/pretrain.py {arguments}")
    if own:
        suite = str(write_suite_config(Corpus.open(corpus), name, run, results))
    else:
        of = f"name={name} corpus={corpus} pretrain_corpus={corpus} out={results}"
        suite = f"configs/suite/demo.yaml {of} encoders=[{run}]"
    stages.run("benchmarks", f"python -m benchmarks.suite {suite}")
    index = Path("indexes") / name
    arguments = f"checkpoint={run} corpus={corpus} out={index} overwrite=true"
    stages.run("index", f"python -m serving.build_index {arguments}")
    noted = json.dumps(stages.seconds, indent=1)
    (run / "stages.json").write_text(noted + "\n", encoding="utf-8")
    arguments = f"run={run} corpus={corpus} results={results}{truth}"
    stages.run("report", f"python -m benchmarks.report.run_page {arguments}")
    advice = what_next(Corpus.open(corpus), run, index)
    table = summary(tables(scores.read(results), resamples=RESAMPLES))
    return "\n".join([table, f"report: {run}/report.html", "", *advice])


def plain_name(log: Path) -> str:
    """Return a name for the run of a log: its file's, in plain characters and never `demo`."""
    name = re.sub(r"\W+", "_", log.name.split(".")[0]).strip("_") or "log"
    return f"{name}_log" if name == "demo" else name


def write_data_config(log: Path, name: str, run: Path) -> Path:
    """Write RUN/data.yaml, by which `clue/prepare.py` reads the log, and return its path.

    Raises FileNotFoundError without the file and ValueError naming the columns that it lacks.
    """
    if not log.is_file():
        raise FileNotFoundError(f"no event log {log}; give a .parquet, .csv or .jsonl file")
    columns = columns_of(log_file(log))
    missing = [column for column in NEEDED if column not in columns]
    if missing:
        raise ValueError(
            f"{log} has no column {', '.join(missing)} but {', '.join(columns)}; rename yours, or "
            "write a data YAML that says what they are called (README, Event logs)"
        )
    tree: dict[str, object] = {"name": name, "events": [str(log)]}
    if "service" not in columns:
        tree["service"] = name
    run.mkdir(parents=True, exist_ok=True)
    file = run / "data.yaml"
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    file.write_text(text, encoding="utf-8")
    return file


def fit_to(corpus: Corpus, config: PretrainConfig) -> list[str]:
    """Return the overrides by which a run's batch and views suit the users that there are.

    Cross-service views need users of two services, the others users of two events in one. Raises
    ValueError where too few training users have either.
    """
    train = corpus.users_in("train")
    lengths = np.stack([corpus.items_of(s).lengths[train] for s in range(len(corpus.services))])
    paired, long = int(((lengths > 0).sum(0) >= 2).sum()), int((lengths >= 2).any(0).sum())
    most = max(paired, long)
    if most < LEAST:
        raise ValueError(
            f"{corpus.path}: of {len(train)} training users {paired} are in two services and "
            f"{long} have two events in one; a run needs {LEAST} of either"
        )
    batch = min(config.batch, 2 ** int(np.log2(most)))
    # A kind of view takes no more of the batch than there are users for it in one pass.
    cross = min(config.views.cross_service, paired / batch) if paired >= LEAST else 0.0
    if long < (1 - cross) * batch:
        cross = min(1.0, paired / batch)
    # An even number of rows is left, so that the two other kinds share them without a remainder.
    cross = int(cross * batch) // 2 * 2 / batch
    rest = (1 - cross) / 2
    return [
        f"batch={batch}",
        f"views.cross_service={cross}",
        f"views.past_future={rest}",
        f"views.slices={rest}",
    ]


def write_suite_config(corpus: Corpus, name: str, run: Path, results: Path) -> Path:
    """Write RUN/suite.yaml, the tasks that suit a log of one's own, and return its path.

    The next item is asked after earlier events of its own service: there may be one service, or
    several whose events fall on one second. A service in which no held-out user has three events is
    not asked. ValueError where that leaves nothing to measure.
    """
    held_out = corpus.split > 0
    long = [
        service
        for number, service in enumerate(corpus.services)
        if (corpus.items_of(number).lengths[held_out] >= 3).any()
    ]
    pairs = matching_pairs(corpus, np.flatnonzero(held_out), max_events=1)
    if not (pairs or long):
        raise ValueError(
            f"{corpus.path}: no two held-out users are in two services or have two events in one, "
            "and none has three events in one; give longer histories or more users"
        )
    tree: dict[str, object] = {
        "name": name,
        "corpus": str(corpus.path),
        "pretrain_corpus": str(corpus.path),
        "out": str(results),
        "encoders": [str(run)],
        "text_dims": 128,
        "resamples": 1000,
        "probes": ["zero-shot", "linear", "fitted"],
        "matching": [{"name": "matching", "cca_dims": 128}] if pairs else [],
        "next_item": [
            {"name": f"next-item/{service}", "service": service, "users": "held_out"}
            for service in long
        ],
    }
    file = run / "suite.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    file.write_text(text, encoding="utf-8")
    return file


def summary(tasks: Sequence[TaskTable]) -> str:
    """Return the small table of the tasks, and where the trained encoder is clearly ahead."""
    models = [OURS, CONTROL]
    models += [m for task in tasks for m in task.rows if m not in models]
    models = list(dict.fromkeys(models))
    head = ["task", "measure", *models]
    lines = [head]
    ahead = 0
    for task in tasks:
        cells = {m: show(task.measure, row.found) for m, row in task.rows.items()}
        lines.append([task.name, task.measure, *(cells.get(m, "-") for m in models)])
        ours, control = task.rows[OURS].found, task.rows[CONTROL].found
        ahead += ours.high < control.low if task.lower_is_better else ours.low > control.high
    return (
        f"\n{aligned(lines)}\n\nIntervals of 95 % over held-out users. {OURS} is ahead of "
        f"{CONTROL}, intervals apart, in {ahead} of {len(tasks)} tasks.\n"
    )


def what_next(corpus: Corpus, run: Path, index: Path) -> list[str]:
    """Return the lines that serve this model and ask it for the items nearest to a behaviour."""
    text, service = str(corpus.item_texts[0]), corpus.services[int(corpus.item_service[0])]
    request = {
        "events": [{"service": service, "text": text}],
        "service": corpus.services[-1],
        "k": 5,
    }
    body = shlex.quote(json.dumps(request, ensure_ascii=False))
    return [
        "Serve it, and ask for the items nearest to somebody who did one thing:",
        f"  export OMP_NUM_THREADS=1 CLUE_CHECKPOINT={run} CLUE_INDEX={index}",
        f"  {Path(sys.executable).parent / 'uvicorn'} --factory serving.app:create_app",
        "  curl -s localhost:8000/v1/items/search -H 'content-type: application/json' \\",
        f"    -d {body}",
    ]


def main() -> None:
    """Read the command line, run the stages, print the end."""
    sys.stdout.write(run_command(DemoConfig, demo, description=__doc__) + "\n")


if __name__ == "__main__":
    main()
