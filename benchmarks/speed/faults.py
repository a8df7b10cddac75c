"""The service killed at random moments, and its files damaged: what is lost, and what is served.

    python -m benchmarks.speed faults checkpoint=runs/demo index=indexes/demo

A real server process takes upserts from several threads and builds generations as it goes; it and
what it started are killed with SIGKILL and started again. What it had acknowledged since the start
before is asked for each time, and at the end all that it ever had. Then single bits are flipped and
files cut short, one copy at a time. kill -9 does not test a loss of power: what the kernel held is
written all the same.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from benchmarks.speed.report import Report, Row, Spread, claim
from benchmarks.speed.service import process

WRITERS = 4
USERS = (
    300  # of each writer: enough that a tenth of the demo's users change, and generations follow
)
AGAIN = 30  # users asked for after each start of whom nothing was written since the last
AT_ONCE = 40  # damaged copies in one process: a start of Python costs more than a check


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which model and index, how often. `load_seconds` is the longest between start and kill."""

    checkpoint: Path
    index: Path
    kills: int = 200
    flips: int = 1000
    load_seconds: float = 2.0
    seed: int = 0
    out: Path = Path("results/speed/faults.json")


@dataclass
class Acknowledged:
    """By user, the number in the last write that was acknowledged and in the last one sent.

    `since` are those written to since all that is known of them was asked for.
    """

    last: dict[str, int] = field(default_factory=dict[str, int])
    sent: dict[str, int] = field(default_factory=dict[str, int])
    since: set[str] = field(default_factory=set[str])


def measure(config: Config) -> Report:
    """Return the rows and claims of all three parts."""
    with tempfile.TemporaryDirectory(prefix="clue-faults-") as folder:
        root = Path(folder)
        shutil.copytree(config.index, root / "index")
        killed = kill_often(config, root)
        damaged = damage(config, root)
    spreads = killed.pop("spreads")
    figures = {**spreads, **{name: Spread.of([value]) for name, value in killed.items()}}
    rows = [
        Row(case="kill -9 under upserts and publishing", arm="CLUE", figures=figures),
        *(
            Row(case=case, arm="CLUE", figures={k: Spread.of([v]) for k, v in counts.items()})
            for case, counts in damaged.items()
        ),
    ]
    served = sum(counts["served otherwise"] for counts in damaged.values())
    return Report(
        rows=rows,
        claims=[
            claim("acknowledged writes lost", killed["lost"], "at most", 0),
            claim("reopenings that failed", killed["failed reopenings"], "at most", 0),
            claim("damaged copies served otherwise than written", served, "at most", 0),
            claim("second services refused", killed["second services refused"], "at least", 1),
            claim("generations published", killed["generations published"], "at least", 1),
        ],
        notes=[
            "Harmless: the damage lies in bytes that hold nothing (free pages of SQLite, a page "
            "that its log has anew), and all users and vectors are as they were written.",
        ],
    )


@contextmanager
def serving(config: Config, root: Path, rebuild_users: int) -> Generator[tuple[str, float]]:
    """Run a server over `root`: its address once it is ready, and the seconds until it was."""
    begun = time.monotonic()
    settings = {"store": str(root / "store"), "rebuild_users": str(rebuild_users)}
    command, environment = process.of_clue(
        config.checkpoint, root / "index", **settings, queue_size="64"
    )
    with process.running(command, environment, root / "log", pinned=False) as server:
        yield server.url, time.monotonic() - begun


def kill_often(config: Config, root: Path) -> dict[str, Any]:
    """Kill the server `kills` times under load; count what was acknowledged and is not there."""
    rng = random.Random(config.seed)
    known = Acknowledged()
    lost = failed = generations = refused = 0
    ready: list[float] = []
    verified: list[float] = []
    for number in tqdm(range(config.kills + 1), desc="kill -9", unit="start"):
        try:
            with serving(config, root, rebuild_users=20) as (url, seconds):
                ready.append(seconds)
                verified.append(_gauge(url, "clue_store_recovery_seconds"))
                own = rng.sample(sorted(known.last), min(AGAIN, len(known.last)))
                everybody = number == config.kills
                lost += _lost(url, known, known.last if everybody else {*own, *known.since})
                if number < config.kills:
                    _load(url, known, rng.uniform(0.05, config.load_seconds), number)
                else:
                    refused = second_process(config, root)
        except RuntimeError as error:
            sys.stderr.write(f"kill {number}: {error}\n")
            failed += 1
        generations = max(generations, _generation(root / "index"))
    return {
        "kills": config.kills,
        "acknowledged": sum(known.last.values()),
        "lost": lost,
        "failed reopenings": failed,
        "generations published": generations - 1,
        "second services refused": refused,
        "spreads": {
            "start to ready s": Spread.of(ready),
            "of that, the store verified s": Spread.of(verified),
        },
    }


