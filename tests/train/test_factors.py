"""Factors: equal to a dense SVD, of planted groups, apart for services that share no user."""

from pathlib import Path

import numpy as np
import pytest
import torch

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.train.factors import (
    bag_matrix,
    item_factors,
    populations,
    right_factors,
    rotated,
    token_factors,
)
from tests.conftest import TinyRun
from tests.data.logs import Row, corpus_of, write_log


def test_a_bag_by_hand() -> None:
    matrix, values, weight = bag_matrix(Ragged.from_lists([[5, 5, 9], [9], []]), 1.0)
    idf = np.log([4 / 2, 4 / 3])
    assert values.tolist() == [5, 9]
    assert weight[:, 0].tolist() == pytest.approx(idf, rel=1e-6)
    first = np.array([(1 + np.log(2)) * idf[0], idf[1]])
    dense = matrix.toarray()
    assert dense[0] == pytest.approx(first / np.linalg.norm(first), rel=1e-6)
    assert dense[1].tolist() == pytest.approx([0, 1])
    assert dense[2].tolist() == [0, 0]


def test_right_factors_hold_what_a_dense_svd_holds() -> None:
    rng = np.random.default_rng(0)
    rows = Ragged.from_lists([list(rng.zipf(1.5, 12) % 60) for _ in range(300)])
    matrix, _, _ = bag_matrix(rows, 1.0)
    found = right_factors(matrix, 4, seed=1).double() / matrix.shape[1] ** 0.5
    torch.testing.assert_close(found.T @ found, torch.eye(4).double(), atol=1e-5, rtol=0)
    dense = torch.from_numpy(matrix.toarray()).double()
    held = (dense @ found).square().sum()
    best = torch.linalg.svdvals(dense)[:4].square().sum()
    assert 0.99 * best <= held <= 1.0001 * best
    turned = rotated(found.float(), 4, seed=3).double()
    torch.testing.assert_close(turned @ turned.T, found @ found.T, atol=1e-5, rtol=0)


def grouped(tmp_path: Path, *, shuffled: bool) -> Corpus:
    """Return a corpus of 200 users in two groups, each with twelve items of its own."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for user in range(200):
        for time in range(8):
            group = int(rng.integers(2)) if shuffled else user % 2
            item = f"i{group}_{rng.integers(12)}"
            rows.append(
                {
                    "user_id": f"u{user}",
                    "service": "shop" if user < 100 else "news",
                    "item_id": item,
                    "timestamp": time,
                    "text": f"thing {item}",
                }
            )
    name = "shuffled" if shuffled else "planted"
    file = write_log(tmp_path / f"{name}.parquet", rows)
    return corpus_of(tmp_path / name, f"events=[{file}]")


def margin(corpus: Corpus) -> float:
    """Return how much nearer items of a group lie to each other than to the other group's."""
    vectors = item_factors(corpus, corpus.users_in("train"), 2, seed=0)
    shop = np.flatnonzero(corpus.item_service == corpus.services.index("shop"))
    group = np.array([corpus.item_ids[int(item)].as_py()[1] == "1" for item in shop])
    unit = torch.nn.functional.normalize(vectors[torch.from_numpy(shop)], dim=1)
    cosines = (unit @ unit.T).numpy()
    same = group[:, None] == group[None]
    return float(cosines[same].mean() - cosines[~same].mean())


def test_planted_groups_are_found_and_shuffled_ones_are_not(tmp_path: Path) -> None:
    assert margin(grouped(tmp_path, shuffled=False)) > 0.8
    assert abs(margin(grouped(tmp_path, shuffled=True))) < 0.2


def test_services_without_a_common_user_are_factored_apart(tmp_path: Path) -> None:
    corpus = grouped(tmp_path, shuffled=False)
    users = corpus.users_in("train")
    assert populations(corpus, users) == [[0], [1]]
    vectors = item_factors(corpus, users, 2, seed=0)
    alone = [
        item_factors(corpus, users[corpus.items_of(s).lengths[users] > 0], 2, seed=0)
        for s in (0, 1)
    ]
    for service in (0, 1):
        items = torch.from_numpy(np.flatnonzero(corpus.item_service == service))
        grams = [v[items] @ v[items].T for v in (vectors, alone[service])]
        assert grams[0].abs().max() > 0
        # the same users' matrix, but for rows of users of the other service alone
        cosine = torch.nn.functional.cosine_similarity(grams[0].flatten(), grams[1].flatten(), 0)
        assert cosine > 0.99


def test_tokens_of_nobody_have_zeros(tiny_run: TinyRun) -> None:
    corpus = Corpus.open(tiny_run.corpus)
    users = corpus.users_in("train")
    vectors = token_factors(corpus, users, 8, seed=0)
    held = np.concatenate([corpus.items_of(s).take(users).values for s in range(3)])
    used = np.unique(corpus.item_tokens.take(held).values)
    assert vectors.shape == (corpus.manifest.vocab_size, 8)
    assert np.array_equal(np.flatnonzero(vectors.square().sum(1).numpy() > 0), used)
