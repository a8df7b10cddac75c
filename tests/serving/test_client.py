"""The typed client against a service that listens, and against answers made by hand."""

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from clue.inference.text_encoder import TextEncoder
from serving.client import Client, Refused
from serving.generation import read
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.client import events_of, users_of
from tests.serving.process import listening


@pytest.fixture(scope="module")
def url(
    tiny_run: TinyRun, tiny_index: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[str]:
    store = tmp_path_factory.mktemp("client") / "store"
    # so few a second that a client of several requests has to wait
    settings = Settings(checkpoint=tiny_run.run, index=tiny_index, store=store, rate="8/second")
    with listening(settings) as address:
        yield address


def test_the_client_answers_as_python_does(url: str, tiny_run: TinyRun, tiny_index: Path) -> None:
    index = read(tiny_index)[1]
    users = users_of(index, 5, seed=3)
    with Client(url) as clue:
        made = clue.embed([events_of(user) for user in users])
        truth = TextEncoder.load(tiny_run.run).encode(users)
        np.testing.assert_allclose(made.vectors, truth, atol=1e-5)
        assert made.blocks == {} and len(made.model) == 64
        name = index.user_ids[0].as_py()
        alike = clue.similar(user_id=name, k=5)
        assert len(alike) == 5 and name not in {hit.id for hit in alike}
        items = clue.search(vector=made.vectors[0], k=3, service=index.services[0])
        assert [hit.service for hit in items] == [index.services[0]] * 3
        assert items[0].score == max(hit.score for hit in items)
        with pytest.raises(Refused, match="/k") as refused:
            clue.similar(user_id=name, k=0)
        assert (refused.value.status, refused.value.kind) == (422, "invalid-body")
        assert refused.value.errors[0]["pointer"] == "/k"
        with pytest.raises(Refused) as unknown:
            clue.search(user_id="nobody")
        assert unknown.value.kind == "unknown-user"


def test_the_client_writes_reads_searches_and_deletes_a_user(url: str) -> None:
    cook = [{"service": "films", "text": "a pan"}, {"service": "films", "text": "bread"}]
    with Client(url) as clue:
        first = clue.upsert("ann/é?", cook, as_of=1.7e9)
        assert clue.append("ann/é?", [{"service": "news", "text": "late"}])["seq"] > first["seq"]
        user = clue.get("ann/é?")
        assert [event["text"] for event in user["events"]] == ["a pan", "bread", "late"]
        clue.append("bob", user["events"])  # who begins so
        np.testing.assert_allclose(clue.get("bob")["vector"], user["vector"], atol=1e-5)
        assert clue.similar(user_id="ann/é?", k=1)[0].id == "bob"
        clue.delete("ann/é?")
        assert "ann/é?" not in {hit.id for hit in clue.similar(user_id="bob", k=100)}
        with pytest.raises(Refused) as gone:
            clue.get("ann/é?")
        assert (gone.value.status, gone.value.kind) == (404, "unknown-user")
        clue.delete("bob")


def test_who_is_too_fast_is_answered_when_the_service_says(url: str) -> None:
    cook = [{"service": "films", "text": "a pan"}]
    with httpx.Client(base_url=url) as plain:
        fast = [
            plain.post("/v1/users/similar", json={"events": cook}).status_code for _ in range(20)
        ]
    assert fast.count(429) >= 4  # the same by a client that does not wait
    with Client(url) as clue:
        started = time.monotonic()
        assert all(len(clue.similar(events=cook, k=1)) == 1 for _ in range(10))
        assert time.monotonic() - started > 0.5
    with Client(url, attempts=1) as hasty, pytest.raises(Refused) as refused:
        for _ in range(20):
            hasty.similar(events=cook, k=1)
    assert (refused.value.status, refused.value.kind) == (429, "rate-limited")
    assert refused.value.retry_after is not None and refused.value.retry_after >= 1


def answering(*answers: tuple[int, dict[str, str]] | Exception) -> tuple[Client, list[float]]:
    """A client to whose attempts these are the answers, and the times of the attempts."""
    left, times = list(answers), list[float]()

    def handle(_: httpx.Request) -> httpx.Response:
        times.append(time.monotonic())
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        body: dict[str, Any] = {"type": "urn:clue:problem:queue-full", "detail": "later"}
        return httpx.Response(answer[0], headers=answer[1], json=body)

    return Client("http://x", transport=httpx.MockTransport(handle), attempts=3), times


def test_what_passes_is_tried_again_when_the_service_says() -> None:
    client, times = answering((429, {"retry-after": "1"}), httpx.ConnectError("no"), (200, {}))
    assert client.call("GET", "/")["detail"] == "later"
    assert len(times) == 3
    assert times[1] - times[0] >= 1


def test_what_does_not_pass_is_tried_once_and_nothing_for_ever() -> None:
    for status in (400, 401, 403, 404, 413, 422, 500, 507):
        client, times = answering((status, {}))
        with pytest.raises(Refused):
            client.call("GET", "/")
        assert len(times) == 1
    client, times = answering((504, {}))  # an append may be on the disk: twice it would count twice
    with pytest.raises(Refused):
        client.append("ann", [])
    assert len(times) == 1
    client, times = answering(httpx.ReadTimeout("slow"))
    with pytest.raises(httpx.ReadTimeout):
        client.append("ann", [])
    assert len(times) == 1
    client, times = answering((429, {}), httpx.ConnectError("no"), (200, {}))
    assert client.append("ann", [])["detail"] == "later"
    assert len(times) == 3
    client, times = answering(*[(503, {})] * 3)
    with pytest.raises(Refused) as refused:
        client.call("GET", "/")
    assert (len(times), refused.value.status) == (3, 503)
    client, times = answering(*[httpx.ReadTimeout("slow")] * 3)
    with pytest.raises(httpx.ReadTimeout):
        client.call("GET", "/")
    assert len(times) == 3
