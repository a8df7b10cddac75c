import asyncio
import json
import logging
import re

import numpy as np
import pytest

from clue.inference.text_encoder import TextEncoder
from serving import logs
from serving.settings import Settings
from tests.serving.client import body_of, live, problem, serving
from tests.serving.test_auth import guarded
from tests.serving.test_faults import Held

URL = "/v1/users/embed"
BODY = body_of([{"films": ["one", "two"]}, {"nowhere": ["secret words"]}])


def value(exposition: str, line: str) -> float:
    """The value of a sample, 0 where it is not there."""
    found = re.search(rf"^{re.escape(line)} (\S+)$", exposition, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_metrics_count_what_was_done_and_what_was_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad(encoder: TextEncoder, users: list[object], **_: object) -> np.ndarray:
        return np.full((len(users), encoder.width), np.nan, np.float32)

    async def test() -> None:
        async with serving(settings) as (client, app):
            for _ in range(3):
                assert (await client.post(URL, json=BODY)).status_code == 200
            problem(await client.post(URL, json={}), 422)
            problem(await client.get("/nothing/of/that/name"), 404)
            monkeypatch.setattr(TextEncoder, "encode", bad)
            problem(await client.post(URL, json=BODY), 500)
            app.state.metrics.watched.add("clue_dead_share", "of the index", lambda: 0.25)
            text = (await client.get("/metrics")).text
            engine = live(app).engine
            model, index = engine.encoder.fingerprint, engine.index
        for line, count in {
            f'clue_requests_total{{method="POST",route="{URL}",status="200"}}': 3,
            f'clue_requests_total{{method="POST",route="{URL}",status="500"}}': 1,
            'clue_requests_total{method="any",route="none",status="404"}': 1,
            'clue_rejected_total{reason="invalid-body"}': 1,
            'clue_rejected_total{reason="bad-vector"}': 1,
            'clue_stage_seconds_count{stage="encode"}': 3,
            'clue_stage_seconds_count{stage="queue"}': 3,
            f'clue_request_seconds_count{{route="{URL}"}}': 5,
            "clue_unknown_service_events_total": 4,
            "clue_bad_vectors_total": 1,
            "clue_dead_share": 0.25,
            f'clue_serving_info{{corpus="{index.catalogue.corpus_fingerprint}",index="{index.catalogue.name}",'
            f'model="{model}"}}': 1,
        }.items():
            assert value(text, line) == count, line
        assert value(text, "clue_tokens_total") > 0
        assert value(text, 'clue_item_reads_total{result="miss"}') >= 2
        assert value(text, 'clue_item_reads_total{result="hit"}') >= 4  # two requests of three
        assert value(text, "clue_batch_queries_count") >= 4
        assert "secret" not in text and "nothing/of" not in text

    asyncio.run(test())


def test_an_answer_has_an_id_and_its_times(settings: Settings) -> None:
    async def test() -> None:
        async with serving(settings) as (client, _):
            answer = await client.post(URL, json=BODY, headers={"x-request-id": "mine-7"})
            times = {
                name: float(answer.headers[f"x-{name}-time"])
                for name in ("total", "queue", "encode")
            }
            assert answer.headers["x-request-id"] == "mine-7"
            assert 0 < times["encode"] <= times["total"]
            assert 0 <= times["queue"] <= times["total"]
            assert int(answer.headers["x-tokens"]) > 0
            similar = await client.post(
                "/v1/users/similar", json={"events": BODY["users"][0]["events"]}
            )
            assert float(similar.headers["x-search-time"]) >= 0
            for wrong in ("", "a b", "x" * 65, "<script>"):
                other = await client.get("/livez", headers={"x-request-id": wrong})
                assert re.fullmatch("[0-9a-f]{32}", other.headers["x-request-id"])
            for path in ("/livez", "/v1/models", "/nothing"):
                headers = (await client.get(path)).headers
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["cache-control"] == "no-store"
                assert headers["content-security-policy"].startswith("default-src 'none'")

    asyncio.run(test())


def test_a_line_of_the_log_is_json_and_holds_nothing_of_the_request_but_its_key(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    open_book = guarded(settings, log_requests=True)

    async def test() -> None:
        async with serving(open_book) as (client, _):
            headers = {"x-request-id": "r-1", "authorization": f"Bearer read-{'s' * 40}"}
            assert (await client.post(URL, json=BODY, headers=headers)).status_code == 200

    with caplog.at_level(logging.INFO, logger="clue.serving.requests"):
        asyncio.run(test())
    (record,) = [each for each in caplog.records if each.name == "clue.serving.requests"]
    text = logs.formatter("json").format(record)
    line = json.loads(text)
    assert line["event"] == f"POST {URL} 200"
    assert (line["request_id"], line["key"], line["level"]) == ("r-1", "read", "info")
    assert line["total_ms"] >= line["encode_ms"] > 0
    assert "secret" not in text and "ssss" not in text
    assert f"POST {URL} 200" in logs.formatter("text").format(record)


def test_a_fault_of_ours_is_answered_counted_and_logged(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such luck")

    async def test() -> None:
        async with serving(settings) as (client, _):
            monkeypatch.setattr("serving.routes.embed.embed_query", broken)
            answer = await client.post(URL, json=BODY)
            assert problem(answer, 500)["type"] == "urn:clue:problem:internal-error"
            assert "luck" not in answer.text
            assert answer.headers["x-request-id"]
            text = (await client.get("/metrics")).text
            line = f'clue_requests_total{{method="POST",route="{URL}",status="500"}}'
            assert value(text, line) == 1

    asyncio.run(test())
    assert "no such luck" in caplog.text


def test_a_request_says_how_long_it_waits(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with serving(settings) as (client, app):
            for wrong in ("", "-1", "0", "1.5", "soon", "9" * 10, "²"):
                headers = {b"x-request-timeout-ms": wrong.encode()}
                refused = await client.post(URL, json=BODY, headers=headers)
                assert problem(refused, 400)["type"] == "urn:clue:problem:wrong-timeout"
            held = Held(monkeypatch)
            first = asyncio.ensure_future(client.post(URL, json=BODY))
            await asyncio.to_thread(held.entered.wait, 10)
            late = await client.post(URL, json=BODY, headers={"x-request-timeout-ms": "50"})
            problem(late, 504)
            await asyncio.sleep(0)  # the query is withdrawn in the loop's next turn
            assert live(app).batcher.waiting == 0
            held.go.set()
            assert (await first).status_code == 200

    asyncio.run(test())
