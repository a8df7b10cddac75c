import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from clue.inference.text_encoder import TextEncoder
from serving.client import Client, Refused
from serving.generation import read
from tests.conftest import TinyRun
from tests.serving.client import events_of, users_of
from tests.serving.test_server import Server, server

__all__ = ["server"]  # the fixture


def test_the_client_answers_as_python_does(
    server: Server, tiny_run: TinyRun, tiny_index: Path
) -> None:
    index = read(tiny_index)[1]
    users = users_of(index, 5, seed=3)
    with Client(server.url) as clue:
        made = clue.embed([events_of(user) for user in users])  # type: ignore[arg-type]
        truth = TextEncoder.load(tiny_run.run).encode(users)
        np.testing.assert_allclose(made.vectors, truth, atol=1e-5)
        name = index.user_ids[0].as_py()
        alike = clue.similar(user_id=name, k=5)
        assert len(alike) == 5 and name not in {hit.id for hit in alike}
        items = clue.search(vector=made.vectors[0], k=3, service=index.services[0])
        assert [hit.service for hit in items] == [index.services[0]] * 3
        assert items[0].score == max(hit.score for hit in items)
        with pytest.raises(Refused, match="/k") as refused:
            clue.similar(user_id=name, k=0)
        assert (refused.value.status, refused.value.kind) == (422, "invalid-body")
        with pytest.raises(Refused) as unknown:
            clue.search(user_id="nobody")
        assert unknown.value.kind == "unknown-user"


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
    client, times = answering(*[(503, {})] * 3)
    with pytest.raises(Refused) as refused:
        client.call("GET", "/")
    assert (len(times), refused.value.status) == (3, 503)
    client, times = answering(*[httpx.ReadTimeout("slow")] * 3)
    with pytest.raises(httpx.ReadTimeout):
        client.call("GET", "/")
    assert len(times) == 3
