"""A typed client of the service: retries what may be tried again, and waits as it is told to.

    with Client("http://localhost:8000", key="…") as clue:
        vectors = clue.embed([[{"service": "shop", "text": "cast iron pan"}]]).vectors

Times are seconds. What the service refuses is a `Refused` with its problem.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

# Too much waits, or a process ends or begins: the same request may be answered a moment later.
PASSING = (408, 429, 502, 503, 504)
# After these nothing was done: they alone let a request be repeated that would count twice.
UNDONE = (429, 503)
LONGEST_WAIT = 60.0

Event = Mapping[str, Any]


class Refused(Exception):
    """The service answered with a problem: its `status`, its `kind` and where the body is wrong."""

    def __init__(self, answer: httpx.Response) -> None:
        """Read the problem of `answer`; of what is none, such as a proxy's page, the status."""
        self.status = answer.status_code
        self.retry_after = _seconds(answer.headers.get("retry-after"))
        try:
            body = answer.json()
            self.kind = str(body["type"]).removeprefix("urn:clue:problem:")
            detail = str(body["detail"])
            self.errors: list[dict[str, str]] = body.get("errors") or []
        except (ValueError, KeyError, TypeError):
            self.kind, detail, self.errors = "unknown", answer.reason_phrase, []
        where = "".join(f"; {each['pointer']}: {each['detail']}" for each in self.errors)
        super().__init__(f"{self.status} {self.kind}: {detail}{where}")


@dataclass(frozen=True, eq=False)
class Embedded:
    """Vectors (n, E) float32, the columns of their blocks, and the model that made them."""

    vectors: np.ndarray
    blocks: dict[str, tuple[int, int]]
    model: str


@dataclass(frozen=True)
class Hit:
    """An item or a user, and how it fits."""

    id: str
    score: float
    service: str | None = None
    text: str | None = None


class Client:
    """Calls one service; safe to use from several threads."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 10.0,
        attempts: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`timeout` is that of one attempt, which the service is told too."""
        headers = {"x-request-timeout-ms": str(max(1, round(1000 * timeout)))}
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        # the service says itself that it was too slow, before the connection is given up
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=timeout + 1, transport=transport
        )
        self._attempts = attempts

    def __enter__(self) -> "Client":
        """Return the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close its connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def embed(
        self,
        users: Sequence[Sequence[Event]],
        *,
        as_of: float | None = None,
        blocks: Sequence[str] | None = None,
        dimensions: int | None = None,
    ) -> Embedded:
        """Return the vectors of users by their events, oldest first."""
        body = {
            "users": [{"events": list(events)} for events in users],
            "as_of": as_of,
            "blocks": None if blocks is None else list(blocks),
            "dimensions": dimensions,
            "encoding_format": "base64",
        }
        answer = self.call("POST", "/v1/users/embed", body)
        rows = [np.frombuffer(base64.b64decode(row["vector"]), "<f4") for row in answer["data"]]
        columns = {name: (start, stop) for name, (start, stop) in answer["blocks"].items()}
        return Embedded(np.stack(rows), columns, answer["model"])

    def upsert(self, user_id: str, events: Sequence[Event], **fields: Any) -> dict[str, Any]:
        """Store a user with these events; return what the service says of it."""
        return self.call("PUT", _of_user(user_id), {"events": list(events), **fields})

    def append(self, user_id: str, events: Sequence[Event], **fields: Any) -> dict[str, Any]:
        """Add events to a stored user, or begin their history with them.

        Not repeated where the first attempt may have been done: raises Refused 504 or
        httpx.TransportError then, and `get` shows whether it was.
        """
        body = {"events": list(events), **fields}
        return self.call("POST", f"{_of_user(user_id)}/events", body, once=True)

    def get(self, user_id: str) -> dict[str, Any]:
        """Return a stored user; raises Refused 404 where there is none."""
        return self.call("GET", _of_user(user_id))

    def delete(self, user_id: str) -> None:
        """Delete a stored user: history and vector."""
        self.call("DELETE", _of_user(user_id))

    def similar(self, *, k: int = 10, **target: Any) -> list[Hit]:
        """Return the users most like that of one of `user_id`, `events` and `vector`."""
        answer = self.call("POST", "/v1/users/similar", {"k": k, **_plain(target)})
        return [Hit(row["user_id"], row["score"]) for row in answer["data"]]

    def search(self, *, k: int = 10, **target: Any) -> list[Hit]:
        """Return the items that fit best; `target` is as the route's body."""
        answer = self.call("POST", "/v1/items/search", {"k": k, **_plain(target)})
        return [
            Hit(row["item_id"], row["score"], row["service"], row["text"]) for row in answer["data"]
        ]

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, once: bool = False
    ) -> Any:
        """Return the answer to a request of any route, None for an empty one.

        Tries again, up to `attempts` in all, what was refused for the moment and what did not
        arrive; with `once` only what was surely not done, as an append must. Raises Refused, or
        httpx.TransportError.
        """
        content = None
        if body is not None:
            content = {name: value for name, value in body.items() if value is not None}
        retrying = Retrying(
            stop=stop_after_attempt(self._attempts),
            retry=retry_if_exception(_undone if once else _passes),
            wait=_wait,
            reraise=True,
        )
        return retrying(self._once, method, path, content)

    def _once(self, method: str, path: str, content: Mapping[str, Any] | None) -> Any:
        answer = self._http.request(method, path, json=content)
        if answer.is_error:
            raise Refused(answer)
        return answer.json() if answer.content else None


def _of_user(user_id: str) -> str:
    return f"/v1/users/{quote(user_id, safe='')}"


def _plain(target: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in target.items()
    }


def _passes(error: BaseException) -> bool:
    if isinstance(error, Refused):
        return error.status in PASSING
    return isinstance(error, httpx.TransportError)


def _undone(error: BaseException) -> bool:
    if isinstance(error, Refused):
        return error.status in UNDONE
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


_backoff = wait_random_exponential(multiplier=0.1, max=10.0)


def _wait(state: RetryCallState) -> float:
    """Return how long to wait: what the service said, else ever longer, with chance in it."""
    error = state.outcome.exception() if state.outcome else None
    said = error.retry_after if isinstance(error, Refused) else None
    return _backoff(state) if said is None else min(said, LONGEST_WAIT)


def _seconds(header: str | None) -> float | None:
    """Return the seconds of a Retry-After; None of none, and of a date, which clocks differ on."""
    return float(header) if header is not None and header.isdigit() else None
