"""Command: frozen user vectors on every task, beside baselines tuned for each of them.

    python -m benchmarks.suite --suite mini
    python -m benchmarks.suite configs/suite/real.yaml tasks=[matching*]

`--suite NAME` is configs/suite/NAME.yaml. Each score is a line of OUT/scores.jsonl, made once:
the same command goes on where it was stopped.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeAlias

from tqdm import tqdm

from benchmarks.baselines.history_tokens import HistoryTokens, HistoryTokensConfig
from benchmarks.baselines.next_item_models import TrainedItems
from benchmarks.baselines.representations import EncoderModel, ItemMeanModel, RandomModel, TextModel
from benchmarks.external.coles import ColesConfig, ColesModel
from benchmarks.external.environments import ArmFailed
from benchmarks.protocols import Model, Probe, Task, TaskBaseline
from benchmarks.suite import geometry, paired, results
from benchmarks.suite.pipeline import prepare
from benchmarks.tasks.attributes import AttributesConfig
from benchmarks.tasks.clicks import ClicksConfig
from benchmarks.tasks.feed_clicks import FeedClicksConfig
from benchmarks.tasks.future_labels import WindowsConfig
from benchmarks.tasks.impression_ranking import ImpressionRankingConfig
from benchmarks.tasks.item_ranking import ItemRankingConfig
from benchmarks.tasks.matching import MatchingConfig
from benchmarks.tasks.new_service import NewServiceConfig
from benchmarks.tasks.next_click import NextClickConfig
from benchmarks.tasks.next_item import NextItemConfig
from benchmarks.tasks.offers import OffersConfig
from benchmarks.tasks.recoverability import RecoverabilityConfig
from benchmarks.tasks.returns import ReturnsConfig
from benchmarks.tasks.synthetic import SyntheticTaskConfig
from clue.config import run_command, user_errors
from clue.data.corpus import Corpus

SUITES = Path("configs/suite")
MORE_PROBES = ("mlp", "8-shot", "16-shot", "32-shot")  # where they are named alone
Wanted: TypeAlias = tuple[Task, Model | TaskBaseline, Probe]


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """A suite: what is evaluated, on what, and by which tasks.

    `corpus` is evaluated; `pretrain_corpus` holds what pretraining may read, and what baselines of
    every task learn from. `encoders` are the runs of one configuration, a seed each: CLUE's rows;
    `more_encoders` are runs of others by the name of their rows; `untrained` are the seeds of the
    control. `coles` and `history_tokens` are baselines trained on that, null for none.
    `tasks` are patterns of task names and `probes` names of probes, all by default: trees over 50
    labels or 21 classes of 512 features take minutes a model. `mlp`, `8-shot`, `16-shot` and
    `32-shot` must be named (configs/suite/probes.yaml); `mlp` is 256 wide, `mlp-2048` as wide as
    published. `prepare` are the commands that make all this, by what each writes last; those whose
    output is missing run first. `item_models` are next-item runs by a name, a seed each, and
    `pairs` of models are subtracted from one another.
    """

    name: str = "mini"
    prepare: dict[str, str] = field(default_factory=dict[str, str])
    corpus: Path = Path("corpora/transfer")
    pretrain_corpus: Path = Path("corpora/universal")
    out: Path = Path("results/suite/real")
    encoders: list[Path] = field(default_factory=list[Path])
    more_encoders: dict[str, list[Path]] = field(default_factory=dict[str, list[Path]])
    untrained: list[int] = field(default_factory=lambda: [0])
    text_dims: int = 512  # Width of the TF-IDF + SVD baseline.
    half_life: float = 8.0  # Events after which a baseline's weight of an old one is halved.
    coles: ColesConfig | None = None
    history_tokens: HistoryTokensConfig | None = None
    resamples: int = 2000  # Bootstrap resamples of an interval.
    seed: int = 0
    tasks: list[str] = field(default_factory=list[str])
    probes: list[Probe] = field(default_factory=list[Probe])
    matching: list[MatchingConfig] = field(default_factory=list[MatchingConfig])
    windows: list[WindowsConfig] = field(default_factory=list[WindowsConfig])
    recoverability: list[RecoverabilityConfig] = field(default_factory=list[RecoverabilityConfig])
    attributes: list[AttributesConfig] = field(default_factory=list[AttributesConfig])
    clicks: list[ClicksConfig] = field(default_factory=list[ClicksConfig])
    feed_clicks: list[FeedClicksConfig] = field(default_factory=list[FeedClicksConfig])
    impression_ranking: list[ImpressionRankingConfig] = field(
        default_factory=list[ImpressionRankingConfig]
    )
    returns: list[ReturnsConfig] = field(default_factory=list[ReturnsConfig])
    next_click: list[NextClickConfig] = field(default_factory=list[NextClickConfig])
    offers: list[OffersConfig] = field(default_factory=list[OffersConfig])
    synthetic: list[SyntheticTaskConfig] = field(default_factory=list[SyntheticTaskConfig])
    next_item: list[NextItemConfig] = field(default_factory=list[NextItemConfig])
    new_service: list[NewServiceConfig] = field(default_factory=list[NewServiceConfig])
    item_models: dict[str, list[Path]] = field(default_factory=dict[str, list[Path]])
    item_ranking: list[ItemRankingConfig] = field(default_factory=list[ItemRankingConfig])
    pairs: list[list[str]] = field(default_factory=list[list[str]])


def models_of(config: SuiteConfig, corpus: Corpus) -> list[Any]:
    """Return the models that every task is given; FileNotFoundError where a run is missing."""
    items = [
        TrainedItems.open(path, name, seed=seed)
        for name, runs in config.item_models.items()
        for seed, path in enumerate(runs)
    ]
    return items + (encoders_of(config, corpus) if config.encoders else [])


def encoders_of(config: SuiteConfig, corpus: Corpus) -> list[Any]:
    """Return the representations of users: ours, their controls and baselines."""
    learn = Corpus.open(config.pretrain_corpus)
    trained = [
        EncoderModel("CLUE", path, corpus, seed=seed, untrained=False)
        for seed, path in enumerate(config.encoders)
    ]
    others = [
        EncoderModel(name, path, corpus, seed=seed, untrained=False)
        for name, runs in config.more_encoders.items()
        for seed, path in enumerate(runs)
    ]
    first = config.encoders[0]
    controls = [
        EncoderModel("untrained", first, corpus, seed=seed, untrained=True)
        for seed in config.untrained
    ]
    rival = config.coles
    coles = [ColesModel(rival, learn, corpus, seed=seed) for seed in rival.seeds] if rival else []
    other = config.history_tokens
    tokens = [HistoryTokens(other, learn, corpus, seed=s) for s in other.seeds] if other else []
    text = TextModel(learn, corpus, dims=config.text_dims, seed=config.seed)
    if not text.has_terms:
        sys.stderr.write(
            f"{config.pretrain_corpus}: no two items share a term; {text.name} is left out\n"
        )
    return [
        *trained,
        *others,
        *controls,
        ItemMeanModel(trained[0], half_life=config.half_life),
        *coles,
        *tokens,
        *([text] if text.has_terms else []),
        RandomModel(corpus, width=trained[0].width, seed=config.seed),
    ]


def asked_of(config: SuiteConfig) -> list[Any]:
    """Return the configs of the tasks that are asked for. ValueError where `tasks` names none."""
    lists = [value for value in vars(config).values() if isinstance(value, list)]
    configs: list[Any] = [one for each in lists for one in each if hasattr(one, "build")]
    names = [one.name for one in configs]
    if len(set(names)) < len(names):
        raise ValueError(f"two tasks of one name among {', '.join(names)}; a name is one task's")
    chosen = [
        one
        for one in configs
        if not config.tasks or any(fnmatch(one.name, p) for p in config.tasks)
    ]
    if not chosen:
        raise ValueError(f"tasks={config.tasks} names no task; there are {', '.join(names)}")
    return chosen


def tasks_of(config: SuiteConfig, corpus: Corpus) -> list[Task]:
    """Return the tasks that are asked for."""
    return [one.build(corpus) for one in asked_of(config)]


def run(config: SuiteConfig) -> int:
    """Return how many results were missing and are made, of a whole suite with the geometry."""
    if not (config.encoders or config.item_models):
        raise ValueError(
            "encoders is empty and item_models names no run; name one, encoders=[runs/demo]"
        )
    supervised = [c.supervised for c in asked_of(config) if isinstance(c, NextItemConfig)]
    item_runs = [run for runs in config.item_models.values() for run in runs]
    others = [run for runs in config.more_encoders.values() for run in runs]
    prepare(config.prepare, [*config.encoders, *others, *item_runs, *filter(None, supervised)])
    corpus = Corpus.open(config.corpus)
    models = models_of(config, corpus)
    wanted = results.wanted_results(tasks_of(config, corpus), models)
    asked = [(task, row, by) for task, row, probe in wanted for by in asked_probes(config, probe)]
    made = fill(config, asked)
    if config.pairs:
        draws = {"resamples": config.resamples, "seed": config.seed}
        paired.write(config.out, paired.pairs(results.read(config.out), config.pairs, **draws))
    if config.encoders and not config.tasks:
        geometry.write(config.out, models, corpus)
    return made


def asked_probes(config: SuiteConfig, probe: Probe) -> list[Probe]:
    """Return what the suite names of a task's probe, "mlp-2048" too of "mlp".

    Where it names nothing it is the probe itself, unless one of MORE_PROBES.
    """
    if not config.probes:
        return [] if probe in MORE_PROBES else [probe]
    return [one for one in config.probes if probe in (one, one.partition("-")[0])]


def fill(config: SuiteConfig, wanted: Sequence[Wanted]) -> int:
    """Return how many of the wanted results were missing and are made."""
    made = results.digests(config.out)
    missing = [
        (task, model, probe)
        for task, model, probe in wanted
        if made.get((task.name, model.name, model.seed, probe))
        != results.digest(task, model, probe, config.resamples)
    ]
    kept = len(wanted) - len(missing)
    sys.stderr.write(f"{config.out}: {len(wanted)} scores, {kept} of them kept\n")
    with tqdm(missing, unit="score", disable=not sys.stderr.isatty()) as bar:
        for number, (task, model, probe) in enumerate(bar, 1):
            named = f"{task.name}: {model.name} {model.seed}, {probe}"
            bar.set_description(named)
            started = time.perf_counter()
            result = results.make(
                config.out, task, model, probe, resamples=config.resamples, seed=config.seed
            )
            value, took = result.values[result.main], time.perf_counter() - started
            bar.write(
                f"[{number}/{len(missing)}] {named}: {result.main} {value.value:.4f} "
                f"[{value.low:.4f} {value.high:.4f}], {took:.1f} s",
                file=sys.stderr,
            )
    return len(missing)


def arguments(argv: Sequence[str]) -> list[str]:
    """Return the arguments with `--suite NAME` or `--suite=NAME` as the path of its YAML."""
    words = [part for word in argv for part in word.split("=", 1)] if argv else []
    if words[:1] != ["--suite"]:
        return [*argv]
    used = 1 if "=" in argv[0] else 2
    if len(words) < 2:
        raise ValueError("--suite needs a name, mini or real")
    return [str(SUITES / f"{words[1]}.yaml"), *argv[used:]]


def main() -> None:
    """Read the command line, make the results."""
    with user_errors():
        argv = arguments(sys.argv[1:])
    run_command(SuiteConfig, run, argv, description=__doc__, also=(ArmFailed,))


if __name__ == "__main__":
    main()
