"""Whatever the structure: k or all, exact scores in order, filters and exclusions kept."""

import logging
import warnings
from typing import Any, get_args

import numpy as np
import pytest

from serving import gpu
from serving.base_index import BaseIndex, Choice, Hits, recall_of
from serving.structures import AnyKind, Lift, chosen_by_size, lists_for
from tests.serving.planted import unit

CPU: list[AnyKind] = ["flat", "fp16", "sq8", "ivf", "hnsw"]
ROWS, WIDTH = 3000, 16
NOTHING = np.empty(0, np.int64)


def clusters(rows: int, seed: int, *, lengths: bool) -> np.ndarray:
    """Vectors around 40 centres, of length one or (`lengths`) of .5 to 2."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((40, WIDTH))
    vectors = centres[rng.integers(0, 40, rows)] + 0.6 * rng.standard_normal((rows, WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scale = rng.uniform(0.5, 2, (rows, 1)) if lengths else 1
    return (vectors * scale).astype(np.float32)


def brute(vectors: np.ndarray, query: np.ndarray, kept: np.ndarray, k: int) -> np.ndarray:
    rows = np.flatnonzero(kept)
    scores = vectors[rows] @ query
    return rows[np.lexsort((rows, -scores))][:k]


@pytest.fixture(scope="module", params=[False, True], ids=["cosine", "inner product"])
def data(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    lengths = bool(request.param)
    return clusters(ROWS, 0, lengths=lengths), clusters(64, 1, lengths=lengths)


@pytest.fixture(scope="module")
def indexes(data: tuple[np.ndarray, np.ndarray]) -> dict[str, BaseIndex]:
    return {kind: BaseIndex(data[0], Choice(kind=kind), data[1]) for kind in CPU}


def require_order(hits: Hits, vectors: np.ndarray, query: np.ndarray) -> None:
    assert len(np.unique(hits.rows)) == len(hits.rows)
    np.testing.assert_allclose(hits.scores, vectors[hits.rows] @ query, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(np.lexsort((hits.rows, -hits.scores)), np.arange(len(hits.rows)))


@pytest.mark.parametrize("kind", CPU)
def test_each_kind_reaches_its_recall_and_says_so(
    kind: AnyKind, data: tuple[np.ndarray, np.ndarray], indexes: dict[str, BaseIndex]
) -> None:
    vectors, queries = data
    index = indexes[kind]
    truth = [brute(vectors, query, np.ones(ROWS, bool), 10) for query in queries]
    hits = index.search(queries, 10)
    for each, query in zip(hits, queries, strict=True):
        require_order(each, vectors, query)
    measured = recall_of([each.rows for each in hits], truth)
    assert measured >= 0.99
    built = index.built
    assert (built.kind, built.rows, built.width) == (kind, ROWS, WIDTH)
    if kind == "flat":
        assert (built.recall, built.effort, built.bytes, measured) == (None, 0, 0, 1.0)
    else:
        assert built.recall == pytest.approx(measured)
        assert built.bytes >= ROWS * WIDTH
    assert [each.rows.tolist() for each in index.exact(queries, 10)] == [t.tolist() for t in truth]


@pytest.mark.parametrize("kind", CPU)
def test_a_filtered_search_has_k_or_all_and_what_is_best(
    kind: AnyKind,
    data: tuple[np.ndarray, np.ndarray],
    indexes: dict[str, BaseIndex],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # small sets are gathered and compared whole; without that, the structures have to answer
    monkeypatch.setattr("serving.base_index.MOST_GATHERED", 4)
    vectors, queries = data
    rng = np.random.default_rng(2)
    checked, recalls = 0, []
    for share in (1.0, 0.5, 0.1, 0.01, 0.001, 0.0):
        allowed = rng.random(ROWS) < share
        for k in (1, 10, 400):
            excluded = [rng.choice(ROWS, n % 3 * 20, replace=False) for n in range(8)]
            found = indexes[kind].search(queries[:8], k, excluded, allowed)
            for query, out, hits in zip(queries[:8], excluded, found, strict=True):
                kept = allowed.copy()
                kept[out] = False
                assert len(hits.rows) == min(k, kept.sum())
                assert kept[hits.rows].all()
                require_order(hits, vectors, query)
                if k == 10 and kept.any():
                    recalls.append(recall_of([hits.rows], [brute(vectors, query, kept, k)]))
                checked += 1
    assert checked == 144
    assert np.mean(recalls) >= (1 if kind == "flat" else 0.97)


@pytest.mark.parametrize("kind", CPU)
def test_more_than_all_is_all(kind: AnyKind, data: tuple[np.ndarray, np.ndarray]) -> None:
    vectors = data[0][:90]
    index = BaseIndex(vectors, Choice(kind=kind))
    hits = index.search(data[1][:3], 500, [np.arange(30), NOTHING, np.arange(90)])
    assert [len(each.rows) for each in hits] == [60, 90, 0]
    alone = BaseIndex(vectors[:1], Choice(kind=kind)).search(data[1][:1], 3)
    assert alone[0].rows.tolist() == [0]
    assert not len(BaseIndex(vectors[:0], Choice(kind=kind)).search(data[1][:1], 3)[0].rows)


def test_what_faiss_would_answer_wrongly_is_refused(data: tuple[np.ndarray, np.ndarray]) -> None:
    index = BaseIndex(data[0][:50])
    good = data[1][:2]
    bad = [good[0], good[:, :5], good.astype(np.float64), good * np.nan, good * np.inf]
    for queries in bad:
        with pytest.raises(ValueError, match="quer"), np.errstate(all="ignore"):
            index.search(queries, 3)
    for k in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            index.search(good, k)
    with pytest.raises(ValueError, match="as many excluded"):
        index.search(good, 3, [NOTHING])
    with pytest.raises(ValueError, match="allowed"):
        index.search(good, 3, (), np.ones(49, bool))
    for vectors in (good.astype(np.float64), good[0], good * np.nan):
        with pytest.raises(ValueError, match="vector"):
            BaseIndex(vectors)


def test_the_kind_follows_the_size() -> None:
    kinds = [chosen_by_size(n) for n in (0, 50_000, 50_001, 200_000, 200_001, 10_000_000)]
    assert kinds == ["flat", "flat", "sq8", "sq8", "ivf", "ivf"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(lists_for(n) * 39 <= n for n in range(40, 4000, 77))
    assert {*CPU, "auto", "gpu_flat", "gpu_ivfpq", "gpu_cagra"} == set(get_args(AnyKind))


@pytest.mark.parametrize(("lanes", "width"), [(1, WIDTH + 1), (16, -(-(WIDTH + 1) // 16) * 16)])
def test_the_nearest_of_lifted_vectors_are_the_greatest_products(lanes: int, width: int) -> None:
    vectors, queries = clusters(500, 3, lengths=True), clusters(9, 4, lengths=True)
    lift = Lift(vectors, lanes)
    stored, searched = lift.vectors(vectors), lift.queries(queries)
    assert lift.needed and stored.shape == (500, width)
    distances = ((searched[:, None] - stored[None]) ** 2).sum(2)
    np.testing.assert_array_equal(distances.argmin(1), (queries @ vectors.T).argmax(1))
    assert not Lift(unit(np.random.default_rng(0), 50, WIDTH)).needed


def test_without_a_gpu_the_processor_answers_and_says_why(
    data: tuple[np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(gpu, "reason", lambda: "FAISS sees no CUDA device")
    for choice in (Choice(kind="gpu_flat"), Choice(kind="ivf", device="cuda")):
        with caplog.at_level(logging.WARNING, logger="clue.serving"):
            index = BaseIndex(data[0], choice, data[1])
        assert index.built.kind == ("ivf" if choice.kind == "ivf" else "flat")
        assert "no CUDA device" in index.built.fallback and "no CUDA device" in caplog.text
        assert len(index.search(data[1], 5)) == 64
        caplog.clear()
    assert not BaseIndex(data[0]).built.fallback


def test_the_gpu_kind_follows_size_and_memory() -> None:
    free = 100 << 30
    assert gpu.chosen_by_memory(1_000_000, 256, free, cagra=True) == "gpu_flat"
    assert gpu.chosen_by_memory(20_000_000, 256, free, cagra=True) == "gpu_cagra"
    assert gpu.chosen_by_memory(20_000_000, 256, free, cagra=False) == "gpu_ivfpq"
    assert gpu.chosen_by_memory(200_000_000, 256, free, cagra=True) == "gpu_ivfpq"
    assert gpu.chosen_by_memory(1_000_000, 256, 1 << 30, cagra=True) == "gpu_ivfpq"
    assert [gpu.code_bytes(width) for width in (1, 6, 64, 128, 192, 256, 421)] == [
        *(1, 1, 16, 32, 48, 64, 1)
    ]


@pytest.mark.gpu
@pytest.mark.skipif(gpu.reason() is not None, reason=str(gpu.reason()))
@pytest.mark.parametrize("kind", ["gpu_flat", "gpu_ivfpq", "gpu_cagra"])
def test_a_gpu_index_equals_the_processors_within_its_recall(kind: Any) -> None:
    for lengths in (False, True):
        vectors = clusters(20_000, 5, lengths=lengths)
        queries = clusters(64, 6, lengths=lengths)
        index = BaseIndex(vectors, Choice(kind=kind, recall=0.95), queries)
        if index.built.fallback:
            pytest.skip(index.built.fallback)
        assert index.built.kind == kind
        truth = [each.rows for each in index.exact(queries, 10)]
        hits = index.search(queries, 10)
        recall = recall_of([each.rows for each in hits], truth)
        assert recall >= (1 if kind == "gpu_flat" else 0.95)
        allowed = np.random.default_rng(7).random(20_000) < 0.9
        for each in index.search(queries, 10, (), allowed | (np.arange(20_000) < 19_000)):
            assert len(each.rows) == 10
