"""What a search returns, on either side: equal to a slow reference, whatever the filter."""

# pyright: standard, reportOptionalSubscript=false, reportOptionalMemberAccess=false

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from clue.inference.text_encoder import TextEncoder
from serving.contents import Contents
from serving.filters import ItemFilter, UserFilter
from serving.milvus import index as milvus_index
from serving.vectors import Search, Vectors, unit_or_zero
from tests.serving.contract.arena import SIDES, Arena, items, users
from tests.serving.planted import contents, unit

NAMES = ["ann", "a/b", "Zoë", '"; drop', "user'", "back\\slash", "🙂", "100%", "a_b", "{x}", "[1]"]


def universal(seed: int = 0) -> Contents:
    """400 items with blocks in two services, and 90 users, of whom 11 have awkward names."""
    rng = np.random.default_rng(seed)
    made = contents(items=400, users=90, width=24, seed=seed)
    blocks = rng.standard_normal((400, 36)).astype(np.float32)
    blocks[5, :12] = 0  # an item without a direction in one of them
    ids = sorted([*NAMES, *(f"user {n}" for n in range(79))])
    return replace(
        made,
        user_ids=pa.array(ids, pa.large_string()),
        user_states=rng.standard_normal((90, 10)).astype(np.float32),
        item_vectors=rng.standard_normal((400, 10)).astype(np.float32),
        item_blocks=blocks,
        item_block_columns={"contrastive": (0, 12), "lexical": (12, 30), "aligned": (30, 36)},
        user_events=rng.integers(0, 4, (90, 3)) * (rng.random((90, 3)) < 0.6),
    )


@pytest.fixture(scope="module")
def planted() -> Contents:
    return universal()


@pytest.fixture(scope="module", params=SIDES)
def index(
    request: pytest.FixtureRequest,
    milvus: int,
    encoder: TextEncoder,
    planted: Contents,
    tmp_path_factory: pytest.TempPathFactory,
) -> Vectors:
    arena = Arena(tmp_path_factory.mktemp("search"), request.param, milvus, encoder)
    return arena.generations().open(arena.publish(planted))


def compared(planted: Contents, search: Search) -> np.ndarray:
    """Return the items' vectors that a search compares."""
    if not search.blocks:
        return planted.item_vectors
    parts = [slice(*planted.item_block_columns[name]) for name in search.blocks]
    return np.concatenate([unit_or_zero(planted.item_blocks[:, part]) for part in parts], axis=1)


def kept(planted: Contents, search: Search) -> np.ndarray:
    """Return which items a search may answer with, one by one."""
    wanted, met = search.filter or ItemFilter(), np.bincount(planted.seen_values, minlength=400)
    assert isinstance(wanted, ItemFilter)
    allowed: list[bool] = []
    for row in range(400):
        service, item = int(planted.item_service[row]), planted.item_ids[row].as_py()
        allowed.append(
            search.service in (None, service)
            and row not in search.exclude.tolist()
            and (not wanted.services or service in wanted.services)
            and (not wanted.item_ids or item in wanted.item_ids)
            and item not in wanted.exclude_item_ids
            and met[row] >= wanted.min_events
            and wanted.contains.lower() in planted.item_texts[row].as_py().lower()
        )
    return np.array(allowed)


WAYS = ((None, ()), (1, ()), (0, ("contrastive", "lexical")), (None, ("aligned",)))
FILTERS = (
    None,
    ItemFilter(services=(1,)),
    ItemFilter(item_ids=("item 3", "item 7", "no such", '"] or row in [1')),
    ItemFilter(exclude_item_ids=tuple(f"item {n}" for n in range(100))),
    ItemFilter(min_events=3),
    ItemFilter(contains="TEXT 1"),
    ItemFilter(contains='"'),
    ItemFilter(services=(0,), contains="2", min_events=1),
)


