"""Command: what each block of a vector pays, on valid users: the whole, and without one at a time.

    python -m benchmarks.suite.ablation configs/suite/real.yaml
    python -m benchmarks.suite.ablation configs/suite/real.yaml tasks=[news*] encoders=[runs/mine]

The tasks are those of the suite, by the main probe. Test users are left out: valid ones answer in
their place. Of each service FITTED training users at most fit the probes, and a tenth of them is
what a probe chooses on: 22,000 of the video feed would take four times as long. The results lie
in OUT/ablation: scores.jsonl as the suite's, made once; paired.jsonl, each block left out less the
whole vector on the same users; and ablation.md, the table of that.
"""

import sys
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from benchmarks.baselines.concatenated import WithoutBlock
from benchmarks.baselines.representations import EncoderModel
from benchmarks.metrics.format import markdown, number, signed
from benchmarks.protocols import Model, Probe, Scored, Task, TaskBaseline
from benchmarks.suite import paired, results, runner
from benchmarks.suite.summary import OURS
from clue.atomic import write_text
from clue.config import run_command, user_errors
from clue.data.corpus import Corpus

LEFT_OUT = 3  # a number that no split has
FITTED = 5_000  # training users of a service
TUNING = 10  # of so many of them one is a valid user of the ablation


def on_valid_users(corpus: Corpus) -> Corpus:
    """Return the corpus with valid users for the test split, and no test users.

    The training split are FITTED of its users in each service, the first of a fixed
    shuffle; the first tenth of those is the valid split. The events stay.
    """
    split = np.where(corpus.split == 1, 2, LEFT_OUT).astype(corpus.split.dtype)
    shuffled = np.random.default_rng(0).permutation(corpus.users_in("train"))
    kept = np.zeros(corpus.num_users, bool)
    for service in range(len(corpus.services)):
        some = shuffled[corpus.items_of(service).lengths[shuffled] > 0]
        kept[some[:FITTED]] = True
    training = shuffled[kept[shuffled]]
    split[training] = 0
    split[training[: len(training) // TUNING]] = 1
    view = copy(corpus)
    view.split, view.fingerprint = split, f"{corpus.fingerprint}-valid"
    return view


class ValidUsersTask:
    """A task of a corpus `on_valid_users`, whose answers are those of its test split alone.

    Next items and clicks are asked of everybody; here of none but the valid users.
    """

    def __init__(self, task: Task, corpus: Corpus) -> None:
        """Take the name, the version and the recipe of the task."""
        self.task, self.name, self.version, self.family = task, task.name, task.version, task.family
        self.probes = task.probes
        self.recipe: Mapping[str, Any] = {**task.recipe, "asked of": "valid users"}
        self._users = corpus.user_ids.take(corpus.users_in("test"))

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return none."""
        return []

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return whether it is the first probe that the task has for the model."""
        return probe == next((p for p in self.probes if self.task.supports(model, p)), None)

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return the answers of the valid users, without the slices, which no table here shows.

        ValueError where the task asks none of them.
        """
        scored = self.task.score(model, probe)
        kept = scored.queries.filter(pc.is_in(scored.queries["user_id"], self._users))  # pyright: ignore[reportAttributeAccessIssue]
        if not kept.num_rows:
            raise ValueError(f"{self.name} asks no valid user; leave it out of tasks=[…]")
        sliced = [name for name in kept.column_names if name.startswith(results.SLICE)]
        return replace(scored, queries=kept.drop_columns(sliced))


def run(config: runner.SuiteConfig) -> int:
    """Return how many scores were missing and are made, with the table.

    ValueError for an encoder without blocks.
    """
    config = replace(config, out=config.out / "ablation")
    corpus = on_valid_users(Corpus.open(config.corpus))
    models: list[Any] = []
    for seed, path in enumerate(config.encoders):
        whole = EncoderModel(OURS, path, corpus, seed=seed, untrained=False)
        models += [whole, *(WithoutBlock(whole, name) for name in whole.blocks)]
    if not models:
        raise ValueError("encoders is empty; name a universal run, encoders=[runs/universal_0]")
    tasks = [ValidUsersTask(task, corpus) for task in runner.tasks_of(config, corpus)]
    made = runner.fill(config, results.wanted_results(tasks, models))
    differences = paired.pairs(
        results.read(config.out),
        [(f"without {name}", OURS) for name in models[0].blocks],
        resamples=config.resamples,
        seed=config.seed,
    )
    paired.write(config.out, differences)
    wholes = [result for result in results.read(config.out) if result.model == OURS]
    text = table(wholes, differences)
    write_text(config.out / "ablation.md", text)
    sys.stdout.write(text)
    return made


def table(wholes: Sequence[results.TaskResult], differences: Sequence[paired.Pair]) -> str:
    """Return a line a task in Markdown: the whole, and the difference without each block.

    `wholes` are the results of the whole vector, a seed each; a task's are shown by their mean.
    """
    blocks = list(dict.fromkeys(pair.model for pair in differences))
    of = {(pair.task, pair.model): pair.deltas for pair in differences}
    seeds: dict[str, list[results.TaskResult]] = {}
    for result in wholes:
        seeds.setdefault(result.task, []).append(result)
    lines: list[list[str]] = []
    for name, of_task in seeds.items():
        main = of_task[0].main
        mean = np.mean([result.values[main].value for result in of_task]).item()
        each = [
            signed(main, of[name, block][main]) if (name, block) in of else "" for block in blocks
        ]
        lines.append([name, main, number(main, mean), *each])
    return markdown(["task", "measure", OURS, *blocks], lines) + "\n"


def main() -> None:
    """Read the command line, make the scores and the table."""
    with user_errors():
        argv = runner.arguments(sys.argv[1:])
    run_command(runner.SuiteConfig, run, argv, description=__doc__)


if __name__ == "__main__":
    main()
