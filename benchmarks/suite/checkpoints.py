"""Command: a run's checkpoints on some tasks, and whether a lower loss meant better transfer.

    python -m benchmarks.suite.checkpoints run=runs/universal_0 tasks=[matching/*]

Makes the results of every RUN/checkpoints/step_* and of the same encoder untrained, step 0; the
same command goes on where it was stopped. Writes OUT/tau.json: rank correlations of the contrastive
entropy on valid users, at the fixed number of negatives of the run's galleries, with each task.
A run keeps its checkpoints with pretraining's keep_every.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.baselines.representations import EncoderModel
from benchmarks.json_files import write_json
from benchmarks.metrics.correlation import correlations
from benchmarks.suite import results
from benchmarks.suite import runner as suite
from benchmarks.suite.results import TaskResult
from clue.config import load, run_command
from clue.data.corpus import Corpus
from clue.evaluation.matching import mean_entropy
from clue.monitor.read_log import read_log
from clue.run import checkpoint
from clue.run.objectives.contrastive import Contrastive


@dataclass(frozen=True, kw_only=True)
class CheckpointsConfig:
    """Whose checkpoints, on what: `suite` is the YAML of a suite, `tasks` patterns of its tasks."""

    run: Path
    suite: Path = Path("configs/suite/real.yaml")
    out: Path = Path("results/suite/checkpoints")
    tasks: list[str] = field(default_factory=lambda: ["matching/*"])
    resamples: int = 2000
    seed: int = 0


def measure(config: CheckpointsConfig) -> Path:
    """Return the path of tau.json, having made the results that are missing."""
    suite_config = load(suite.SuiteConfig, config.suite)
    suite_config = replace(
        suite_config, tasks=config.tasks, out=config.out, resamples=config.resamples
    )
    corpus = Corpus.open(suite_config.corpus)
    losses = losses_of(config.run, suite_config.pretrain_corpus, config.seed)
    models = {step: model_of(config.run, corpus, step, config.seed) for step in losses}
    wanted = [
        (task, model, probe)
        for task in suite.tasks_of(suite_config, corpus)
        for model in models.values()
        if (probe := next((p for p in task.probes if task.supports(model, p)), None)) is not None
    ]
    suite.fill(suite_config, wanted)
    keys = {(task.name, model.name, model.seed, probe) for task, model, probe in wanted}
    file = config.out / "tau.json"
    made = [result for result in results.read(config.out) if result.key in keys]
    by_name = {model.name: losses[step] for step, model in models.items()}
    write_json(file, tau(made, by_name, resamples=config.resamples))
    return file


def losses_of(run: Path, pretrain_corpus: Path, seed: int) -> dict[int, float]:
    """Return the held-out entropy in nats by step of the checkpoints that are kept, and of step 0.

    That of step 0 is computed from the `pretrain_corpus` that the run read. ValueError for a run of
    another objective or of another corpus.
    """
    source = checkpoint.find(run)
    measured = [(line["step"], line["entropy"]) for line in read_log(run).valid]
    logged = {step: entropy for step, entropy in measured if entropy is not None}
    steps = sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step_*"))
    corpus = Corpus.open(pretrain_corpus)
    if source.config.objective != "contrastive":
        raise ValueError(
            f"{run} is of objective {source.config.objective}, which has no contrastive entropy; "
            "give a run of objective: contrastive"
        )
    if source.corpus["fingerprint"] != corpus.fingerprint:
        raise ValueError(
            f"{run} did not learn from {pretrain_corpus}; name its corpus as pretrain_corpus "
            "in the suite"
        )
    objective = Contrastive(replace(source.config, corpus=pretrain_corpus), corpus)
    torch.manual_seed(seed)
    untrained = mean_entropy(objective.held_out(objective.model().state_dict()))
    return {0: untrained, **{step: logged[step] for step in steps if step in logged}}


def model_of(run: Path, corpus: Corpus, step: int, seed: int) -> EncoderModel:
    """Return the encoder "step N" of a run; step 0 is untrained, drawn by `seed`."""
    path = run / "checkpoints" / f"step_{step:08d}" if step else run
    return EncoderModel(f"step {step}", path, corpus, seed=seed, untrained=step == 0)


def tau(made: Sequence[TaskResult], losses: dict[str, float], *, resamples: int) -> dict[str, Any]:
    """Return what the report shows: loss and values of each checkpoint, and the correlations.

    `losses` are by the models' names. ValueError for fewer than three checkpoints.
    """
    tasks = {result.task: result for result in made}
    values: dict[str, dict[str, float]] = {name: {} for name in losses}
    for result in made:
        values[result.model][result.task] = result.values[result.main].value
    points = [(loss, values[name]) for name, loss in losses.items()]
    lower = {name: one.measures[one.main].lower_is_better for name, one in tasks.items()}
    taus = correlations(points, lower, resamples=resamples)
    return {
        "checkpoints": [
            {"name": name, "loss": loss, "values": values[name]} for name, loss in losses.items()
        ],
        "tasks": {
            name: {
                "measure": result.main,
                "lower_is_better": lower[name],
                **{kind: asdict(each) for kind, each in taus[name].items()},
            }
            for name, result in tasks.items()
        },
    }


def main() -> None:
    """Read the command line, measure, say where the correlations are."""
    written = run_command(CheckpointsConfig, measure, description=__doc__)
    sys.stdout.write(f"correlations: {written}\n")


if __name__ == "__main__":
    main()