@pytest.mark.parametrize("listed", [4096, 20])
def test_items_are_those_of_a_slow_reference(
    index: Vectors, planted: Contents, listed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not index.remote and listed == 20:
        pytest.skip("of Milvus alone: rows are sifted here instead of listed there")
    monkeypatch.setattr(milvus_index, "MOST_LISTED", listed)
    rng, checked = np.random.default_rng(1), 0
    for wanted in FILTERS:
        for service, blocks in (
            (None, ()),
            (1, ()),
            (0, ("contrastive", "lexical")),
            (None, ("aligned",)),
        ):
            exclude = rng.choice(400, 30, replace=False)
            search = replace(items(int(rng.choice([1, 7, 500])), filter=wanted), exclude=exclude)
            search = replace(search, service=service, blocks=blocks)
            vectors = compared(planted, search)
            query = rng.standard_normal(vectors.shape[1]).astype(np.float32)
            (hits,) = index.nearest_items([query], [search])
            rows = np.flatnonzero(kept(planted, search))
            scores = vectors[rows].astype(np.float64) @ query
            order = np.argsort(-scores, kind="stable")[: search.k]
            np.testing.assert_array_equal(hits.rows, rows[order])
            np.testing.assert_allclose(hits.scores, scores[order], atol=1e-4)
            checked += 1
    assert checked == 32


def test_users_are_those_of_a_slow_reference(index: Vectors, planted: Contents) -> None:
    rng, ids, checked = np.random.default_rng(2), planted.user_ids.to_pylist(), 0
    events = planted.user_events
    assert events is not None
    gone = [ids[n] for n in rng.choice(90, 20, replace=False)]
    for user_id in [*gone, "a stranger"]:
        index.leave_out(user_id)
    left_out = index.left_out([*gone, "a stranger"])
    wanted = (
        None,
        UserFilter(services=(0, 1)),
        UserFilter(min_events=4),
        UserFilter(services=(2,), min_events=3),
    )
    for each in wanted:
        for without in (None, "Zoë", '"; drop', "nobody"):
            search = users(int(rng.choice([1, 10, 200])), filter=each)
            query = unit(rng, 1, 24)[0]
            (hits,) = index.nearest_users([query], [search], [without], left_out)
            scores = planted.user_vectors.astype(np.float64) @ query
            keeps = np.ones(90, bool) if each is None else each.keeps(events)
            rows = [n for n in range(90) if keeps[n] and ids[n] not in (*gone, without)]
            best = sorted(rows, key=lambda n: (-scores[n], ids[n]))[: search.k]
            assert [user_id for user_id, _ in hits] == [ids[n] for n in best]
            np.testing.assert_allclose([score for _, score in hits], scores[best], atol=1e-5)
            checked += 1
    assert checked == 16


def test_what_has_no_answer_is_refused(index: Vectors) -> None:
    good, checked = unit(np.random.default_rng(0), 1, 24)[0], 0
    for bad in (good[:7], good * 2, good * np.nan, good.astype(np.float64)):
        with pytest.raises(ValueError, match=r"vector|float32"):
            index.nearest_users([bad], [users(3)], [None], index.left_out([]))
        checked += 1
    with pytest.raises(ValueError, match="at least 1"):
        index.nearest_users([good], [users(0)], [None], index.left_out([]))
    with pytest.raises(ValueError, match="finite"):
        index.nearest_items([np.full(10, np.inf, np.float32)], [items(3)])
    assert checked == 4


def test_what_is_known_of_a_user_is_what_was_published(index: Vectors, planted: Contents) -> None:
    checked = 0
    for row, user_id in enumerate(planted.user_ids.to_pylist()):
        known = index.user(user_id)
        assert known is not None and known.user_id == user_id
        np.testing.assert_allclose(known.vector, planted.user_vectors[row], atol=1e-7)
        np.testing.assert_allclose(known.state, planted.user_states[row], atol=1e-7)
        seen = planted.seen_values[planted.seen_offsets[row] : planted.seen_offsets[row + 1]]
        np.testing.assert_array_equal(known.seen, seen)
        np.testing.assert_array_equal(known.events, planted.user_events[row])
        checked += 1
    assert checked == index.num_users == 90
    for stranger in ("", "user", "ann ", "\U0001f600"):
        assert index.user(stranger) is None


def test_ids_samples_and_the_map(index: Vectors, planted: Contents) -> None:
    ids = planted.user_ids.to_pylist()
    for prefix in ("user 1", "a", '"', "100%", "back\\", "🙂", "none"):
        assert index.ids_from(prefix, 200) == [one for one in ids if one.startswith(prefix)]
    assert len(index.ids_from("user", 5)) == 5
    several = [np.count_nonzero(known.events) > 1 for known in index.some_users(40)]
    assert planted.user_events is not None
    all_several = np.count_nonzero(np.count_nonzero(planted.user_events, axis=1) > 1)
    assert len(several) == 40 and sum(several) == min(40, all_several)
    assert len(index.some_users(500)) == 90
    made = index.map()
    spread = np.linalg.svd(planted.user_vectors - planted.user_vectors.mean(0))[1] ** 2
    np.testing.assert_allclose(made.explained, spread[:2].sum() / spread.sum(), atol=1e-5)
    assert made.points.shape == (90, 2)
    assert all(built.rows in (90, 200, 400) or built.rows == 0 for built in index.built.values())
