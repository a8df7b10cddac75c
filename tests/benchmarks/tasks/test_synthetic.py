"""On a world whose truth is known the truth is the oracle, and noise is chance."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.baselines.oracle import Oracle
from benchmarks.baselines.representations import RandomModel
from benchmarks.baselines.tfidf import unit
from benchmarks.protocols import WHOLE, Model, Scored, Task, TaskBaseline
from benchmarks.snapshot import Snapshot
from benchmarks.suite.results import measured
from benchmarks.tasks.attributes import AttributesConfig
from benchmarks.tasks.clicks import ClicksConfig
from benchmarks.tasks.matching import MatchingConfig
from benchmarks.tasks.synthetic import SyntheticTaskConfig
from clue.data.corpus import Corpus
from clue.data.ingest.prepare_config import PrepareConfig, ServiceConfig
from clue.prepare import prepare
from clue.synthetic.labels import OutcomesConfig, latents_at, write_outcomes
from clue.synthetic.world import EPOCH, SyntheticConfig

ASKED = ("matching", "next item", "churn", "attribute", "clicks")
SERVICES = ("shop", "news", "films")
OPENS = EPOCH + 153 * 86_400  # the window, the last .15 of 180 days


class Knowing:
    """Knows the latents, the items' topics and popularity, as logarithms: a product of chances."""

    name, seed, fingerprint = "knowing", 0, "knowing"
    blocks, similarity = WHOLE, slice(None)

    def __init__(self, truth: Oracle) -> None:
        self.truth = truth

    def users(self, past: Snapshot) -> np.ndarray:
        share = latents_at(self.truth.first, self.truth.last, 0.9)[past.users]
        counts = np.log1p(past.lengths)[:, None]
        return np.concatenate(
            [np.log(30 * share + 0.1), np.ones_like(counts), share, counts], axis=1
        )

    def items(self) -> np.ndarray:
        popularity = np.log(self.truth.popularity)[:, None]
        topics = np.eye(30)[self.truth.topic]
        return np.concatenate([topics, popularity, np.zeros((len(topics), 31))], axis=1)


class Reading:
    """The topics of what a history holds: all that a model could read from it, but for times."""

    name, seed, fingerprint = "reading", 0, "reading"
    blocks, similarity = WHOLE, slice(None)

    def __init__(self, truth: Oracle) -> None:
        self.truth = truth

    def users(self, past: Snapshot) -> np.ndarray:
        counts = np.zeros((len(past), 30))
        for items, _ in past.parts:
            user = np.repeat(np.arange(len(past)), items.lengths)
            np.add.at(counts, (user, self.truth.topic[items.values]), 1)
        return unit(np.sqrt(counts))

    def items(self) -> np.ndarray:
        return np.eye(30)[self.truth.topic]


def task_of(asks: str, directory: Path, corpus: Corpus) -> Task:
    """Build the task of a world as a suite's YAML does."""
    table = directory / "outcomes.parquet"
    match asks:
        case "matching":
            pairs: list[list[str]] = [[*pair] for pair in combinations(SERVICES, 2)]
            config = MatchingConfig(name=asks, pairs=pairs, cca_dims=64, world=directory)
        case "churn":
            law = "churn_probability"
            config = AttributesConfig(
                name=asks, table=table, column="churned", truth=law, bag=0, cutoff=OPENS
            )
        case "attribute":
            law = "attribute_probability"
            config = AttributesConfig(
                name=asks,
                table=table,
                column="attribute",
                truth=law,
                bag=0,
                world=directory,
            )
        case "next item":
            config = SyntheticTaskConfig(name=asks, world=directory)
        case _:
            shown = directory / "impressions.parquet"
            config = ClicksConfig(
                name=asks, impressions=shown, probability="probability", cutoff=OPENS
            )
    return config.build(corpus)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("world")
    log = SyntheticConfig(
        users=1600, items_per_service=100, interests=6, mean_events=10, out=root / "mini"
    )
    write_outcomes(OutcomesConfig(world=log, impressions=6))
    config = PrepareConfig(
        name="mini",
        out=root / "corpus",
        events=[str(log.out / "events.parquet")],
        items=[str(log.out / "items.parquet")],
        services={name: ServiceConfig(template="{title}") for name in SERVICES},
    )
    corpus = Corpus.open(prepare(config, progress=False))
    tasks = {asks: task_of(asks, log.out, corpus) for asks in ASKED}
    return SimpleNamespace(
        root=root, corpus=corpus, truth=Oracle(log.out, corpus), tasks=tasks, world=log.out
    )