def _load(url: str, known: Acknowledged, seconds: float, number: int) -> None:
    """Write from several threads until the time is over: the kill comes while they do.

    The time begins with the first acknowledgement, however slow the machine is.
    """
    stop, begun = threading.Event(), threading.Event()

    def work(thread: int) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            turn = 37 * number
            while not stop.is_set():
                user_id = f"user {thread} {turn % USERS}"
                known.since.add(user_id)
                version = known.sent[user_id] = known.sent.get(user_id, 0) + 1
                try:
                    answer = client.put(f"/v1/users/{user_id}", json=_body(version))
                except httpx.HTTPError:
                    return
                if answer.status_code == 200:
                    known.last[user_id] = version
                    begun.set()
                turn += 1

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    begun.wait(process.START_SECONDS)
    time.sleep(seconds)
    stop.set()  # those in flight may still be acknowledged, or cut off by the kill


def _body(version: int) -> dict[str, Any]:
    return {"events": [{"service": "shop", "text": f"a thing of version {version}"}]}


def _lost(url: str, known: Acknowledged, user_ids: Iterable[str]) -> int:
    """Return of how many users the acknowledged write is not there; a later one sent may be."""
    lost = 0
    with httpx.Client(base_url=url, timeout=30) as client:
        for user_id in sorted(set(user_ids) & known.last.keys()):
            version = known.last[user_id]
            answer = client.get(f"/v1/users/{user_id}")
            if answer.status_code != 200:
                lost += 1
                continue
            text: str = answer.json()["events"][0]["text"]
            stands = int(text.rpartition(" ")[2])
            lost += not version <= stands <= known.sent[user_id]
            known.last[user_id] = known.sent[user_id] = stands
        known.since.clear()
        for user_id in list(known.last)[:3]:  # and whoever is there is searched
            body = {"user_id": user_id, "k": 5}
            hits = client.post("/v1/users/similar", json=body).json()["data"]
            ids = [hit["user_id"] for hit in hits]
            lost += len(set(ids)) != len(ids) or user_id in ids
    return lost


def _gauge(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def _generation(index: Path) -> int:
    return int((index / "CURRENT").read_text(encoding="ascii").partition("-")[0])


def second_process(config: Config, root: Path) -> int:
    """Return 1 where a second service on the store that is served is refused with a reason."""
    other = root / "other"
    other.mkdir()
    (other / "index").symlink_to(root / "index")
    (other / "store").symlink_to(root / "store")
    try:
        with serving(config, other, rebuild_users=10**6):
            return 0
    except RuntimeError as refusal:
        return int("another service holds this store" in str(refusal))


def damage(config: Config, root: Path) -> dict[str, dict[str, int]]:
    """Flip bits and cut files of copies, and return what became of them, by kind of file."""
    rng = random.Random(config.seed)
    counts: dict[str, dict[str, int]] = {}
    wanted = round(config.flips / 2)
    for kind in ("index", "store"):
        outcome = {"damaged": 0, "detected": 0, "harmless": 0, "served otherwise": 0}
        for first in tqdm(range(0, wanted, AT_ONCE), desc=f"damage, {kind}", unit="process"):
            left = wanted - first
            copies = [_damaged(root / kind, root / f"{n}", rng) for n in range(min(AT_ONCE, left))]
            whole, *verdicts = _verified(kind, [root / kind, *copies])
            for verdict in verdicts:
                outcome["damaged"] += 1
                if verdict["fault"] is not None:
                    outcome["detected"] += 1
                elif verdict["contents"] == whole["contents"]:
                    outcome["harmless"] += 1
                else:
                    outcome["served otherwise"] += 1
            for copy in copies:
                shutil.rmtree(copy)
        counts[f"bits flipped, files cut: {kind}"] = outcome
    return counts


def _damaged(source: Path, copy: Path, rng: random.Random) -> Path:
    """Return a copy of what is read, with one file damaged: three in four by a bit, else cut."""
    copy.mkdir()
    files = [p for p in source.rglob("*") if p.is_file() and not p.name.startswith(".")]
    served = (source / "CURRENT").read_text() if (source / "CURRENT").exists() else ""
    files = [p for p in files if p.parent == source or p.parent.name == served]
    for file in files:
        beside = copy / file.relative_to(source)
        beside.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, beside)
    file = copy / rng.choice([p for p in files if p.stat().st_size]).relative_to(source)
    blob = bytearray(file.read_bytes())
    if rng.random() < 0.75:
        blob[rng.randrange(len(blob))] ^= 1 << rng.randrange(8)
    else:
        del blob[rng.randrange(len(blob)) :]
    file.write_bytes(blob)
    return copy


def _verified(kind: str, paths: list[Path]) -> list[Mapping[str, str | None]]:
    """Return what `serving.verify` says of each path."""
    names = {"index": "indexes", "store": "stores"}
    command = [sys.executable, "-m", "serving.verify"]
    command.append(f"{names[kind]}={json.dumps([str(path) for path in paths])}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    if len(verdicts) != len(paths):
        raise RuntimeError(done.stderr)
    return verdicts
