"""OpenTelemetry: a span a request where it is wanted, without histories and ids."""

import asyncio

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serving.settings import Settings
from tests.serving.client import body_of, serving

BODY = body_of([{"films": ["secret words", "two"]}])


def test_a_request_is_a_span_without_histories_only_where_that_is_wanted(
    settings: Settings,
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)

    async def test(chosen: Settings) -> None:
        async with serving(chosen) as (client, _):
            answer = await client.post(
                "/v1/users/embed", json=BODY, headers={"x-request-id": "mine-7"}
            )
            assert answer.status_code == 200
            private = await client.get("/v1/users/private-id?secret=words")
            assert private.status_code == 404
            assert (await client.post("/private-path", json=BODY)).status_code == 404

    asyncio.run(test(settings))
    assert not exporter.get_finished_spans()
    asyncio.run(test(settings.model_copy(update={"tracing": True})))
    spans = {span.name: span for span in exporter.get_finished_spans()}
    known = {name: dict(span.attributes or {}) for name, span in spans.items()}
    embed = known["POST /v1/users/embed"]
    assert embed["http.route"] == embed["url.path"] == "/v1/users/embed"
    assert embed["http.response.status_code"] == 200
    assert embed["clue.request_id"] == "mine-7"
    assert float(str(embed["clue.encode_seconds"])) > 0
    assert known["GET /v1/users/{user_id}"]["http.response.status_code"] == 404
    assert known["POST"]["http.response.status_code"] == 404
    everything = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "clue.tokens" in everything
    assert "secret" not in everything and "private" not in everything