def value(scored: Scored, measure: str | None = None) -> float:
    values, _ = measured(scored, resamples=10, seed=0)
    return values[measure or next(iter(values))].value


def rows(task: Task) -> Iterator[tuple[str, Model | TaskBaseline]]:
    for baseline in task.baselines([]):
        assert task.supports(baseline, task.probes[0])
        yield baseline.name, baseline


@pytest.mark.parametrize("asks", ASKED)
def test_no_row_is_above_the_truth(world: SimpleNamespace, asks: str) -> None:
    task = world.tasks[asks]
    models = dict(rows(task))
    models["knowing"] = Knowing(world.truth)
    models["random"] = RandomModel(world.corpus, width=16, seed=0)
    if asks == "matching":  # the same vector from either side, and so always its own neighbour
        assert not task.supports(models.pop("random"), "zero-shot")
        models["knowing"] = Reading(world.truth)
    scored = {name: task.score(model, task.probes[0]) for name, model in models.items()}
    found = {name: value(one) for name, one in scored.items()}
    oracle = found.pop("oracle")
    assert len(found) >= 2 and oracle >= max(found.values()), (oracle, found)
    if "prior" in found:
        assert abs(found["prior"] - 0.5) < 1e-9
        losses = {name: value(one, "log loss") for name, one in scored.items()}
        assert losses["oracle"] == min(losses.values())
    ids = [one.queries["user_id"].to_pylist() for one in scored.values()]
    assert all(one == ids[0] for one in ids) and len(ids[0]) > 100
    split = dict(zip(world.corpus.user_ids.to_pylist(), world.corpus.split, strict=True))
    assert {split[user] for user in ids[0]} == ({2} if "prior" in found else {1, 2})


@pytest.mark.parametrize(
    ("asks", "ceiling_is", "chance"),
    [("next item", 0.2, 0.045), ("churn", 0.6, 0.5), ("attribute", 0.7, 0.5), ("clicks", 0.7, 0.5)],
)
def test_who_knows_the_latents_is_near_the_ceiling(
    world: SimpleNamespace, asks: str, ceiling_is: float, chance: float
) -> None:
    task = world.tasks[asks]
    oracle, knowing, random = (
        value(task.score(model, task.probes[0]))
        for model in (
            task.baselines([])[0],
            Knowing(world.truth),
            RandomModel(world.corpus, width=16, seed=0),
        )
    )
    assert oracle > ceiling_is
    assert (knowing - chance) / (oracle - chance) > 0.7, (knowing, oracle)
    assert abs(random - chance) < (0.03 if asks == "next item" else 0.12), random


def test_the_true_item_probabilities_are_those_of_the_log(world: SimpleNamespace) -> None:
    task = world.tasks["next item"]
    oracle = task.baselines([])[0]
    users, items = oracle.users(task.past), oracle.items()
    scores = users @ items.T / 1e6
    for number in range(3):
        here = world.corpus.item_service == number
        assert np.allclose(scores[:, here].sum(axis=1), 1)
    # Calibrated: the items of a probability p are the next in a share p of the questions.
    own = world.corpus.item_service[None, :] == task.service[:, None]
    happened = np.zeros(own.shape)
    happened[np.arange(len(own)), task.target] = 1
    flat, hit = scores[own], happened[own]
    assert len(flat) == 100 * len(own) > 20_000
    for low, high in ((0, 0.005), (0.005, 0.02), (0.02, 0.1), (0.1, 1)):
        part = (flat >= low) & (flat < high)
        spread = np.sqrt((flat[part] * (1 - flat[part])).sum())
        assert spread > 3 and abs(hit[part].sum() - flat[part].sum()) < 4 * spread


