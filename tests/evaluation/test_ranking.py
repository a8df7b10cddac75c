"""Counted ranks equal sorted ranks, and ties count as their expectation over random orders."""

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score

from clue.data.ragged import Ragged
from clue.evaluation import ranking
from clue.evaluation.matching import pair_ranks
from clue.evaluation.ranking import (
    Ranks,
    concatenated,
    rank,
    rank_scores,
    table_ranks,
    top,
    top_scores,
)


def vectors(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_counted_ranks_equal_sorted_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "CELLS", 150)  # Blocks of three queries, the last one short.
    queries, candidates = vectors(0, 20, 8), vectors(1, 50, 8)
    targets = np.random.default_rng(2).integers(0, 50, 20)
    found = rank(queries, candidates, targets).expected()
    order = np.argsort(-(queries @ candidates.T), axis=1)
    slow = [1 + int(np.flatnonzero(order[q] == targets[q])[0]) for q in range(20)]
    assert found.tolist() == slow


def test_metrics_equal_sklearn_where_there_are_no_ties() -> None:
    queries, candidates = vectors(3, 30, 4), vectors(4, 25, 4)
    targets = np.arange(30) % 25
    ranks = rank(queries, candidates, targets)
    scores = queries @ candidates.T
    truth = np.eye(25)[targets]
    slow = [ndcg_score(truth[q : q + 1], scores[q : q + 1], k=10) for q in range(30)]
    assert ranks.ndcg(10) == pytest.approx(slow)
    assert ranks.reciprocal() == pytest.approx(1 / ranks.expected())
    assert ranks.hit(10).tolist() == (ranks.expected() <= 10).tolist()


@pytest.mark.parametrize("k", [1, 3, 10, 40])
def test_constant_scores_are_exactly_chance(k: int) -> None:
    ranks = rank(np.zeros((6, 2)), np.ones((40, 2)), np.arange(6))
    assert ranks.hit(k) == pytest.approx(np.full(6, k / 40))
    assert ranks.share() == pytest.approx(np.full(6, 41 / 80))
    assert ranks.reciprocal() == pytest.approx(np.full(6, (1 / np.arange(1, 41)).mean()))
    gain = np.where(np.arange(1, 41) <= k, 1 / np.log2(np.arange(1, 41) + 1), 0)
    assert ranks.ndcg(k) == pytest.approx(np.full(6, gain.mean()))


def test_an_oracle_is_always_first() -> None:
    ranks = rank(np.eye(12), np.eye(12), np.arange(12))
    for metric in (ranks.hit(1), ranks.hit(10), ranks.ndcg(10), ranks.reciprocal()):
        assert metric.tolist() == [1.0] * 12


def test_permuting_the_candidates_changes_nothing() -> None:
    queries, candidates = vectors(5, 15, 6), vectors(6, 33, 6)
    targets = np.random.default_rng(7).integers(0, 33, 15)
    order = np.random.default_rng(8).permutation(33)
    back = np.argsort(order)
    one, other = rank(queries, candidates, targets), rank(queries, candidates[order], back[targets])
    assert one.expected().tolist() == other.expected().tolist()


def test_duplicated_vectors_tie_although_encoded_apart() -> None:
    # The same text encoded in another batch differs in the last bits; it must not win by them.
    candidates = vectors(9, 8, 16)
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    candidates[5] = candidates[2] * np.float32(1 + 1e-7)
    ranks = rank(candidates[2:3], candidates, np.array([2]))
    assert (ranks.better[0], ranks.equal[0]) == (0, 1)
    assert ranks.hit(1)[0] == 0.5


def test_seen_items_leave_the_ranking_but_the_target_stays() -> None:
    scores = np.array([[4.0], [3.0], [2.0], [1.0]])
    seen = Ragged(np.array([0, 0, 2]), np.array([0, 3]))
    ranks = rank(np.ones((1, 1)), scores, np.array([2]), seen)
    assert (ranks.better[0], ranks.equal[0], ranks.of[0]) == (1, 0, 3)


def test_ranks_agree_with_the_ones_that_training_reports() -> None:
    a, b = vectors(10, 40, 5), vectors(11, 40, 5)
    same = np.arange(40)
    one, other = pair_ranks(a, b)
    for fast, slow in ((one, rank(a, b, same)), (other, rank(b, a, same))):
        assert fast.expected().tolist() == slow.expected().tolist()
    tied = np.concatenate([b, b[:7], b[:3] * np.float32(1 + 1e-7)])
    for table in (b, tied, np.ones((100, 5), np.float32)):
        found = table_ranks(*(torch.from_numpy(x) for x in (a, same, table)))
        slow = rank(a, table, same)
        for figure in ("better", "equal", "of"):
            assert getattr(found, figure).tolist() == getattr(slow, figure).tolist()
    assert found.hit(10).tolist() == [0.1] * 40


def test_parts_keep_their_own_number_of_candidates() -> None:
    parts = [Ranks(np.zeros(1), np.zeros(1), np.array([float(n)])) for n in (2, 10)]
    assert concatenated(parts).share().tolist() == [0.5, 0.1]


def test_vectors_that_cannot_be_ranked_are_refused() -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        rank(np.ones((2, 3)), np.ones((4, 2)), np.zeros(2, int))
    with pytest.raises(ValueError, match="NaN or infinity"):
        rank(np.full((1, 2), np.nan), np.ones((4, 2)), np.zeros(1, int))


def test_scores_in_blocks_rank_as_their_vectors_do() -> None:
    queries, candidates = vectors(9, 14, 3), vectors(10, 21, 3)
    targets, seen = np.arange(14), Ragged(np.repeat(3, 14), np.arange(15))
    whole = (queries.astype(np.float64) @ candidates.T.astype(np.float64)).copy()
    blocks = [whole[:5].copy(), whole[5:].copy()]
    found = rank_scores(blocks, targets, seen)
    wanted = rank(queries, candidates, targets, seen)
    assert found.better.tolist() == wanted.better.tolist()
    assert found.of.tolist() == [20.0] * 3 + [21.0] + [20.0] * 10  # its own target stays
    listed = top_scores([whole[:5].copy(), whole[5:].copy()], 4, seen)
    assert listed.tolist() == top(queries, candidates, 4, seen).tolist()
    assert 3 not in listed


@pytest.mark.parametrize("rows", [5, 9])
def test_scores_without_a_row_for_each_target_are_refused(rows: int) -> None:
    with pytest.raises(ValueError, match="for 7 targets"):
        rank_scores([np.zeros((rows, 4))], np.zeros(7, int))


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="scores to rank hold NaN or infinity"):
        rank_scores([np.full((2, 4), np.nan)], np.zeros(2, int))
