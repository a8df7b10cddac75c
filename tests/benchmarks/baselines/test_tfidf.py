"""The baselines see what is there to see, and only of the training users."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from benchmarks.baselines.representations import TextModel
from benchmarks.baselines.tfidf import canonical, documents, fit_cca, item_terms, popularity
from benchmarks.snapshot import snapshot_at
from clue.data.corpus import Corpus
from clue.evaluation.matching import MatchingPairs, matching_pairs
from clue.evaluation.ranking import rank
from tests.benchmarks.worlds import corpus_of, parts, taste_events


@pytest.fixture(scope="module")
def tastes(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    split = parts(240)
    events = taste_events(split, np.random.default_rng(0))
    return corpus_of(tmp_path_factory.mktemp("tastes"), events, split)


def pairs_in(corpus: Corpus, users: np.ndarray) -> MatchingPairs:
    return matching_pairs(corpus, users, max_events=10**9, most=10**9)[0]


def test_a_document_is_its_items_texts_joined(tastes: Corpus) -> None:
    terms = item_terms(tastes)
    histories = tastes.items_of(0).take(np.arange(20))
    texts = [" ".join(str(tastes.item_texts[int(i)]) for i in histories[r]) for r in range(20)]
    slow: Any = CountVectorizer(token_pattern=r"\w+").fit_transform(texts)
    ours, theirs = (np.asarray(x.todense()) for x in (documents(histories, terms), slow))
    # The same terms in another order, beside those that only other users' items use.
    used = ours[:, ours.any(axis=0)]
    assert sorted(map(tuple, used.T)) == sorted(map(tuple, theirs.T))
    assert used.sum() == 2 * len(histories.values) == 240


def test_identifiers_of_single_items_are_terms_where_there_is_nothing_else(tmp_path: Path) -> None:
    events = [(f"u{n}", "shop", f"id{n}{k}") for n in range(6) for k in range(2)]
    corpus = corpus_of(tmp_path, events, {f"u{n}": "train" for n in range(6)})
    assert item_terms(corpus).shape == (12, 12)
    assert not TextModel(corpus, corpus, dims=64, seed=0).has_terms


def test_canonical_correlations_of_a_rotated_copy_are_one_and_of_noise_are_none() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4000, 5))
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    maps = canonical(x, x @ rotation + 3, 1e-9)
    assert maps[2] == pytest.approx(np.ones(5))
    assert (x - x.mean(0)) @ maps[0] == pytest.approx(
        (x @ rotation - (x @ rotation).mean(0)) @ maps[1], abs=1e-6
    )
    assert canonical(x, rng.normal(size=(4000, 5)), 1e-9)[2].max() < 0.1


def test_ridge_shrinks_the_correlations() -> None:
    x = np.random.default_rng(2).normal(size=(500, 4))
    strengths = [canonical(x, x, ridge)[2].max() for ridge in (0.0, 100.0, 10_000.0)]
    assert strengths[0] == pytest.approx(1)
    # Of a copy with scatter s the regularised correlation is s / (s + ridge).
    values = np.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0)))
    assert strengths[1] == pytest.approx(values.max() / (values.max() + 100))
    assert strengths[0] > strengths[1] > strengths[2]


def test_the_floor_finds_what_ties_services_and_nothing_when_it_is_cut(tastes: Corpus) -> None:
    terms = item_terms(tastes)
    train, valid, test = (pairs_in(tastes, tastes.users_in(s)) for s in ("train", "valid", "test"))

    def recall(train: MatchingPairs) -> float:
        floor = fit_cca(train, valid, terms, dims=64, seed=0)
        a, b = documents(test.a, terms), documents(test.b, terms)
        ranks = rank(floor.vectors_a(a), floor.vectors_b(b), np.arange(len(test.users)))
        return float(ranks.hit(10).mean())

    # Twelve tastes over 60 users leave about five equals each: R@10 near 1, chance 1/6.
    assert recall(train) > 0.9
    order = np.random.default_rng(3).permutation(len(train.users))
    cut = MatchingPairs(
        train.name, train.service_a, train.service_b, train.users, train.a, train.b.take(order)
    )
    assert recall(cut) < 0.4


def test_the_floor_chooses_on_valid_pairs(tastes: Corpus) -> None:
    terms = item_terms(tastes)
    train, valid = (pairs_in(tastes, tastes.users_in(s)) for s in ("train", "valid"))
    right = fit_cca(train, valid, terms, dims=64, seed=0)
    order = np.random.default_rng(4).permutation(len(valid.users))
    wrong = MatchingPairs(
        valid.name, valid.service_a, valid.service_b, valid.users, valid.a, valid.b.take(order)
    )
    other = fit_cca(train, wrong, terms, dims=64, seed=0)
    assert (right.ridge, right.power) != (other.ridge, other.power)


def test_popularity_and_text_know_training_users_alone(tmp_path: Path) -> None:
    split = {**dict.fromkeys("abe", "train"), "c": "valid", "d": "test"}
    trained = {"a": ["red_cup"] * 2, "b": ["blue_cup", "red_pan"], "e": ["blue_pan"]}
    common = [(user, "shop", item) for user, items in trained.items() for item in items]
    seen: list[tuple[list[float], np.ndarray]] = []
    for number, others in enumerate((["red_cup"], ["blue_cup"] * 5)):
        held_out = [(user, "shop", item) for user in ("c", "d") for item in others]
        corpus = corpus_of(tmp_path / str(number), [*common, *held_out], split)
        order = np.argsort(corpus.item_ids.to_pylist())
        text = TextModel(corpus, corpus, dims=2, seed=0).items()
        seen.append((popularity(corpus, 0)[order].tolist(), text[order]))
    assert seen[0][0] == seen[1][0] == [1.0, 1.0, 2.0, 1.0]  # blue cup, blue pan, red cup, red pan
    assert seen[0][1] == pytest.approx(seen[1][1])
    assert not np.allclose(seen[0][1][0], seen[0][1][2])  # cups of two colours differ


def test_text_vectors_of_equal_histories_are_equal_and_empty_ones_zero(tmp_path: Path) -> None:
    items = ("red_cup", "red_pan", "blue_pan", "blue_cup")
    bought = {"a": items[:2], "b": items[:2], "c": items[2:]}
    events = [(user, "shop", item) for user, each in bought.items() for item in each]
    corpus = corpus_of(tmp_path, events, dict.fromkeys(bought, "train"))
    past = snapshot_at(corpus, np.arange(3), np.array([np.inf, np.inf, 0.0]))
    found = TextModel(corpus, corpus, dims=2, seed=0).users(past)
    assert found[0] == pytest.approx(found[1])
    assert found[2].tolist() == [0.0] * found.shape[1]
    assert np.linalg.norm(found[:2], axis=1) == pytest.approx([1, 1])