def test_the_likelihood_is_the_slow_one(world: SimpleNamespace) -> None:
    truth, corpus = world.truth, world.corpus
    lengths = corpus.items_of(0).lengths
    users = np.flatnonzero((corpus.split > 0) & (lengths > 0))[:4]
    found = truth.likelihood(users, 0)
    probability = truth.item_vectors() / 1e6
    slow = np.zeros((4, 4))
    for row, reader in enumerate(users):
        for column, user in enumerate(users):
            for item, time in zip(
                corpus.items_of(0)[reader], corpus.timestamps_of(0)[reader], strict=True
            ):
                moment = truth.config.moments(time)
                share = (1 - moment) * truth.first[user] + moment * truth.last[user]
                slow[row, column] += np.log(np.append(share, 1) @ probability[item])
    # What is the same for every candidate is left out.
    assert np.allclose(found - found[:, :1], slow - slow[:, :1], atol=1e-6)


def test_labels_of_others_teach_nothing(world: SimpleNamespace) -> None:
    rng = np.random.default_rng(1)
    task = task_of("attribute", world.world, world.corpus)
    rng.shuffle(task.labelled.labels)  # pyright: ignore[reportAttributeAccessIssue]
    assert abs(value(task.score(Knowing(world.truth), "linear")) - 0.5) < 0.1
    oracle = task.baselines([])[0]
    assert abs(value(task.score(oracle, "linear")) - 0.5) < 0.1


def test_vectors_are_of_what_was_before(world: SimpleNamespace) -> None:
    """The pasts end where the labels begin, and a target is the first event after its past."""
    start = world.truth.config.window_start
    for asks in ("churn", "clicks"):
        task = world.tasks[asks]
        past = task.past if asks == "churn" else task._past(task.parts[0])[0]
        assert (past.cutoff == start).all() and past.lengths.sum() > 10_000
        assert max(times.values.max() for _, times in past.parts) < start
    task = world.tasks["next item"]
    whole = sum(world.corpus.items_of(s).lengths[task.past.users] for s in range(3))
    assert np.array_equal(task.past.lengths, whole - 1)
    events = pq.read_table(world.world / "events.parquet")
    last: dict[str, tuple[int, str]] = {}
    for user, time, item in zip(
        *(events[c].to_pylist() for c in ("user_id", "timestamp", "item_id")), strict=True
    ):
        last[user] = max(last.get(user, (0, "")), (time, item))
    users = world.corpus.user_ids.take(pa.array(task.past.users)).to_pylist()
    named = world.corpus.item_ids.take(pa.array(task.target)).to_pylist()
    assert named == [last[user][1] for user in users] and len(users) > 200


def test_the_oracle_of_a_label_is_the_law_it_was_drawn_from(world: SimpleNamespace) -> None:
    """Whatever the order of the table and whichever users the corpus has."""
    table = pq.read_table(world.world / "outcomes.parquet")
    for asks, column in (("churn", "churn_probability"), ("attribute", "attribute_probability")):
        task = world.tasks[asks]
        law = dict(zip(table["user_id"].to_pylist(), table[column].to_pylist(), strict=True))
        test = task.parts[2]
        users = world.corpus.user_ids.take(pa.array(task.labelled.users[test])).to_pylist()
        wanted = [[1 - law[u], law[u]] if asks == "churn" else law[u] for u in users]
        answers = task.baselines([])[0].answers[test]
        assert len(users) > 100 and np.array_equal(answers, wanted)
        true = answers[np.arange(len(test)), task.labelled.labels[test]]
        scored = task.score(task.baselines([])[0], "linear")
        assert np.allclose(scored.queries["loss"].to_numpy(), -np.log(true))


def test_another_world_is_refused_by_name(world: SimpleNamespace, tmp_path: Path) -> None:
    for asks in ("matching", "next item"):
        with pytest.raises(FileNotFoundError, match=f"no {tmp_path}/world.yaml"):
            task_of(asks, tmp_path, world.corpus)
    log = SyntheticConfig(users=10, items_per_service=60, out=tmp_path)
    write_outcomes(OutcomesConfig(world=log))
    for asks in ("matching", "next item"):
        with pytest.raises(ValueError, match=f"u0000010 is not of the world in {tmp_path}"):
            task_of(asks, tmp_path, world.corpus)
