"""Filters keep what they say, over items, users and chosen blocks, and a search has k or all."""

import dataclasses

import numpy as np
import pytest

from serving.catalogue import TEXT_BLOCKS
from serving.filters import MOST_MASKS, Filters, ItemFilter, UserFilter
from serving.index import Index
from serving.vectors import Search, unit_or_zero
from tests.serving.planted import SERVICES, contents, unit

NOTHING = np.empty(0, np.int64)
COLUMNS = {"contrastive": (0, 4), "predictive": (4, 12), "lexical": (12, 17)}


def events_of_items() -> np.ndarray:
    return np.bincount(contents().seen_values, minlength=60)


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        (ItemFilter(), np.ones(60, bool)),
        (ItemFilter(services=(1,)), np.arange(60) % 2 == 1),
        (ItemFilter(services=(2,)), np.zeros(60, bool)),
        (ItemFilter(item_ids=("item 3", "item 8", "none")), np.isin(np.arange(60), [3, 8])),
        (ItemFilter(exclude_item_ids=("item 3",)), np.arange(60) != 3),
        (ItemFilter(min_events=3), events_of_items() >= 3),
        (ItemFilter(contains="TEXT 2"), np.isin(np.arange(60), [0, 2, *range(20, 30)])),
        (ItemFilter(contains="text.2"), np.zeros(60, bool)),
        (ItemFilter(services=(0,), item_ids=("item 3", "item 8")), np.arange(60) == 8),
        (UserFilter(), np.ones(25, bool)),
        (UserFilter(min_events=3, services=(0, 1)), np.ones(25, bool)),
        (UserFilter(services=(2,)), np.zeros(25, bool)),
        (UserFilter(min_events=4), np.zeros(25, bool)),
    ],
)
def test_a_filter_keeps_what_it_says(wanted: ItemFilter | UserFilter, kept: np.ndarray) -> None:
    filters = Filters(contents())
    np.testing.assert_array_equal(filters.mask(wanted), kept)
    assert filters.mask(dataclasses.replace(wanted)) is filters.mask(wanted)


def test_masks_of_old_filters_are_let_go() -> None:
    filters = Filters(contents())
    first = filters.mask(ItemFilter(min_events=1))
    for least in range(2, 2 + MOST_MASKS):
        filters.mask(ItemFilter(min_events=least))
    assert filters.mask(ItemFilter(min_events=1)) is not first


def test_counts_are_those_of_the_histories() -> None:
    filters = Filters(contents())
    assert filters.events_of(0).tolist() == [2, 1, 0]  # items 0, 1, 2
    assert filters.events_of(1).tolist() == [1, 2, 0]


def test_searches_under_filters_in_one_batch_equal_those_alone() -> None:
    planted = contents(items=300, users=120, width=16)
    index = Index("x", planted)
    rng = np.random.default_rng(3)
    filters = [None, ItemFilter(services=(0,)), ItemFilter(contains="text 1"), ItemFilter()]
    searches = [
        Search(kind="items", k=k, exclude=rng.choice(300, 9, False), service=service, filter=one)
        for one in filters
        for service in (None, 1)
        for k in (3, 400)
    ]
    searches += [
        Search(kind="users", k=5, exclude=NOTHING, filter=one)
        for one in (None, UserFilter(services=(0,), min_events=2), UserFilter(services=(2,)))
    ]
    queries = list(unit(rng, len(searches), 16))
    for query, search, hits in zip(queries, searches, index.search(queries, searches), strict=True):
        vectors = planted.item_vectors if search.kind == "items" else planted.user_vectors
        kept = np.ones(len(vectors), bool)
        if search.filter is not None:
            kept = index.catalogue.filters.mask(search.filter).copy()
        kept[search.exclude] = False
        if search.service is not None:
            kept &= planted.item_service == search.service
        rows = np.flatnonzero(kept)
        truth = rows[np.argsort(-(vectors[rows] @ query), kind="stable")][: search.k]
        np.testing.assert_array_equal(hits.rows, truth)
        alone = index.search([query], [search])[0]
        np.testing.assert_array_equal(alone.rows, hits.rows)
    assert len(searches) == 19


def test_items_of_chosen_blocks_are_ranked_by_the_mean_of_their_cosines() -> None:
    rng = np.random.default_rng(4)
    whole = rng.standard_normal((60, 17)).astype(np.float32)
    whole[5, :4] = 0  # no direction: its cosine is 0, not NaN
    index = Index(
        "x",
        dataclasses.replace(
            contents(),
            user_states=unit(rng, 25, 8),
            item_vectors=np.ascontiguousarray(whole[:, 4:12]),
            item_blocks=whole,
            item_block_columns=COLUMNS,
        ),
    )
    query = rng.standard_normal(17).astype(np.float32)
    checked = 0
    for blocks in (TEXT_BLOCKS, ("lexical",), ("contrastive", "predictive"), (*COLUMNS,)):
        cosines = np.zeros(60)
        for name in blocks:
            own = slice(*COLUMNS[name])
            cosines += unit_or_zero(whole[:, own]) @ unit_or_zero(query[own]) / len(blocks)
        parts = [unit_or_zero(query[slice(*COLUMNS[name])]) for name in blocks]
        compared = np.concatenate(parts) / np.float32(len(blocks))
        for service in (None, 0):
            search = Search(kind="items", k=7, exclude=NOTHING, service=service, blocks=blocks)
            hits = index.search([compared], [search])[0]
            rows = np.arange(0, 60, 2) if service == 0 else np.arange(60)
            truth = rows[np.argsort(-cosines[rows], kind="stable")][:7]
            np.testing.assert_array_equal(hits.rows, truth)
            np.testing.assert_allclose(hits.scores, cosines[truth], atol=1e-6)
            checked += 1
    assert checked == 8
    names = {"users", *(f"items of {s}{by}" for s in SERVICES for by in ("", " by text"))}
    assert index.built.keys() == names
