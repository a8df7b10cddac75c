import dataclasses
from pathlib import Path

import numpy as np
import pytest

from serving import generation
from serving.base_index import Hits
from serving.catalogue import Catalogue
from serving.contents import Contents, is_unit
from serving.generation import publish, writing
from serving.index import Index
from serving.vectors import Search
from tests.serving.planted import SERVICES, contents, unit

NOTHING = np.empty(0, np.int64)


def brute(vectors: np.ndarray, query: np.ndarray, allowed: np.ndarray, k: int) -> np.ndarray:
    scores = vectors.astype(np.float64) @ query.astype(np.float64)
    rows = np.flatnonzero(allowed)
    return rows[np.argsort(-scores[rows], kind="stable")][:k]


def search(index: Index, query: np.ndarray, what: Search) -> Hits:
    return index.search([query], [what])[0]


def test_search_is_exact_for_every_kind_service_k_and_exclusion() -> None:
    planted = contents(items=300, users=120, width=16)
    index = Index("000001-000000000000", planted)
    rng = np.random.default_rng(1)
    searches: list[Search] = []
    for kind, size in (("items", 300), ("users", 120)):
        for service in (None, 0, 1) if kind == "items" else (None,):
            for k in (1, 7, 200, 1000):
                for excluded in (0, 5, 250):
                    exclude = rng.choice(size, min(excluded, size), replace=False)
                    what = Search(kind=kind, k=k, exclude=exclude, service=service)
                    searches.append(what)
    queries = unit(rng, len(searches), 16)
    together = index.search(list(queries), searches)
    for query, what, hits in zip(queries, searches, together, strict=True):
        vectors = planted.item_vectors if what.kind == "items" else planted.user_vectors
        allowed = ~np.isin(np.arange(len(vectors)), what.exclude)
        if what.service is not None:
            allowed &= planted.item_service == what.service
        np.testing.assert_array_equal(hits.rows, brute(vectors, query, allowed, what.k))
        np.testing.assert_allclose(hits.scores, vectors[hits.rows] @ query, atol=1e-6)
        np.testing.assert_array_equal(search(index, query, what).rows, hits.rows)
    assert len(searches) == 48


def test_a_service_without_items_has_no_neighbours() -> None:
    index = Index("x", contents())
    query = unit(np.random.default_rng(0), 1, 8)[0]
    what = Search(kind="items", k=3, exclude=NOTHING, service=SERVICES.index("empty"))
    assert len(search(index, query, what).rows) == 0


def test_what_faiss_would_answer_wrongly_is_refused() -> None:
    index = Index("x", contents())
    good = unit(np.random.default_rng(0), 1, 8)
    what = Search(kind="items", k=3, exclude=NOTHING)
    bad = [
        good[:, :7],
        np.repeat(good, 2, axis=0),
        good.astype(np.float64),
        good * 2,
        good * 0,
        np.full_like(good, np.nan),
        np.full_like(good, np.inf),
    ]
    for vectors in bad:
        with pytest.raises(ValueError, match=r"vector|float32"):
            index.search(list(vectors), [what])
    for k in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            index.search(list(good), [dataclasses.replace(what, k=k)])


def test_users_are_found_by_id_and_only_by_id() -> None:
    planted = contents()
    index = Index("x", planted)
    for row in range(25):
        name = planted.user_ids[row].as_py()
        assert index.user_row(name) == row
        known = index.user(name)
        assert known is not None and known.user_id == name
        np.testing.assert_array_equal(known.vector, planted.user_vectors[row])
        np.testing.assert_array_equal(known.state, planted.user_vectors[row])
        np.testing.assert_array_equal(known.seen, [row, row + 1, row + 2])
    for name in ("", "user", "user 25", "user 1 ", "zzz", "\U0001f600", "é"):
        assert index.user_row(name) is None and index.user(name) is None


def test_events_are_found_by_service_and_text_with_all_their_twins() -> None:
    index = Catalogue("x", contents())
    assert sorted(index.rows_read([("films", "text 2")])) == [0, 2]
    found = index.rows_read([("films", "text 2"), ("news", "text 3"), ("news", "text 3")])
    assert sorted(found) == [0, 2, 3]
    assert len(index.rows_read([("news", "text 2"), ("nowhere", "text 3"), ("films", "none")])) == 0
    assert index.item(3) == ("item 3", "news", "text 3")
    assert index.rows_of([("films", "item 2"), ("news", "item 2")]).tolist() == [2]


def test_a_loaded_index_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with writing(tmp_path, overwrite=False):
        publish(tmp_path, contents())
    calls: list[Contents] = []
    monkeypatch.setattr(generation, "check", calls.append)
    Index.load(tmp_path)
    assert len(calls) == 1


def test_unit_length_is_judged_without_overflow() -> None:
    vectors = np.array([[0.6, 0.8], [1e300, 1e300], [np.nan, 1], [np.inf, 0], [0, 0], [1.1, 0]])
    assert is_unit(vectors).tolist() == [True, False, False, False, False, False]
