"""Command: the test items of next-item checkpoints, among the whole catalogue.

    python -m benchmarks.leave_one_out checkpoint=runs/X corpus=corpora/ml1m out=results/X.json
    python -m benchmarks.leave_one_out checkpoints=[runs/a,runs/b,runs/c] out=results/X.json

Every user's test item is ranked by the raw scores in float64, ties at their expected rank, once
among all items ("seen kept") and once without those of the user's history ("seen left out").
`filter_seen` says which of the two is the headline: right for films, which nobody rates twice, and
wrong for shops; published tables differ in it. Several checkpoints are seeds of one run: each is
given, then their mean over the same resampled users, and the spread between them. Popularity
stands beside them. Writes OUT (JSON) and, with
.parquet for its ending, the ranks of every user.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.baselines.next_item_models import (
    ItemModel,
    Popularity,
    TrainedItems,
    asked_of,
    same_questions,
    training_seconds,
)
from benchmarks.metrics.bootstrap import (
    Interval,
    Statistic,
    bootstrap,
    centred,
    coverage_of,
    mean_of,
    summary,
)
from benchmarks.metrics.format import aligned, show
from benchmarks.rival_table import our_curve
from clue.config import read_command_line
from clue.data.corpus import Corpus
from clue.data.sequences import EvalQueries, Sequences
from clue.evaluation.ranking import Ranks, losses, rank, top

SEEN = ("seen kept", "seen left out")
MEASURES = ("HR@10", "NDCG@10", "MRR", "cross-entropy", "coverage@10")


@dataclass(frozen=True, kw_only=True)
class LeaveOneOutConfig:
    """The `checkpoint`, or several `checkpoints` that differ in their seed, and the corpus.

    `filter_seen` makes "seen left out" the headline. At most `questions` test items are asked, the
    first of a fixed shuffle. `resamples` of users make the intervals of 95 %.
    """

    checkpoint: Path | None = None
    checkpoints: list[Path] = field(default_factory=list[Path])
    corpus: Path = Path("corpora/ml1m")
    out: Path = Path("results/next_item/ml1m.json")
    filter_seen: bool = False
    questions: int = 1_000_000
    resamples: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse no model, two ways of naming one, and counts that mean nothing."""
        if (self.checkpoint is None) == (not self.checkpoints):
            raise ValueError("give either checkpoint=RUN or checkpoints=[RUN,RUN,...]")
        for name in ("questions", "resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a positive count")

    @property
    def runs(self) -> list[Path]:
        """All runs that are asked for."""
        return self.checkpoints or ([] if self.checkpoint is None else [self.checkpoint])


@dataclass(frozen=True)
class Answers:
    """What one model answered to Q questions: standing and nats of the targets, lists (Q, 10)."""

    ranks: Ranks
    nats: np.ndarray
    lists: np.ndarray
    items: int

    def statistics(self) -> list[Statistic]:
        """Return the MEASURES in their order."""
        return [
            mean_of(self.ranks.hit(10)),
            mean_of(self.ranks.ndcg(10)),
            mean_of(self.ranks.reciprocal()),
            mean_of(self.nats),
            coverage_of(self.lists, self.items),
        ]


def answers(model: ItemModel, asked: EvalQueries, *, filter_seen: bool) -> Answers:
    """Return the answers of a model among all items, or without those of the histories."""
    states, table = model.states(asked.histories), model.table
    seen = asked.histories if filter_seen else None
    return Answers(
        rank(states, table, asked.targets, seen),
        losses(states, table, asked.targets, seen),
        top(states, table, min(10, len(table)), seen),
        len(table),
    )


def measured(
    found: Mapping[str, Answers], users: np.ndarray, *, resamples: int, seed: int
) -> dict[str, dict[str, Interval]]:
    """Return the measures of each row, the mean of all but `popularity`, and the gain over it.

    `users` (Q,) says whose each question is; all rows see the same resamples.
    """
    statistics = [statistic for answer in found.values() for statistic in answer.statistics()]
    values, drawn = bootstrap(statistics, users, resamples=resamples, seed=seed)
    for at in range(MEASURES.index("coverage@10"), len(values), len(MEASURES)):
        drawn[at] = centred(values[at], drawn[at])
    shape = len(found), len(MEASURES)
    value = dict(zip(found, values.reshape(shape), strict=True))
    draws = dict(zip(found, drawn.reshape(*shape, -1), strict=True))
    models = [name for name in found if name != "popularity"]
    value["mean"] = np.mean([value[name] for name in models], axis=0)
    draws["mean"] = np.mean([draws[name] for name in models], axis=0)
    value["mean - popularity"] = value["mean"] - value["popularity"]
    draws["mean - popularity"] = draws["mean"] - draws["popularity"]
    return {
        name: dict(zip(MEASURES, summary(value[name], draws[name]), strict=True)) for name in value
    }


def spread(table: Mapping[str, Mapping[str, Interval]], models: Sequence[str]) -> dict[str, float]:
    """Return each measure's standard deviation over the models, that differ in their seed."""
    return {
        name: float(np.std([table[model][name].value for model in models], ddof=1))
        for name in MEASURES
    }


