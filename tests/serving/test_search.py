"""Searches over HTTP by text, by chosen blocks and under filters, over a universal model."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clue.evaluation.encode import normalised
from clue.inference.universal_encoder import UniversalEncoder
from serving.catalogue import TEXT_BLOCKS
from serving.generation import read
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.client import problem, serving

ITEMS, USERS = "/v1/items/search", "/v1/users/similar"


@pytest.fixture
def settings(tiny_universal: TinyRun, universal_index: Path) -> Settings:
    return Settings(checkpoint=tiny_universal.run, index=universal_index)


def mean_cosines(
    encoder: UniversalEncoder, items: np.ndarray, query: np.ndarray, blocks: tuple[str, ...]
) -> np.ndarray:
    parts = [
        normalised(items[:, encoder.blocks[n]]) @ normalised(query[None, encoder.blocks[n]])[0]
        for n in blocks
    ]
    return np.mean(parts, axis=0)


def test_a_text_finds_the_items_whose_blocks_are_most_like_it(
    settings: Settings, tiny_universal: TinyRun
) -> None:
    encoder = UniversalEncoder.load(tiny_universal.run)
    _, contents = read(settings.index)
    whole = contents.item_blocks
    assert whole is not None
    text, names = contents.item_texts[7].as_py(), contents.item_service
    service = contents.services[names[7]]
    cases: list[tuple[dict[str, Any], tuple[str, ...], np.ndarray]] = [
        ({}, TEXT_BLOCKS, names >= 0),
        ({"blocks": ["lexical"]}, ("lexical",), names >= 0),
        (
            {"blocks": ["lexical", "aligned"], "service": service},
            ("aligned", "lexical"),
            names == 0,
        ),
        ({"filter": {"services": [contents.services[1]]}}, TEXT_BLOCKS, names == 1),
        ({"filter": {"contains": text[:4].upper()}}, TEXT_BLOCKS, names >= 0),
    ]
    assert names[7] == 0

    async def test() -> None:
        async with serving(settings) as (client, _):
            for asked, blocks, kept in cases:
                body = {"text": text, "k": 5, **asked}
                answer = await client.post(ITEMS, json=body)
                assert answer.status_code == 200, answer.text
                own = encoder.encode_items([text], service=asked.get("service"))[0]
                scores = mean_cosines(encoder, whole, own, blocks)
                held = asked.get("filter", {}).get("contains", "").lower()
                texts = contents.item_texts.to_pylist()
                kept = kept & np.array([held in each.lower() for each in texts])
                best = np.sort(scores[kept])[::-1][:5]
                data = answer.json()["data"]
                np.testing.assert_allclose([d["score"] for d in data], best, atol=1e-5)
                assert all(held in d["text"].lower() for d in data)

    asyncio.run(test())


def test_look_alikes_by_a_block_and_under_a_filter(settings: Settings) -> None:
    _, contents = read(settings.index)
    owners = np.repeat(np.arange(len(contents.user_ids)), np.diff(contents.seen_offsets))
    counts = np.bincount(owners)
    least = int(np.median(counts))
    ids = contents.user_ids.to_pylist()

    async def test() -> None:
        async with serving(settings) as (client, _):
            for blocks in (None, ["aligned"], ["contrastive", "aligned"]):
                body: dict[str, Any] = {"user_id": ids[0], "k": 8, "filter": {"min_events": least}}
                body |= {"blocks": blocks} if blocks else {}
                answer = await client.post(USERS, json=body)
                assert answer.status_code == 200, answer.text
                rows = [ids.index(each["user_id"]) for each in answer.json()["data"]]
                assert len(rows) == 8 and (counts[rows] >= least).all() and 0 not in rows
                if blocks != ["aligned"]:
                    scores = contents.user_vectors @ contents.user_vectors[0]
                    kept = np.setdiff1d(np.flatnonzero(counts >= least), [0])
                    best = np.sort(scores[kept])[::-1][:8]
                    given = [each["score"] for each in answer.json()["data"]]
                    np.testing.assert_allclose(given, best, atol=1e-5)

    asyncio.run(test())


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        (ITEMS, {"text": "pan", "blocks": ["nope"]}, "/blocks/0"),
        (ITEMS, {"text": "pan", "blocks": ["activity"]}, "/blocks/0"),
        (ITEMS, {"text": "pan", "blocks": ["aligned"]}, "/blocks"),
        (ITEMS, {"text": "pan", "k": 10_000}, "/k"),
        (ITEMS, {"text": "pan", "exclude_seen": True}, ""),
        (ITEMS, {"text": "pan", "user_id": "u"}, ""),
        (ITEMS, {"text": "pan" * 1000}, "/text"),
        (ITEMS, {"text": "pan", "filter": {"services": ["nowhere"]}}, "/filter/services/0"),
        (ITEMS, {"text": "pan", "filter": {"colour": "red"}}, "/filter"),
        (ITEMS, {"text": "pan", "filter": {"min_events": -1}}, "/filter/min_events"),
        (USERS, {"events": [{"service": "x", "text": "y"}], "blocks": ["lexical"]}, "/blocks/0"),
        (USERS, {"events": [{"service": "x", "text": "y"}], "blocks": ["aligned"]}, "/blocks"),
    ],
)
def test_what_is_no_search_is_refused_by_name(
    settings: Settings, path: str, body: dict[str, Any], where: str
) -> None:
    async def test() -> None:
        async with serving(settings) as (client, _):
            refused = problem(await client.post(path, json=body), 422)
            assert [each["pointer"] for each in refused["errors"]] == [where]

    asyncio.run(test())
