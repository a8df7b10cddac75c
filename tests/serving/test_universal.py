"""The service over a universal model: fields, moments, blocks, and what each search compares."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clue.data.corpus import Corpus
from clue.embed import EmbedConfig, embed, read_embeddings
from clue.evaluation.encode import normalised
from clue.inference.events import Value
from clue.inference.universal_encoder import UniversalEncoder
from serving.generation import read
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.client import live, problem, serving, vectors_in
from tests.serving.malformed import malformed

EMBED, ITEMS, USERS = "/v1/users/embed", "/v1/items/search", "/v1/users/similar"
Events = list[dict[str, Value]]


@pytest.fixture
def settings(tiny_universal: TinyRun, universal_index: Path) -> Settings:
    return Settings(checkpoint=tiny_universal.run, index=universal_index)


@pytest.fixture(scope="module")
def encoder(tiny_universal: TinyRun) -> UniversalEncoder:
    return UniversalEncoder.load(tiny_universal.run)


@pytest.fixture(scope="module")
def corpus(tiny_universal: TinyRun) -> Corpus:
    return Corpus.open(tiny_universal.corpus)


def events_before(corpus: Corpus, user: int, moment: float) -> Events:
    """Return what a user of the corpus did before a moment, all that the log knows of it."""
    events: Events = []
    for number, service in enumerate(corpus.services):
        channel = next(f for f in corpus.fields_of(number) if f.name == "channel")
        rows = zip(
            corpus.items_of(number)[user].tolist(),
            corpus.timestamps_of(number)[user].tolist(),
            corpus.values_of(number, "amount")[user].tolist(),
            corpus.values_of(number, "channel")[user].tolist(),
            strict=True,
        )
        for item, time, amount, code in rows:
            event: dict[str, Value] = {"service": service, "time": time}
            event |= {"item_id": corpus.item_ids[item].as_py()}
            event |= {"text": corpus.item_texts[item].as_py()}
            event |= {"amount": amount} if np.isfinite(amount) else {}
            event |= {"channel": channel.values[code - 2] if code >= 2 else None}
            if time < moment:
                events.append(event)
    return events


def in_python(events: Events) -> dict[str, Events]:
    services = dict.fromkeys(str(event["service"]) for event in events)
    return {
        name: [
            {key: value for key, value in event.items() if key != "service"}
            for event in events
            if event["service"] == name
        ]
        for name in services
    }


def test_python_the_table_and_http_give_one_vector(
    settings: Settings,
    tiny_universal: TinyRun,
    encoder: UniversalEncoder,
    corpus: Corpus,
    tmp_path: Path,
) -> None:
    moment = float(np.median(corpus.timestamps_of(0).values))
    out = tmp_path / "users.parquet"
    run, corpus_path = tiny_universal.run, tiny_universal.corpus
    embed(EmbedConfig(checkpoint=run, corpus=corpus_path, out=out, before=moment))
    rows = read_embeddings(out).to_pylist()
    table = {row["user_id"]: row["vector"] for row in rows if row["service"] == "all"}
    histories = {u: events_before(corpus, u, moment) for u in range(60)}
    users = [u for u, events in histories.items() if events]
    assert len(users) > 40
    truth = np.array([table[corpus.user_ids[user].as_py()] for user in users])
    python = encoder.encode([in_python(histories[user]) for user in users], as_of=moment)
    dated = [
        [
            {**event, "time": datetime.fromtimestamp(float(event["time"] or 0), UTC).isoformat()}
            for event in histories[user]
        ]
        for user in users
    ]

    async def test() -> None:
        async with serving(settings) as (client, _):
            plain = {"users": [{"events": histories[user]} for user in users], "as_of": moment}
            answer = await client.post(EMBED, json=plain)
            http = vectors_in(answer)
            assert answer.json()["blocks"] == {
                name: [columns.start, columns.stop] for name, columns in encoder.blocks.items()
            }
            # dates, each user by themselves, and a moment of their own
            as_of = datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
            bodies = [{"users": [{"events": events, "as_of": as_of}]} for events in dated]
            answers = [await client.post(EMBED, json=body) for body in bodies]
            alone = np.concatenate([vectors_in(each) for each in answers])
        for vectors in (python, http, alone):
            np.testing.assert_allclose(vectors, truth, rtol=1e-6, atol=1e-6)

    asyncio.run(test())
    # the fields are read, and so is the moment
    bare = encoder.encode(
        [
            {s: [str(e["text"]) for e in es] for s, es in in_python(histories[u]).items()}
            for u in users
        ]
    )
    activity = encoder.blocks["activity"]
    assert (np.abs(bare - truth)[:, activity].max(axis=1) > 0.1).all()


def test_blocks_are_chosen_by_the_request(settings: Settings, encoder: UniversalEncoder) -> None:
    body = {"users": [{"events": [{"service": "shop", "text": "tea"}]}]}

    async def test() -> None:
        async with serving(settings) as (client, _):
            whole = vectors_in(await client.post(EMBED, json=body))
            names = ["activity", "contrastive"]
            answer = await client.post(EMBED, json={**body, "blocks": names})
            blocks = answer.json()["blocks"]
            assert list(blocks) == ["contrastive", "activity"]
            assert blocks["activity"][1] == vectors_in(answer).shape[1]
            for name, (start, stop) in blocks.items():
                part = vectors_in(answer)[:, start:stop]
                np.testing.assert_allclose(part, whole[:, encoder.blocks[name]], atol=1e-6)
            refused = await client.post(EMBED, json={**body, "blocks": ["pooled", "words"]})
            (error,) = problem(refused, 422)["errors"]
            assert error["pointer"] == "/blocks/1"
            assert "contrastive, aligned, predictive" in error["detail"]
            model = (await client.get("/v1/models")).json()["data"][0]
            assert model["fields"] == {"amount": "numeric", "channel": "categorical"}
            assert model["clocks"] == dict.fromkeys(encoder.services, True)
            assert model["ranking"] == list(columns(encoder.blocks["predictive"]))
            assert model["similarity"] == [0, encoder.blocks["aligned"].stop]

    asyncio.run(test())


def columns(block: slice) -> tuple[int, int]:
    return block.start, block.stop


def test_each_search_compares_its_own_columns(
    settings: Settings, universal_index: Path, encoder: UniversalEncoder, corpus: Corpus
) -> None:
    index = read(universal_index)[1]
    ids = index.user_ids.to_pylist()
    rows = {name: row for row, name in enumerate(corpus.user_ids.to_pylist())}
    items = encoder.encode_catalogue(corpus)[:, encoder.ranking_columns]
    np.testing.assert_allclose(index.item_vectors, items, rtol=1e-6, atol=1e-6)
    checked = 0

    async def test() -> None:
        nonlocal checked
        async with serving(settings) as (client, _):
            for row in range(0, len(ids), 40):
                events = events_before(corpus, rows[ids[row]], np.inf)
                whole = encoder.encode(in_python(events))
                alike = index.user_vectors @ normalised(whole[None, encoder.similarity_columns])[0]
                fits = items @ whole[encoder.ranking_columns]
                for target in (
                    {"user_id": ids[row]},
                    {"events": events},
                    {"vector": whole.tolist()},
                ):
                    answer = await client.post(USERS, json={**target, "k": 5})
                    hits = {hit["user_id"]: hit["score"] for hit in answer.json()["data"]}
                    same = np.array([name == ids[row] for name in ids]) & ("user_id" in target)
                    best = np.sort(np.where(same, -2, alike))[::-1][:5]
                    np.testing.assert_allclose(list(hits.values()), best, atol=1e-5)
                    body = {**target, "k": 7, "service": "films"}
                    answer = await client.post(ITEMS, json=body)
                    scores = [hit["score"] for hit in answer.json()["data"]]
                    films = np.array(index.item_service) == index.services.index("films")
                    best = np.sort(fits[films])[::-1][:7]
                    np.testing.assert_allclose(scores, best, rtol=1e-5, atol=1e-5)
                    checked += 1
            zero = {"vector": [0.0] * encoder.width}
            assert problem(await client.post(USERS, json=zero), 422)["errors"]
            short = {"vector": [1.0] * index.user_vectors.shape[1]}
            assert problem(await client.post(USERS, json=short), 422)["errors"]

    asyncio.run(test())
    assert checked >= 18


def test_all_that_is_wrong_with_events_is_said_at_once(settings: Settings) -> None:
    good: dict[str, Any] = {"service": "shop", "text": "tea", "time": 1.7e9, "amount": 3}
    wrong = [
        {**good, "amont/~": 3.0},
        {**good, "amount": "3"},
        {**good, "amount": 1e39, "channel": 7},
        {**good, "amount": True},
        {**good, "time": 1.8e9},
        {**good, "time": "2027-01-15T08:00:00.5+01:00", "channel": ["web"]},
    ]
    pointers = ["0/amont~1~0", "1/amount", "2/amount", "2/channel", "3/amount", "4/time"]
    pointers += ["5/channel", "5/time"]

    async def test() -> None:
        async with serving(settings) as (client, _):
            for path in (EMBED, ITEMS, USERS):
                user = {"events": wrong, "as_of": 1.7e9}
                where, body = "/events/", user
                if path == EMBED:
                    where, body = "/users/1/events/", {"users": [{"events": [good]}, user]}
                errors = problem(await client.post(path, json=body), 422)["errors"]
                assert [error["pointer"] for error in errors] == [where + p for p in pointers]
                assert "fields amount, channel; leave it out, or declare" in errors[0]["detail"]
                assert "lies after as_of" in errors[5]["detail"]
            target = {"vector": [1.0], "as_of": 1.7e9}
            refused = problem(await client.post(USERS, json=target), 422)
            assert "as_of needs events" in refused["errors"][0]["detail"]
            stranger = {"user_id": "u", "as_of": 1.7e9}  # of a stored user it is a question
            problem(await client.post(USERS, json=stranger), 404)
            # missing is a value: null, and no member at all
            bare = {"service": "shop", "text": "tea"}
            null = {**bare, "time": None, "amount": None, "channel": None}
            answer = await client.post(EMBED, json={"users": [{"events": [bare, null]}]})
            assert answer.status_code == 200, answer.text
            surrogate = b'{"users":[{"events":[{"service":"a","text":"b","\\ud800":1}]}]}'
            headers = {"content-type": "application/json"}
            problem(await client.post(EMBED, content=surrogate, headers=headers), 422)

    asyncio.run(test())


def test_positions_are_no_moments(settings: Settings, encoder: UniversalEncoder) -> None:
    events = [{"service": "news", "text": text, "time": 10.0 * n} for n, text in enumerate("abc")]
    strange = [{**event, "service": "attic"} for event in events]

    async def test() -> None:
        async with serving(settings) as (client, app):
            live_encoder = live(app).engine.encoder
            assert isinstance(live_encoder, UniversalEncoder)
            live_encoder.clocks = {name: name != "news" for name in encoder.services}
            for history in (events, strange):  # a service of positions, and one that is not known
                bodies = [
                    {"users": [{"events": history, "as_of": at}]} for at in (None, 5.0, 1.8e9)
                ]
                bodies.append({"users": [{"events": history[::-1]}]})  # yet they order the events
                vectors = [vectors_in(await client.post(EMBED, json=body))[0] for body in bodies]
                for vector in vectors[1:]:
                    np.testing.assert_array_equal(vector, vectors[0])
                activity = vectors[0][encoder.blocks["activity"]]
                assert np.count_nonzero(activity) == 3  # events, distinct items, services

    asyncio.run(test())


def test_malformed_requests_are_4xx_problems(
    settings: Settings, universal_index: Path, encoder: UniversalEncoder
) -> None:
    user_id = read(universal_index)[1].user_ids[0].as_py()
    refused = 0

    async def test() -> None:
        nonlocal refused
        async with serving(settings) as (client, _):
            for bad in malformed(encoder.width, user_id):
                content = b"".join(bad.content) if isinstance(bad.content, list) else bad.content
                answer = await client.request(
                    bad.method, bad.path, content=content, headers=bad.headers
                )
                if bad.kind == "wrong vector" and answer.status_code == 200:
                    continue  # of any length but zero
                problem(answer, answer.status_code)
                assert 400 <= answer.status_code < 500, (bad.kind, answer.text[:200])
                refused += 1

    asyncio.run(test())
    assert refused >= 250