def per_user(named: Mapping[str, Answers], ids: pa.Array, seen: str) -> pa.Table:
    """Return a line per model and question: rank among the candidates, and nats."""
    return pa.concat_tables(
        pa.table(
            {
                "row": pa.array([row] * len(ids)),
                "seen": pa.array([seen] * len(ids)),
                "user_id": ids,
                "rank": answer.ranks.expected(),
                "candidates": answer.ranks.of,
                "loss": answer.nats,
            }
        )
        for row, answer in named.items()
    )


def about_model(model: TrainedItems) -> dict[str, Any]:
    """Return what a row of the results is the result of."""
    decoder = model.checkpoint.config.decoder
    return {
        "fingerprint": model.checkpoint.fingerprint,
        "step": model.checkpoint.step,
        "seed": model.checkpoint.config.seed,
        "parameters": model.parameters,
        "non_embedding": decoder.non_embedding,
        "decoder": asdict(decoder),
        "training_seconds": training_seconds(model.checkpoint),
        "curve": our_curve(model.checkpoint.path.parents[1] / "log.jsonl"),
    }


def evaluate(config: LeaveOneOutConfig) -> str:
    """Return the printed tables, having written the results.

    Raises FileNotFoundError and ValueError, naming it, for what is missing or does not fit.
    """
    started = time.perf_counter()
    corpus = Corpus.open(config.corpus)
    opened = [TrainedItems.open(run, corpus) for run in config.runs]
    models = {model.checkpoint.config.name: model for model in opened}
    if len(models) < len(opened) or "popularity" in models:
        raise ValueError(f"the runs have the names {', '.join(models)}; give runs of other names")
    chosen = same_questions(list(models.values()))
    sequences = Sequences(corpus, chosen)
    asked = asked_of(sequences, config.questions)
    rows: dict[str, ItemModel] = {**models, "popularity": Popularity(sequences.counts())}
    tables: dict[str, Any] = {}
    lines: list[pa.Table] = []
    ids = corpus.user_ids.take(pa.array(asked.users))
    for seen in SEEN:
        filtered = seen == SEEN[1]
        found = {name: answers(row, asked, filter_seen=filtered) for name, row in rows.items()}
        draws = {"resamples": config.resamples, "seed": config.seed}
        tables[seen] = measured(found, asked.users, **draws)
        lines.append(per_user(found, ids, seen))
    config.out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.concat_tables(lines), config.out.with_suffix(".parquet"), compression="zstd")
    about = {
        "format": 1,
        "headline": SEEN[config.filter_seen],
        "questions": len(asked.targets),
        "sequences": asdict(chosen),
        "corpus": {"name": corpus.manifest.name, "fingerprint": corpus.fingerprint},
        "items": len(sequences.catalogue),
        "models": {name: about_model(model) for name, model in models.items()},
        "config": {"resamples": config.resamples, "seed": config.seed},
        "seconds": round(time.perf_counter() - started, 1),
        "versions": {name: version(name) for name in ("clue-users", "numpy", "torch")},
        "tables": {
            seen: {row: {k: asdict(v) for k, v in named.items()} for row, named in table.items()}
            for seen, table in tables.items()
        },
    }
    if len(models) > 1:
        about["spread"] = {seen: spread(table, list(models)) for seen, table in tables.items()}
    config.out.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return as_text(about, tables)


def as_text(about: Mapping[str, Any], tables: Mapping[str, Any]) -> str:
    """Return the tables for the terminal, intervals of 95 % over users in brackets."""
    parts: list[str] = []
    for seen, table in tables.items():
        head = f"{about['questions']:,} test items among {about['items']:,}, {seen}"
        mark = " (headline)" if seen == about["headline"] else ""
        lines = [["", *MEASURES]]
        lines += [[row, *(show(k, v) for k, v in named.items())] for row, named in table.items()]
        if "spread" in about:
            lines.append(["sd of seeds", *(f"{x:.4f}" for x in about["spread"][seen].values())])
        parts.append(f"{head}{mark}\n{aligned(lines)}")
    return "\n\n".join(parts)


def markdown(about: Mapping[str, Any]) -> str:
    """Return the results as Markdown: each model, their mean, popularity, by what is ranked."""
    named = ("HR@10", "NDCG@10", "MRR", "coverage@10")
    lines = [f"| seen items | row | {' | '.join(named)} | s |", "|" + " --- |" * (len(named) + 3)]
    for seen in (about["headline"], *(s for s in SEEN if s != about["headline"])):
        for row, found in about["tables"][seen].items():
            if row in ("mean - popularity", "mean" if len(about["models"]) == 1 else ""):
                continue
            seconds = about["models"].get(row, {}).get("training_seconds")
            cells = [show(key, Interval(**found[key])) for key in named]
            cells.append("" if seconds is None else f"{seconds:,.0f}")
            lines.append(f"| {seen.removeprefix('seen ')} | {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, evaluates, prints the tables."""
    config = read_command_line(LeaveOneOutConfig, sys.argv[1:], description=__doc__ or "")
    try:
        sys.stdout.write(evaluate(config) + "\n")
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
