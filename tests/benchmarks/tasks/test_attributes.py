"""A leaked label is found by every probe, noise is chance, and the prior knows nothing."""

# pyright: standard

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.baselines.counts import ItemCounts
from benchmarks.baselines.few_shot import few_shot
from benchmarks.metrics.bootstrap import interval
from benchmarks.protocols import WHOLE, Scored
from benchmarks.snapshot import Snapshot, snapshot_at
from benchmarks.tasks.attributes import AttributesConfig, AttributesTask
from clue.data.corpus import Corpus
from tests.benchmarks.worlds import corpus_of, parts

USERS = 600


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    rng = np.random.default_rng(0)
    events = [
        (user, service, f"{service}{rng.integers(5)}")
        for user in parts(USERS)
        for service in ("films", "news")
        for _ in range(rng.integers(1, 6))
    ]
    return corpus_of(tmp_path_factory.mktemp("people"), events, parts(USERS))


class Given:
    name, seed = "given", 0
    blocks, similarity = WHOLE, slice(None)

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors, self.fingerprint = vectors, str(vectors.sum())

    def users(self, past: Snapshot) -> np.ndarray:
        return self.vectors[past.users]


def task_of(corpus: Corpus, directory: Path, labels: np.ndarray) -> AttributesTask:
    file = directory / "labels.parquet"
    names = [f"c{label}" for label in labels]
    pq.write_table(pa.table({"user_id": corpus.user_ids, "colour": names}), file)
    config = AttributesConfig(name="colour", table=file, column="colour")
    return config.build(corpus)


def auroc(scored: Scored) -> tuple[float, float, float]:
    users = np.arange(scored.queries.num_rows)
    found = interval(scored.measures["AUROC"].statistic(scored.queries), users, resamples=300)
    return found.low, found.value, found.high


@pytest.mark.parametrize("classes", [2, 3])
def test_a_leaked_label_is_found_by_every_probe_and_noise_is_chance(
    corpus: Corpus, tmp_path: Path, classes: int
) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, classes, USERS)
    task = task_of(corpus, tmp_path, labels)
    noise = rng.normal(size=(USERS, 4))
    leaked = np.c_[noise, 8 * np.eye(classes)[labels]]
    for probe in task.probes:
        scored = task.score(Given(leaked), probe)
        loss = [] if probe.endswith("-shot") else ["log loss"]
        assert list(scored.measures) == ["AUROC", *loss, "accuracy"]
        assert scored.queries.num_rows == 150
        assert auroc(scored)[1] > 0.95, probe
        low, _, high = auroc(task.score(Given(noise), probe))
        assert low - 0.03 < 0.5 < high + 0.03, probe
    assert len(task.probes) == 6


@pytest.mark.parametrize("classes", [2, 3])
def test_the_auroc_of_k_shots_is_the_mean_over_the_draws(
    corpus: Corpus, tmp_path: Path, classes: int
) -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, classes, USERS)
    vectors = rng.normal(size=(USERS, 6))
    vectors[:, :classes] += np.eye(classes)[labels]
    task = task_of(corpus, tmp_path, labels)
    scored = task.score(Given(vectors), "8-shot")
    draws = few_shot((vectors[:300], labels[:300]), vectors[450:], 8)
    each = [
        roc_auc_score(labels[450:], p[:, 1] if classes == 2 else p, multi_class="ovr")
        for p in draws
    ]
    assert len(each) == 10
    assert auroc(scored)[1] == pytest.approx(np.mean(each))
    right = np.mean([p.argmax(1) == labels[450:] for p in draws])
    assert np.mean(scored.queries["right"].to_pylist()) == pytest.approx(right)


def test_the_prior_is_the_share_of_the_training_users(corpus: Corpus, tmp_path: Path) -> None:
    labels = (np.arange(USERS) % 3 == 0).astype(int)
    task = task_of(corpus, tmp_path, labels)
    counts, prior = task.baselines([])
    assert [probe for probe in task.probes if task.supports(prior, probe)] == ["linear"]
    assert all(task.supports(counts, probe) for probe in task.probes)
    scored = task.score(prior, "linear")
    assert auroc(scored) == (0.5, 0.5, 0.5)
    scores = np.array(scored.queries["scores"].to_pylist())
    assert scores == pytest.approx(np.tile([2 / 3, 1 / 3], (150, 1)))


def test_item_counts_are_those_of_the_most_common_items_and_of_all_events(corpus: Corpus) -> None:
    train = corpus.users_in("train")
    model = ItemCounts(corpus, train, 3)
    found = np.expm1(model.users(snapshot_at(corpus, np.array([7, 400]))))
    met = [corpus.items_of(service) for service in range(2)]
    total = np.zeros(corpus.num_items, int)
    for user in train:
        for service in met:
            np.add.at(total, service[user], 1)
    common = np.argsort(-total, kind="stable")[:3]
    for row, user in enumerate((7, 400)):
        mine = np.concatenate([service[user] for service in met])
        assert found[row] == pytest.approx([*((mine == i).sum() for i in common), len(mine)])


def test_labels_that_no_test_user_has_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    file = tmp_path / "few.parquet"
    names = [f"c{n % 2}" for n in range(450)]
    pq.write_table(pa.table({"user_id": corpus.user_ids[:450], "colour": names}), file)
    with pytest.raises(ValueError, match="colour: no test user has a colour"):
        AttributesConfig(name="colour", table=file, column="colour").build(corpus)
