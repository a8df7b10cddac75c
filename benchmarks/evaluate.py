"""Command: a checkpoint on every task, beside its controls.

    python -m benchmarks.evaluate configs/benchmarks/demo.yaml checkpoint=runs/demo out=results/demo

Every figure stands beside the same encoder untrained, TF-IDF + SVD and popularity, and matching
also beside the tuned linear floor. Writes OUT/results.json and OUT/per_user.parquet; prints tables.
"""

import dataclasses
import importlib.metadata
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.attribute import evaluate_attribute, read_labels
from benchmarks.baselines.tfidf import TextVectors, item_terms
from benchmarks.matching import evaluate_matching
from benchmarks.metrics.format import aligned
from benchmarks.models import EncoderVectors, Vectors
from benchmarks.next_item import Past, evaluate_next_item
from benchmarks.results import Outcome, as_text, headlines, write_results
from clue.config import read_command_line
from clue.data.corpus import Corpus
from clue.inference.encoder import Encoder, load


@dataclass(frozen=True, kw_only=True)
class AttributeConfig:
    """A users table (Parquet with `user_id`) and its column that holds the label."""

    users: Path
    label: str


@dataclass(frozen=True, kw_only=True)
class NextItemConfig:
    """`filter_seen` ranks without the items seen before: right for films, not for shops.

    `past` is where the history comes from: the target's own service, or the others alone.
    """

    filter_seen: bool = False
    past: Past = "same"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is evaluated, where the results go, and the tasks; a task left out (null) is not run.

    `text_dims` is the width of TF-IDF + SVD and of the linear floor. `untrained_seed` draws the
    weights of the untrained control. `resamples` of users make the intervals of 95 %.
    """

    name: str = "demo"
    checkpoint: Path = Path("runs/demo")
    corpus: Path = Path("corpora/demo")
    out: Path = Path("results/demo")
    matching: bool = True
    attributes: list[AttributeConfig] = field(default_factory=list[AttributeConfig])
    next_item: NextItemConfig | None = field(default_factory=NextItemConfig)
    text_dims: int = 512
    resamples: int = 10_000
    seed: int = 0
    untrained_seed: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that mean nothing, and a benchmark without a task."""
        for name in ("text_dims", "resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a positive count")
        if not (self.matching or self.attributes or self.next_item):
            raise ValueError("no task asked for; set matching, attributes or next_item")


def evaluate(config: EvaluateConfig) -> str:
    """Return the printed tables, having written all results into `out`.

    Raises FileNotFoundError and ValueError, naming it, for what is missing or does not fit.
    """
    started = time.perf_counter()
    corpus = Corpus.open(config.corpus)
    encoder = load(config.checkpoint)
    control = load(config.checkpoint, seed=config.untrained_seed)
    _say(f"{config.checkpoint} on {config.corpus}: {corpus.num_users:,} users")
    outcomes: list[Outcome] = []
    seconds: dict[str, float] = {}
    for task, outcome in _outcomes(config, corpus, encoder, control):
        seconds[task] = round(time.perf_counter() - started - sum(seconds.values()), 1)
        _say(f"{task}: {seconds[task]:.1f} s")
        outcomes.append(outcome)
    tables = [table for outcome in outcomes for table in outcome.tables]
    config.out.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.concat_tables([outcome.per_user for outcome in outcomes]),
        config.out / "per_user.parquet",
        compression="zstd",
    )
    about: dict[str, Any] = {
        "name": config.name,
        "config": {k: _plain(v) for k, v in dataclasses.asdict(config).items()},
        "model": {"fingerprint": encoder.fingerprint, "width": encoder.width},
        "corpus": {
            "name": corpus.manifest.name,
            "fingerprint": corpus.fingerprint,
            "services": list(corpus.services),
            "users": corpus.num_users,
            "items": corpus.num_items,
            "events": corpus.manifest.num_events,
            "split": corpus.manifest.split,
        },
        "seconds": seconds,
        "versions": {p: importlib.metadata.version(p) for p in ("numpy", "scikit-learn", "torch")},
    }
    write_results(config.out / "results.json", tables, about)
    main = [table for table in tables if table.main]
    small = aligned(headlines([table for table in main if table.users == "test alone"]))
    texts = [as_text(table) for table in main]
    details = (
        f"{len(tables) - len(main)} tables of single services are in {config.out}/results.json"
    )
    return "\n".join([*texts, details, f"\nTest users alone, intervals of 95 %:\n{small}"])


def _outcomes(
    config: EvaluateConfig, corpus: Corpus, encoder: Encoder, control: Encoder
) -> Iterator[tuple[str, Outcome]]:
    """Runs the tasks that are asked for, one after another."""
    terms = item_terms(corpus)
    models: dict[str, Vectors] = {
        "trained": EncoderVectors(encoder, corpus),
        "untrained": EncoderVectors(control, corpus),
        "text": TextVectors(corpus, terms, dims=config.text_dims, seed=config.seed),
    }
    resamples, seed = config.resamples, config.seed
    if config.matching:
        yield (
            "matching",
            evaluate_matching(
                corpus, models, terms, dims=config.text_dims, resamples=resamples, seed=seed
            ),
        )
    for asked in config.attributes:
        labelled = read_labels(corpus, asked.users, asked.label)
        yield (
            f"attribute {asked.label}",
            evaluate_attribute(
                corpus, models, labelled, name=asked.label, resamples=resamples, seed=seed
            ),
        )
    if config.next_item is not None:
        yield (
            "next item",
            evaluate_next_item(
                corpus,
                models,
                filter_seen=config.next_item.filter_seen,
                past=config.next_item.past,
                resamples=resamples,
                seed=seed,
            ),
        )


def _plain(value: Any) -> Any:
    """Return the value as JSON can hold it."""
    if isinstance(value, dict):
        return {key: _plain(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_plain(below) for below in value]
    return str(value) if isinstance(value, Path) else value


def _say(line: str) -> None:
    sys.stderr.write(f"evaluate: {line}\n")


def main() -> None:
    """Reads the command line, evaluates, prints the tables."""
    config = read_command_line(EvaluateConfig, sys.argv[1:], description=__doc__ or "")
    try:
        sys.stdout.write(evaluate(config) + "\n")
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
