"""A task of one's own for the suite: what is the topic of a user's next event?

    python examples/05_new_task.py

In the repository the class would be a file of `benchmarks/tasks`, a test beside it, and a line in a
YAML of `configs/suite` (docs/add-a-task.md).
"""

# %% What a task is made of: a label, users, a moment, and measures.
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import clue
from benchmarks.baselines.counts import ItemCounts
from benchmarks.baselines.probes import predict
from benchmarks.baselines.representations import EncoderModel
from benchmarks.protocols import Measure, Model, Probe, Scored, TaskBaseline, has_vectors, model_of
from benchmarks.query_columns import history_slice, matrix
from benchmarks.snapshot import Snapshot, snapshot_at
from benchmarks.suite.results import measured
from clue.data.corpus import Corpus
from clue.data.ingest.prepare_config import ServiceConfig
from clue.synthetic.world import SyntheticConfig, write_world


@dataclass(frozen=True, kw_only=True)
class NextTopicConfig:
    """The `category` of the next item, by a Parquet table `items` of item_id and category."""

    name: str
    items: Path

    def build(self, corpus: Corpus) -> "NextTopicTask":
        """Return the task."""
        return NextTopicTask(self, corpus)


class NextTopicTask:
    """See `NextTopicConfig`; the probe learns from training users and is scored on test users."""

    version, family = 1, "next topic"
    probes: tuple[Probe, ...] = ("linear",)

    def __init__(self, config: NextTopicConfig, corpus: Corpus) -> None:
        """Read the label, the topic of each user's last event, and cut the history before it."""
        self.name, self.corpus = config.name, corpus
        table = pq.read_table(config.items)
        topic = dict(zip(*(table[c].to_pylist() for c in ("item_id", "category")), strict=True))
        topics = sorted(set(topic.values()))
        everybody = np.arange(corpus.num_users)
        whole = snapshot_at(corpus, everybody)
        last = np.full(corpus.num_users, -np.inf)
        label = np.zeros(corpus.num_users, np.int64)
        ids = corpus.item_ids.to_pylist()
        for items, times in whole.parts:  # one of each service
            for user in everybody[items.lengths > 0]:
                end = items.offsets[user + 1] - 1
                if times.values[end] > last[user]:
                    last[user] = times.values[end]
                    label[user] = topics.index(topic[ids[items.values[end]]])
        self.label = label
        self.past: Snapshot = snapshot_at(corpus, everybody, last)  # events before that moment
        self.parts = [np.flatnonzero(corpus.split == part) for part in range(3)]
        self.recipe: Mapping[str, Any] = {"corpus": corpus.fingerprint, "topics": topics}

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return what the vector must beat: how often the user met each common item."""
        return [ItemCounts(self.corpus, self.parts[0], 300)]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return whether the model has vectors of users."""
        return has_vectors(model)

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a line for each test user; what is measured is said beside it."""
        given = model_of(model)
        x, y = given.users(self.past), self.label
        train, valid, test = self.parts
        answer = predict(
            *(probe, "class"),
            *((x[train], y[train]), (x[valid], y[valid]), x[test]),
            blocks=given.blocks,
        )
        queries = {
            "user_id": self.corpus.user_ids.take(pa.array(test)),
            "scores": matrix(answer.values),
            "label": y[test],
            "right": answer.values.argmax(1) == y[test],
            "slice history": history_slice(self.past.lengths[test]),
        }
        measures = {
            "AUROC": Measure("macro_auroc", ("scores", "label")),
            "accuracy": Measure("mean", ("right",)),
        }
        return Scored(pa.table(queries), measures, answer.chosen)


# %% A world, a corpus and an encoder, as in the quick start.
data = Path("data/new_task")
write_world(SyntheticConfig(users=500, items_per_service=120, mean_events=12), data)
corpus = clue.prepare(
    clue.PrepareConfig(
        name="new_task",
        events=[str(data / "events.parquet")],
        items=[str(data / "items.parquet")],
        services={name: ServiceConfig(template="{title}") for name in ("shop", "news", "films")},
    ),
    progress=False,
)
clue.pretrain(
    clue.PretrainConfig(
        name="new_task", corpus=corpus, steps=40, batch=64, validate_every=20, trackers=[]
    )
)

# %% The frozen vector beside its control and the task's own baseline, with intervals.
opened = Corpus.open(corpus)
task = NextTopicConfig(name="next-topic", items=data / "items.parquet").build(opened)
run = Path("runs/new_task")
models = [
    EncoderModel("CLUE", run, opened, seed=0, untrained=False),
    EncoderModel("untrained", run, opened, seed=0, untrained=True),
]
auroc: dict[str, float] = {}
for model in [*models, *task.baselines(models)]:
    values, _ = measured(task.score(model, "linear"), resamples=200, seed=0)
    auroc[model.name] = values["AUROC"].value
    print(
        model.name,
        {name: f"{v.value:.3f} [{v.low:.3f} {v.high:.3f}]" for name, v in values.items()},
    )

# %% A planted structure is found, and a shuffled one is not.
task.label = np.random.default_rng(0).permutation(task.label)
shuffled, _ = measured(task.score(models[0], "linear"), resamples=200, seed=0)
print(f"AUROC with shuffled labels: {shuffled['AUROC'].value:.3f}")
assert auroc["CLUE"] > 0.6 and abs(shuffled["AUROC"].value - 0.5) < 0.15
