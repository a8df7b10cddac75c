"""A known user's stored vector, beside an empty FastAPI route under the same uvicorn."""

import sys
from collections.abc import Mapping
from statistics import median

import httpx

from benchmarks.speed.report import claim
from benchmarks.speed.service import process
from benchmarks.speed.service.load import Load, Stream, request
from benchmarks.speed.service.process import Server, say
from benchmarks.speed.service.study import Study

CONNECTIONS = 32
USERS = 500
EMPTY = "an empty FastAPI route"
VECTOR = "GET /v1/users/{id}/vector"
OCTETS = "the same as octet-stream"
WHOLE = "GET /v1/users/{id}: events and vector"
CASE = "a stored user"
OCTET_STREAM = "application/octet-stream"


def measure(study: Study) -> None:
    """Add the rows and the claim; both servers run, and are loaded in turn."""
    command = [sys.executable, "-m", "benchmarks.speed.service.empty_route", "{port}"]
    store = str(study.root / "known")
    with (
        study.serving("known", store=store, rebuild_users=str(10**9)) as ours,
        process.running(command, {}, study.root / "empty.log", "/") as empty,
    ):
        compare(study, ours, empty)


def compare(study: Study, ours: Server, empty: Server) -> None:
    """Add the rows and the claim of our service, which has a store, and of an empty one."""
    ids = stored(study, ours, USERS)
    paths = [f"/v1/users/{one}/vector" for one in ids]
    arms: Mapping[str, tuple[Server, Stream]] = {
        EMPTY: (empty, _stream([request("GET", "/")])),
        VECTOR: (ours, _stream([request("GET", path) for path in paths])),
        OCTETS: (ours, _stream([request("GET", path, accept=OCTET_STREAM) for path in paths])),
        WHOLE: (ours, _stream([request("GET", f"/v1/users/{one}") for one in ids])),
    }
    rates: dict[str, list[float]] = {name: [] for name in arms}
    loads: dict[str, list[Load]] = {name: [] for name in arms}
    for number in range(study.rounds):
        for name, (server, stream) in arms.items():
            load = study.send(server, {"get": stream})
            answers = load.answers["get"]
            if answers.count(200) < len(answers.status):
                raise ValueError(f"{name}: {sorted(set(answers.status.tolist()))}")
            seconds = study.seconds
            rates[name].append(answers.rate(seconds / 10, seconds))
            loads[name].append(load)
        say(f"a stored user: round {number + 1} of {study.rounds} done")
    for name, made in loads.items():
        ratios = [a / b for a, b in zip(rates[name], rates[EMPTY], strict=True)]
        study.timed(CASE, name, made, "get", requests=rates[name], part=ratios)
    ratio = median(a / b for a, b in zip(rates[VECTOR], rates[EMPTY], strict=True))
    study.claims.append(
        claim("Requests/s for a stored vector, part of an empty route's", ratio, "at least", 0.6)
    )


def stored(study: Study, server: Server, count: int, name: str = "stored") -> list[str]:
    """Return the ids, `name` and a number, of that many users of the study, which are written."""
    ids = [f"{name}-{number}" for number in range(count)]
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for start in range(0, count, 50):
            users = [
                {"user_id": ids[n], "events": study.users[n % len(study.users)]}
                for n in range(start, min(start + 50, count))
            ]
            client.post("/v1/users/upsert", json={"users": users}).raise_for_status()
    return ids


def _stream(requests: list[bytes]) -> Stream:
    return Stream(requests=requests, connections=CONNECTIONS)
