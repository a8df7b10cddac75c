"""Matching gives an oracle 1, a constant exactly chance, and ranks in the gallery it names."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.baselines.tfidf import item_terms
from benchmarks.matching import evaluate_matching
from benchmarks.results import Outcome, Table
from clue.data.corpus import Corpus
from tests.benchmarks.worlds import Lookup, corpus_of, one_hot, parts, taste_events


@pytest.fixture(scope="module")
def own_items(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """80 users (40 train, 20 valid, 20 test), each with an item of her own in three services."""
    split = parts(80)
    events = [(user, service, f"{service}_{user}") for user in split for service in ("a", "b", "c")]
    return corpus_of(tmp_path_factory.mktemp("own"), events, split)


def owners(corpus: Corpus) -> list[int]:
    return [int(str(name).rpartition("u")[2]) for name in corpus.item_ids]


def scores(corpus: Corpus, vectors: np.ndarray, dims: int = 8) -> Outcome:
    return evaluate_matching(
        corpus, {"trained": Lookup(vectors)}, item_terms(corpus), dims=dims, resamples=50, seed=0
    )


def value(table: Table, row: str, name: str) -> float:
    return table.rows[row].measures[name].value


def test_an_oracle_finds_everybody(own_items: Corpus) -> None:
    outcome = scores(own_items, one_hot(owners(own_items)))
    assert len(outcome.tables) == 8  # All pairs and three single ones, on two sets of users.
    for table in outcome.tables:
        for name in ("R@1", "R@10", "MRR"):
            assert value(table, "trained", name) == 1
        assert value(table, "trained", "contrastive entropy") < 0.01
        assert value(table, "trained", "median rank") == pytest.approx(1 / table.count)


def test_constants_are_exactly_chance(own_items: Corpus) -> None:
    tables = scores(own_items, np.ones((own_items.num_items, 2))).tables
    for table, n in zip(tables, [40] * 4 + [20] * 4, strict=True):
        for row in ("trained", "popularity"):
            assert value(table, row, "R@1") == pytest.approx(1 / n)
            assert value(table, row, "R@10") == pytest.approx(10 / n) == table.chance["R@10"]
            assert value(table, row, "contrastive entropy") == pytest.approx(np.log(n))
            assert value(table, row, "median rank") == pytest.approx((n + 1) / 2 / n)


def test_test_users_alone_are_queries_and_gallery(own_items: Corpus) -> None:
    # Valid users all look alike, and like nobody in test: they confuse each other and no test user.
    split = own_items.split
    vectors = one_hot(owners(own_items))
    vectors[split[np.array(owners(own_items))] == 1] = 1 / np.sqrt(80)
    both, alone = (t for t in scores(own_items, vectors).tables if t.main)
    assert (both.users, both.count) == ("valid + test", 40)
    assert (alone.users, alone.count) == ("test alone", 20)
    assert value(alone, "trained", "R@1") == 1
    assert value(both, "trained", "R@1") == pytest.approx((20 * 1 + 20 / 20) / 40)


def test_the_two_directions_are_told_apart(own_items: Corpus) -> None:
    # In service b all test users have the vector of the first of them, e. From b, e is first and
    # for the others e alone is better and 18 are equal: rank 11. From a, all 20 are always equal.
    vectors = one_hot(owners(own_items))
    b = np.flatnonzero(own_items.item_service == 1)
    vectors[b[60:]] = vectors[b[60]]
    table = next(t for t in scores(own_items, vectors).tables if t.part == "a-b" and t.count == 20)
    assert value(table, "trained", "median rank b → a") == pytest.approx(11 / 20)
    assert value(table, "trained", "median rank a → b") == pytest.approx(10.5 / 20)


def test_per_user_results_rebuild_the_table(own_items: Corpus) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(own_items.num_items, 4))
    outcome = scores(own_items, vectors)
    lines = outcome.per_user.to_pandas()
    mine = lines[(lines.row == "trained") & (lines.part == "a → b")]
    assert len(mine) == mine.user_id.nunique() == 40
    rank = 1 + mine.better + mine.equal / 2
    table = next(t for t in outcome.tables if t.part == "a-b" and t.users == "valid + test")
    assert float((rank <= 10).mean()) == pytest.approx(value(table, "trained", "R@10 a → b"))
    assert float(mine.loss.mean()) == pytest.approx(value(table, "trained", "contrastive entropy"))


def test_one_service_is_matched_between_its_halves(tmp_path: Path) -> None:
    split = parts(60)
    # Older half: items 0-1, newer half: items 2-3, of five events the newer half has three.
    events = [(u, "shop", f"{u}_{k}") for u in split for k in range(5)]
    corpus = corpus_of(tmp_path, events, split)
    owner = [int(str(name).split("_")[0][1:]) for name in corpus.item_ids]
    table = scores(corpus, one_hot(owner)).tables[0]
    assert table.part == "shop-halves"
    assert value(table, "trained", "R@1 older half → newer half") == 1


def test_the_floor_stands_beside_the_models(tmp_path: Path) -> None:
    split = parts(200)
    corpus = corpus_of(tmp_path, taste_events(split, np.random.default_rng(5)), split)
    noise = np.random.default_rng(6).normal(size=(corpus.num_items, 6))
    table = scores(corpus, noise, dims=48).tables[0]
    assert value(table, "floor", "R@10") > 0.6 > 0.2 > value(table, "trained", "R@10")
    gap = table.rows["floor"].behind["R@10"]
    assert gap.high < 0  # Trained minus floor, paired.
    assert value(table, "floor", "contrastive entropy") < table.chance["contrastive entropy"] - 0.5


def test_nobody_to_match_is_refused(tmp_path: Path) -> None:
    split = {"u0": "train", "u1": "train", "u2": "test"}
    events = [(user, "shop", f"cup_{user}") for user in split]
    corpus = corpus_of(tmp_path, events, split)
    with pytest.raises(ValueError, match="no two valid or test users"):
        scores(corpus, np.ones((3, 2)))
