"""Embedding over HTTP beside the bare encoder, and one user alone beside the same in a batch."""

import base64
from collections.abc import Sequence
from concurrent.futures import Executor
from statistics import median

import numpy as np
import orjson

from benchmarks.speed.report import claim
from benchmarks.speed.service import bare
from benchmarks.speed.service.bare import Events
from benchmarks.speed.service.load import Load, Stream, request
from benchmarks.speed.service.process import Server, say
from benchmarks.speed.service.study import Study

BATCH = 32
TOGETHER = 4  # batches at once: the next one is parsed while one is encoded
AT_ONCE = 64  # single users
TOLERANCE = 1e-5
CASE = "embedding"

Rounds = dict[str, list[float]]  # a figure of each round, by arm


def measure(study: Study, server: Server, encoder: Executor) -> float:
    """Add the rows and claims, and return the peak: single-user requests a second, saturated.

    `encoder` is the bare encoder's process. Raises ValueError where the answers are not its own:
    then no time means anything.
    """
    check(study, server, encoder)
    seconds, users = study.seconds, study.users
    batches = batched(users)
    rates: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    loads: dict[str, list[Load]] = {}
    arms = {
        f"HTTP, batches of {BATCH}": (batches, TOGETHER, "base64"),
        f"HTTP, batches of {BATCH}, vectors as numbers": (batches, TOGETHER, "float"),
        "HTTP, one user a request": ([[user] for user in users], AT_ONCE, "base64"),
    }
    streams = {
        name: Stream(requests=embeds(work, form), connections=connections)
        for name, (work, connections, form) in arms.items()
    }
    for stream in streams.values():
        study.send(server, {"warm-up": stream}, min(1.0, seconds))
    for number in range(study.rounds):
        for name, work in (("bare, batches", batches), ("bare, single", [[u] for u in users])):
            rate, used = encoder.submit(bare.rate, work, seconds).result()
            rates.setdefault(name, []).append(rate)
            processor.setdefault(name, []).append(used)
        for name, stream in streams.items():
            used = server.processor()
            load = study.send(server, {"embed": stream})
            used = server.processor() - used
            answers = load.answers["embed"]
            if answers.count(200) < len(answers.status):
                raise ValueError(f"{name}: statuses {sorted(set(answers.status.tolist()))}")
            each = len(arms[name][0][0])
            # the first tenth fills the connections
            rates.setdefault(name, []).append(each * answers.rate(seconds / 10, seconds))
            processor.setdefault(name, []).append(1000 * used / (each * len(answers.status)))
            loads.setdefault(name, []).append(load)
        say(f"embedding: round {number + 1} of {study.rounds} done")
    _rows(study, rates, processor, loads)
    return median(rates["HTTP, one user a request"])


def _rows(study: Study, rates: Rounds, processor: Rounds, loads: dict[str, list[Load]]) -> None:
    whole = rates["bare, batches"]
    arms = {
        "bare, batches": f"bare encoder, batches of {BATCH}",
        "bare, single": "bare encoder, one user",
    }
    for name in rates:
        figures = {
            "users": rates[name],
            "part": parts(rates[name], whole),
            "processor": processor[name],
        }
        study.timed(CASE, arms.get(name, name), loads.get(name, []), "embed", **figures)
    for name, aim in ((f"HTTP, batches of {BATCH}", 0.9), ("HTTP, one user a request", 0.65)):
        ratio = median(parts(rates[name], whole))
        what = f"Users/s, {name}, part of the bare encoder's in batches of {BATCH}"
        study.claims.append(claim(what, ratio, "at least", aim))


def check(study: Study, server: Server, encoder: Executor) -> None:
    """Compare HTTP with the bare encoder, and a user alone with the same among any others."""
    some = study.users[: 2 * BATCH]
    truth = np.concatenate(encoder.submit(bare.vectors, batched(some)).result())
    together = np.concatenate([asked(study, server, batch) for batch in batched(some)])
    alone = np.concatenate([asked(study, server, [user]) for user in some])
    over_http = max(_gap(together, truth), _gap(alone, truth))
    if not over_http <= TOLERANCE:
        raise ValueError(f"HTTP and the bare encoder differ by {over_http:.1e}")
    study.claims.append(claim("|HTTP - bare encoder|, largest", over_http, "below", TOLERANCE))
    worst, checked = invariance(encoder, some)
    what = f"Batch invariance: |alone - in a batch|, largest of {checked} users and batches"
    study.claims.append(claim(what, worst, "below", TOLERANCE))


def invariance(encoder: Executor, users: Sequence[Events]) -> tuple[float, int]:
    """Return how far a user's vector alone is from that in batches of any size, company and place.

    And of how many users in batches that is the largest. Companions have histories of all lengths,
    from one event on.
    """
    draw = np.random.default_rng(0)
    cut = [user[-draw.integers(1, len(user) + 1) :] for user in users]
    alone = np.concatenate(encoder.submit(bare.vectors, [[user] for user in cut]).result())
    sizes = [size for size in (2, 3, 7, 16, 32, 64) if size <= len(cut)]
    chosen = [draw.permutation(len(cut))[:size] for size in sizes for _ in range(4)]
    made = encoder.submit(bare.vectors, [[cut[n] for n in batch] for batch in chosen]).result()
    gaps = [_gap(own, alone[batch]) for own, batch in zip(made, chosen, strict=True)]
    return max(gaps), sum(map(len, chosen))


def asked(study: Study, server: Server, users: Sequence[Events]) -> np.ndarray:
    """Return the vectors (n, E) that the server answers."""
    (content,) = embeds([users], "base64")
    stream = Stream(requests=[content], rate=10, connections=1, keep=1)
    (body,) = study.send(server, {"one": stream}, 0.1).answers["one"].bodies
    rows = orjson.loads(body)["data"]
    return np.stack([np.frombuffer(base64.b64decode(row["vector"]), "<f4") for row in rows])


def batched(users: Sequence[Events]) -> list[Sequence[Events]]:
    """Return users in whole batches; the rest, if it is no batch, is left out."""
    size = min(BATCH, len(users))
    return [users[n : n + size] for n in range(0, len(users) - size + 1, size)]


def embeds(batches: Sequence[Sequence[Events]], form: str, **headers: str) -> list[bytes]:
    """Return an embed request of each batch."""
    return [
        request(
            "POST",
            "/v1/users/embed",
            {"users": [{"events": user} for user in batch], "encoding_format": form},
            **headers,
        )
        for batch in batches
    ]


def parts(rates: Sequence[float], whole: Sequence[float]) -> list[float]:
    """Return what part of `whole` the rates are, round by round."""
    return [a / b for a, b in zip(rates, whole, strict=True)]


def _gap(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())
