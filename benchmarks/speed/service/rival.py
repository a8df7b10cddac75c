"""The same texts to infinity-emb, which serves a text model of the same size as ours."""

import json
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from statistics import median

import httpx

from benchmarks.external.environments import (
    INFINITY,
    ROOT,
    ArmFailed,
    RivalMissing,
    python_of,
)
from benchmarks.speed.report import Row, claim
from benchmarks.speed.service import process
from benchmarks.speed.service.load import Load, Stream, request
from benchmarks.speed.service.process import Server, say
from benchmarks.speed.service.study import Study
from clue.inference.source import find_source

CONNECTIONS = 64
TEXTS = 2048
SHARE = 0.6  # of the slower one's saturated rate: the common rate
OURS, THEIRS = "CLUE, /v1/embeddings", "infinity-emb 0.0.77, torch"


def measure(study: Study, server: Server) -> None:
    """Add the rows and claims; a rival that cannot be installed or started is "not measured"."""
    try:
        with _infinity(study) as theirs:
            _compare(study, {OURS: (server, "/v1/embeddings"), THEIRS: (theirs, "/embeddings")})
    except (RivalMissing, ArmFailed, RuntimeError) as error:
        note = str(error).strip().splitlines()[-1][:300]
        study.rows.append(Row(case="a text", arm=THEIRS, status="not measured", note=note))
        study.claims.append(claim("Requests/s, ours / infinity-emb", None, "at least", 1.5))


def _compare(study: Study, arms: Mapping[str, tuple[Server, str]]) -> None:
    texts = sorted({event["text"] for user in study.users for event in user})[:TEXTS]
    requests: dict[str, list[bytes]] = {}
    for name, (server, path) in arms.items():
        model = _check(server, path)
        bodies = [{"model": model, "input": t, "encoding_format": "base64"} for t in texts]
        requests[name] = [request("POST", path, body) for body in bodies]
    seconds = study.seconds
    full: dict[str, list[Load]] = {name: [] for name in arms}
    for number in range(study.rounds):
        for name, (server, _) in arms.items():
            stream = Stream(requests=requests[name], connections=CONNECTIONS)
            if number == 0:
                study.send(server, {"text": stream}, min(2.0, seconds))  # warms up
            full[name].append(study.send(server, {"text": stream}))
        say(f"beside infinity-emb: round {number + 1} of {study.rounds} done")
    rates = {
        name: [load.answers["text"].rate(seconds / 10, seconds) for load in loads]
        for name, loads in full.items()
    }
    _rows(study, "a text, saturated", full, rates)
    common = SHARE * min(map(median, rates.values()))
    level: dict[str, list[Load]] = {name: [] for name in arms}
    for _ in range(study.rounds):
        for name, (server, _) in arms.items():
            stream = Stream(requests=requests[name], rate=common)
            level[name].append(study.send(server, {"text": stream}))
    answered = {
        name: [load.answers["text"].count(200) / seconds for load in loads]
        for name, loads in level.items()
    }
    p99 = _rows(study, f"a text, {common:,.0f} requests/s", level, answered)
    ratios = [a / b for a, b in zip(rates[OURS], rates[THEIRS], strict=True)]
    later = [a / b for a, b in zip(p99[OURS], p99[THEIRS], strict=True)]
    study.claims.extend(
        [
            claim("Requests/s, ours / infinity-emb", median(ratios), "at least", 1.5),
            claim("p99 at a common rate, ours / infinity-emb", median(later), "at most", 1),
        ]
    )
    study.notes.append(
        "A text is one behaviour of one user to us, read by all blocks of the model; infinity-emb "
        "serves a transformer of the same width, heads and layers (those of the item and the user "
        "encoder together, at least one) with the same tokenizer and random weights."
    )


def _rows(
    study: Study, case: str, loads: Mapping[str, list[Load]], rates: Mapping[str, list[float]]
) -> dict[str, list[float]]:
    """Add the row of each arm, and return the p99 of its rounds in ms."""
    p99: dict[str, list[float]] = {}
    for name, made in loads.items():
        answers = [load.answers["text"] for load in made]
        p99[name] = [each.quantile_ms(0.99) for each in answers]
        errors = [len(each.status) - each.count(200) for each in answers]
        study.timed(case, name, made, "text", requests=rates[name], errors=errors)
    return p99


def _check(server: Server, path: str) -> str:
    """Return the model's name; ArmFailed where a text alone is not the same in a batch."""
    prefix = path.removesuffix("/embeddings")
    with httpx.Client(base_url=server.url, timeout=60) as client:
        model = str(client.get(f"{prefix}/models").json()["data"][0]["id"])
        one = client.post(path, json={"model": model, "input": "cast iron pan"})
        two = client.post(path, json={"model": model, "input": ["cast iron pan", "tea"]})
    vectors = [each.json()["data"][0]["embedding"] for each in (one, two)]
    gap = max(abs(a - b) for a, b in zip(*vectors, strict=True))
    if not gap <= 1e-4:
        raise ArmFailed(f"{path}: a text alone and in a batch differ by {gap:.1e}")
    return model


@contextmanager
def _infinity(study: Study) -> Generator[Server]:
    """Run infinity-emb on the server's core, with a text model of our model's size."""
    source = find_source(study.checkpoint)
    python, model = python_of(INFINITY), source.config.model
    spec = {
        "out": str(study.root / "rival"),
        "tokenizer": str(source.path / "tokenizer.json"),
        "width": model.item.width,
        "heads": model.item.heads,
        "layers": max(1, model.item.layers + model.user.layers),
        "max_tokens": source.corpus["max_item_tokens"],
    }
    words = ["-m", "benchmarks.speed.service.rival_model", json.dumps(spec)]
    done = subprocess.run(
        [str(python), "-W", "ignore", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ArmFailed(f"the rival's model: {done.stderr[-300:]}")
    command = [
        *(str(python.with_name("infinity_emb")), "v2", "--engine", "torch", "--device", "cpu"),
        *("--model-id", f"{spec['out']}/model", "--served-model-name", "rival"),
        # its authors' fast path for CPUs wants a part of optimum that is not there any more
        *("--no-bettertransformer", "--host", "127.0.0.1", "--port", "{port}"),
        *("--log-level", "warning", "--batch-size", str(CONNECTIONS)),
    ]
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    with process.running(command, quiet, study.root / "infinity.log", "/health") as server:
        yield server
