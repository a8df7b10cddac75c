# pyright: standard
"""Matching gives an oracle 1, a constant exactly chance, and ranks in the gallery it names."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.protocols import WHOLE, Scored
from benchmarks.snapshot import Snapshot
from benchmarks.suite.results import measured
from benchmarks.tasks.matching import MatchingConfig
from clue.data.corpus import Corpus
from tests.benchmarks.worlds import corpus_of, one_hot, parts, taste_events


class LastItem:
    """A model of given vectors: a user is the vector of the last item in the snapshot."""

    name, seed, fingerprint = "last item", 0, "last-item"
    blocks, similarity = WHOLE, slice(None)

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def users(self, past: Snapshot) -> np.ndarray:
        (read,) = [items for items, _ in past.parts if len(items.values)]
        return self.vectors[read.values[read.offsets[1:] - 1]]

    def items(self) -> np.ndarray:
        return self.vectors


@pytest.fixture(scope="module")
def own_items(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """80 users (40 train, 20 valid, 20 test), each with an item of their own in three services."""
    split = parts(80)
    events = [(user, service, f"{service}_{user}") for user in split for service in ("a", "b", "c")]
    return corpus_of(tmp_path_factory.mktemp("own"), events, split)


def owners(corpus: Corpus) -> list[int]:
    return [int(str(name).rpartition("u")[2]) for name in corpus.item_ids]


def scored(corpus: Corpus, vectors: np.ndarray, *pairs: list[str]) -> Scored:
    task = MatchingConfig(name="matching", pairs=[*pairs], cca_dims=0).build(corpus)
    return task.score(LastItem(vectors), "zero-shot")


def values(found: Scored) -> dict[str, float]:
    return {name: each.value for name, each in measured(found, resamples=5, seed=0)[0].items()}


def test_an_oracle_finds_everybody(own_items: Corpus) -> None:
    found = scored(own_items, one_hot(owners(own_items)))
    assert found.queries.num_rows == 3 * 2 * 40  # three pairs of services, both ways
    figures = values(found)
    assert figures["R@1"] == figures["R@10"] == figures["MRR"] == 1
    assert figures["contrastive entropy"] < 0.01
    assert figures["median rank"] == pytest.approx(1 / 40)


def test_constants_are_exactly_chance(own_items: Corpus) -> None:
    figures = values(scored(own_items, np.ones((own_items.num_items, 2)), ["a", "b"]))
    assert figures["R@1"] == pytest.approx(1 / 40)
    assert figures["R@10"] == pytest.approx(10 / 40)
    assert figures["contrastive entropy"] == pytest.approx(np.log(40))
    assert figures["median rank"] == pytest.approx(41 / 2 / 40)


def test_the_two_directions_are_told_apart(own_items: Corpus) -> None:
    # In service b all held-out users have the vector of one of them, e. From b, e is first and for
    # the others e alone is better and 38 are equal: rank 21. From a, all 40 are always equal.
    vectors = one_hot(owners(own_items))
    owner = np.array(owners(own_items))
    of_b = own_items.item_service == own_items.services.index("b")
    vectors[of_b & (owner >= 40)] = one_hot([*range(80)])[60]
    queries = scored(own_items, vectors, ["a", "b"]).queries
    way = np.array(queries["slice direction"].to_pylist())
    share = queries["share"].to_numpy()
    assert np.median(share[way == "b → a"]) == pytest.approx(21 / 40)
    assert np.median(share[way == "a → b"]) == pytest.approx(20.5 / 40)


def test_one_service_is_matched_between_its_halves(tmp_path: Path) -> None:
    split = parts(60)
    events = [(user, "shop", f"{user}_{k}") for user in split for k in range(5)]
    corpus = corpus_of(tmp_path, events, split)
    owner = [int(str(name).split("_")[0][1:]) for name in corpus.item_ids]
    found = scored(corpus, one_hot(owner))
    assert set(found.queries["slice direction"].to_pylist()) == {
        "older half → newer half",
        "newer half → older half",
    }
    assert values(found)["R@1"] == 1


def test_the_linear_baseline_finds_what_ties_two_services(tmp_path: Path) -> None:
    split = parts(200)
    corpus = corpus_of(tmp_path, taste_events(split, np.random.default_rng(5)), split)
    task = MatchingConfig(name="matching", cca_dims=48).build(corpus)
    (baseline,) = task.baselines([])
    noise = LastItem(np.random.default_rng(6).normal(size=(corpus.num_items, 6)))
    cca, other = (values(task.score(each, "zero-shot")) for each in (baseline, noise))
    assert cca["R@10"] > 0.6 > 0.2 > other["R@10"]
    assert cca["contrastive entropy"] < np.log(100) - 0.5


def test_without_training_pairs_there_is_no_linear_baseline(tmp_path: Path) -> None:
    split = {"u0": "train", "u1": "train", "u2": "test", "u3": "test"}
    events = [(user, "shop", f"cup_{user}") for user in ("u0", "u1")]
    events += [(user, s, f"{s}_{user}") for user in ("u2", "u3") for s in ("shop", "news")]
    task = MatchingConfig(name="matching").build(corpus_of(tmp_path, events, split))
    assert task.baselines([]) == []


def test_nobody_to_match_is_refused(tmp_path: Path) -> None:
    split = {"u0": "train", "u1": "train", "u2": "test"}
    events = [(user, "shop", f"cup_{user}") for user in split]
    corpus = corpus_of(tmp_path, events, split)
    with pytest.raises(ValueError, match="no two held-out users"):
        MatchingConfig(name="matching").build(corpus)


def test_two_views_are_compared_by_the_columns_of_similarity_alone(own_items: Corpus) -> None:
    told = one_hot(owners(own_items))
    rng = np.random.default_rng(7)
    model = LastItem(np.c_[100 * rng.normal(size=(len(told), 5)), told * rng.uniform(1, 9)])
    task = MatchingConfig(name="matching", cca_dims=0).build(own_items)
    assert values(task.score(model, "zero-shot"))["R@1"] < 0.2
    model.similarity = slice(5, None)
    figures = values(task.score(model, "zero-shot"))
    assert figures["R@1"] == 1 and figures["contrastive entropy"] < 0.01
