"""Search and writes while generations are built and taken up, beside the same without."""

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from statistics import median
from typing import Any

import httpx
import orjson
import psutil

from benchmarks.speed.report import claim
from benchmarks.speed.service import process
from benchmarks.speed.service.known import stored
from benchmarks.speed.service.load import Answers, Load, Stream, request
from benchmarks.speed.service.process import Server, say
from benchmarks.speed.service.study import Study

PROBES = 50  # users who are written once and have to be found by their own vector ever after
WRITTEN = 500  # before each round, so that a generation is built in it
CHURN = 1000  # users who are written again and again
K = 10
SHARES = {"search": 0.15, "similar": 0.15, "upsert": 0.1}  # of the peak
IDLE, BUSY = "no generation is built", "generations are built and taken up"
CASE = "search and upsert"
KEEP = 10**9


def measure(study: Study, peak: float) -> None:
    """Add the rows and claims; of two services, one builds generations. Loaded in turn."""
    with (
        _copy(study, "idle", rebuild_users=10**9) as idle,
        _copy(study, "busy", rebuild_users=50) as busy,
        moved(busy),
    ):
        loads: dict[str, list[Load]] = {IDLE: [], BUSY: []}
        plans = {
            name: (server, _streams(study, server, peak))
            for name, server in ((IDLE, idle), (BUSY, busy))
        }
        for number in range(study.rounds):
            for name, (server, streams) in plans.items():
                # a tenth of all users: from there on a generation is built
                stored(study, server, min(WRITTEN, len(study.users)), f"written in {number}")
                loads[name].append(study.send(server, streams, 2 * study.seconds))
            say(f"{CASE}: round {number + 1} of {study.rounds} done")
    generations: set[str] = set()
    mixed = errors = checked = 0
    for name, made in loads.items():
        for kind in SHARES:
            answers = [load.answers[kind] for load in made]
            wrong = [each.count(*range(201, 600)) + each.count(0) for each in answers]
            errors += sum(wrong)
            study.timed(
                f"{CASE}: {kind}",
                name,
                made,
                kind,
                requests=[each.count(200) / (2 * study.seconds) for each in answers],
                errors=wrong,
            )
        for load in made:
            found = check(load.answers["similar"])
            mixed, checked = mixed + found[0], checked + found[1]
            if name == BUSY:
                generations |= found[2]
    for kind in ("search", "upsert"):
        ratios = [
            b.answers[kind].quantile_ms(0.99) / a.answers[kind].quantile_ms(0.99)
            for a, b in zip(loads[IDLE], loads[BUSY], strict=True)
        ]
        what = f"p99 of {kind} while generations are built / without"
        study.claims.append(claim(what, median(ratios), "at most", 2))
    study.claims.extend(
        [
            claim("Errors of both", errors, "at most", 0),
            claim(f"Answers of {checked:,} that mix generations", mixed, "at most", 0),
            claim("Generations that answered", len(generations), "at least", 2),
        ]
    )
    study.notes.append(
        "A generation is built by a process beside the server, which has the load generator's core."
    )


def check(answers: Answers) -> tuple[int, int, set[str]]:
    """Return how many answers mix generations, of how many, and which generations answered.

    A probe was written once and is searched by its own vector: it is found once, of the base or of
    what was written since. In an answer of both it would stand twice, in one of neither not at all.
    """
    mixed = checked = 0
    generations: set[str] = set()
    for number, status, body in zip(
        answers.request.tolist(), answers.status.tolist(), answers.bodies, strict=True
    ):
        if status != 200:
            continue
        answer = orjson.loads(body)
        ids = [hit["user_id"] for hit in answer["data"]]
        checked += 1
        mixed += ids.count(f"stored-{number}") != 1 or len(set(ids)) < len(ids)
        generations.add(answer["index"])
    return mixed, checked, generations


def _streams(study: Study, server: Server, peak: float) -> dict[str, Stream]:
    """Write the probes, and return searches, searches for a probe, and writes of other users."""
    ids = stored(study, server, PROBES)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        known: list[dict[str, Any]] = [client.get(f"/v1/users/{one}").json() for one in ids]
    users = study.users
    search = [request("POST", "/v1/items/search", {"events": u, "k": K}) for u in users]
    similar = [
        request("POST", "/v1/users/similar", {"vector": one["vector"], "k": K}) for one in known
    ]
    upsert = [
        request("PUT", f"/v1/users/churn-{n}", {"events": users[(7 * n) % len(users)]})
        for n in range(CHURN)
    ]
    requests = {"search": (search, 0), "similar": (similar, KEEP), "upsert": (upsert, 0)}
    return {
        name: Stream(requests=made, rate=SHARES[name] * peak, keep=keep)
        for name, (made, keep) in requests.items()
    }


@contextmanager
def _copy(study: Study, name: str, rebuild_users: int) -> Generator[Server]:
    """Run a service over a copy of the index and a store of its own."""
    index = process.copied(study.index, study.root / f"index of {name}")
    store = str(study.root / f"store of {name}")
    with study.serving(name, index, store=store, rebuild_users=str(rebuild_users)) as server:
        yield server


@contextmanager
def moved(server: Server) -> Generator[None]:
    """Give what the server starts the load generator's core meanwhile."""
    stop = threading.Event()

    def move() -> None:
        _, other = process.cores()
        while not stop.wait(0.05):
            with suppress(psutil.Error):
                for child in psutil.Process(server.pid).children():
                    child.cpu_affinity([other])

    thread = threading.Thread(target=move, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
