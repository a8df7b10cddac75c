"""Benchmark `soak`: mixed load for half an hour; does memory, or anything else, grow?

    python -m benchmarks.speed soak checkpoint=runs/demo index=indexes/demo minutes=30

Embed, search, similar, read, upsert and delete at 70 % of what the service answers of this mix at
most, over a population that does not grow, while generations are built as they come. Figures are of
each minute, and slopes are fitted after the warm-up.
"""

import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import PositiveFloat, PositiveInt

from benchmarks.report.charts import Line, Panel, line_panels, save
from benchmarks.speed.report import Claim, Report, Row, Spread, claim
from benchmarks.speed.service import bare, process
from benchmarks.speed.service.known import stored
from benchmarks.speed.service.load import Answers, Load, Stream, request
from benchmarks.speed.service.process import Server, say
from benchmarks.speed.service.study import Study

SHARES = {"embed": 50, "search": 20, "similar": 10, "get": 10, "upsert": 7, "delete": 3}
POPULATION = 500  # stored users: written anew, read and deleted in turn
PROBE_SECONDS = 10.0  # of the search for the most that is answered
CONNECTIONS = 64
SAMPLE_SECONDS = 5.0
MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which model and index, for how many `minutes`, of which `warm_up` are left out of the fits.

    `load` is the share of the most that is answered, `users` and `events` are as for `serve`.
    """

    checkpoint: Path
    index: Path
    minutes: PositiveFloat = 30.0
    warm_up: PositiveFloat = 5.0
    load: PositiveFloat = 0.7
    users: PositiveInt = 1024
    events: PositiveInt = 50
    out: Path = Path("results/speed/soak.json")

    def __post_init__(self) -> None:
        """Refuse a warm-up that leaves nothing to fit."""
        if self.warm_up >= self.minutes:
            raise ValueError(f"warm_up {self.warm_up} is not below minutes {self.minutes}")


@dataclass
class Samples:
    """What the server held, by minutes since the load began."""

    minutes: list[float] = field(default_factory=list[float])
    memory: list[float] = field(default_factory=list[float])
    descriptors: list[float] = field(default_factory=list[float])


def measure(config: Config) -> Report:
    """Return the rows and claims; the figure is saved beside the report."""
    with (
        tempfile.TemporaryDirectory(prefix="clue-soak-") as folder,
        process.worker(process.cores()[1]) as generator,
    ):
        study = Study(
            checkpoint=config.checkpoint,
            index=config.index,
            seconds=60 * config.minutes,
            rounds=1,
            root=Path(folder),
            users=bare.users_of(config.index, config.users, events=config.events),
            generator=generator,
        )
        index = process.copied(config.index, study.root / "index")
        with study.serving("soak", index, store=str(study.root / "store")) as server:
            return soaked(config, study, server)


def soaked(config: Config, study: Study, server: Server) -> Report:
    """Return the rows and claims of a server that has a store, and save the figure."""
    stored(study, server, min(POPULATION, len(study.users)))
    requests = mixed(study)
    probe = {"mix": Stream(requests=requests, connections=CONNECTIONS)}
    peak = answered(
        study.send(server, probe, min(PROBE_SECONDS, 60 * config.warm_up)).answers["mix"]
    )
    rate = config.load * peak
    say(f"{peak:,.0f} requests/s at most; {config.minutes:g} minutes of {rate:,.0f}")
    with sampled(server) as samples:
        load = study.send(server, {"mix": Stream(requests=requests, rate=rate)})
    answers = load.answers["mix"]
    config.out.parent.mkdir(parents=True, exist_ok=True)
    save(line_panels(panels(samples, answers), columns=3), config.out.with_suffix(".svg"))
    shares = ", ".join(f"{share} % {kind}" for kind, share in SHARES.items())
    return Report(
        rows=rows(config, samples, load),
        claims=claims(config, samples, answers),
        notes=[
            f"{config.load:.0%} of {peak:,.0f} requests/s, the most that was answered: {shares}; "
            f"{POPULATION} stored users. A user who is deleted is written again later, and until "
            "then a read or another deletion of them is answered 404.",
            "Descriptors are those beside the connections of clients.",
        ],
    )


def mixed(study: Study) -> list[bytes]:
    """Return 10,000 requests of all kinds by their shares, in random order."""
    draw = np.random.default_rng(0)
    kinds = draw.choice(list(SHARES), 10_000, p=np.array([*SHARES.values()]) / 100)
    return [_request(kind, draw, study) for kind in kinds.tolist()]


def _request(kind: str, draw: np.random.Generator, study: Study) -> bytes:
    events = study.users[int(draw.integers(len(study.users)))]
    path = f"/v1/users/stored-{draw.integers(min(POPULATION, len(study.users)))}"
    match kind:
        case "embed":
            body = {"users": [{"events": events}], "encoding_format": "base64"}
            return request("POST", "/v1/users/embed", body)
        case "search":
            return request("POST", "/v1/items/search", {"events": events})
        case "similar":
            return request("POST", "/v1/users/similar", {"events": events})
        case "upsert":
            return request("PUT", path, {"events": events})
        case "get":
            return request("GET", path)
        case _:
            return request("DELETE", path)


def answered(answers: Answers) -> float:
    """Return the answers a second, of those 200 and 404."""
    good = np.isin(answers.status, (200, 404))
    return float(good.sum() / (answers.due + answers.seconds)[good].max())


@contextmanager
def sampled(server: Server) -> Generator[Samples]:
    """Watch the server's memory and descriptors meanwhile."""
    samples, stop, began = Samples(), threading.Event(), time.monotonic()

    def watch() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            samples.minutes.append((time.monotonic() - began) / 60)
            samples.memory.append(server.memory() / MB)
            samples.descriptors.append(server.descriptors())
            if len(samples.minutes) % 60 == 0:
                say(f"{samples.minutes[-1]:.0f} minutes: {samples.memory[-1]:,.0f} MB")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def slope(minutes: Sequence[float], values: Sequence[float], after: float) -> float:
    """Return how much `values` grow in ten minutes, by least squares over those `after` minutes."""
    late = np.array(minutes) > after
    if late.sum() < 3:
        raise ValueError(f"{late.sum()} samples after {after:g} minutes; give more minutes")
    fitted = np.polyfit(np.array(minutes)[late], np.array(values)[late], 1)
    return float(10 * fitted[0])


def least_by_minute(
    minutes: Sequence[float], values: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Return the middles of the minutes and the least of `values` in each; of a run below ten
    minutes, of each tenth.

    The service gives freed memory back once a minute: what is held just before tells nothing.
    """
    width = min(1.0, max(minutes) / 10)
    part = (np.array(minutes) / width).astype(int)
    numbers = np.unique(part)
    least = [float(np.array(values)[part == number].min()) for number in numbers]
    return (width * (numbers + 0.5)).tolist(), least


def by_minute(answers: Answers, share: float) -> tuple[list[float], list[float]]:
    """Return the middles of the minutes and the time in ms that a share took at most in each."""
    good = np.isin(answers.status, (200, 404))
    minute = (answers.due[good] // 60).astype(int)
    took = 1000 * answers.seconds[good]
    numbers = np.unique(minute)
    times = [float(np.quantile(took[minute == number], share)) for number in numbers]
    return (numbers + 0.5).tolist(), times


def rows(config: Config, samples: Samples, load: Load) -> list[Row]:
    """Return a row for each third of the time after the warm-up."""
    answers = load.answers["mix"]
    ends = np.linspace(config.warm_up, config.minutes, 4)
    made: list[Row] = []
    for start, stop in zip(ends[:-1], ends[1:], strict=True):
        within = (answers.due >= 60 * start) & (answers.due < 60 * stop)
        good = within & np.isin(answers.status, (200, 404))
        held = [n for n, minute in enumerate(samples.minutes) if start <= minute < stop]
        took = 1000 * answers.seconds[good]
        figures = {
            "requests/s": [float(good.sum()) / (60 * (stop - start))],
            "p50 ms": [float(np.median(took))],
            "p99 ms": [float(np.quantile(took, 0.99))],
            "errors": [float((within & ~good).sum())],
            "RSS MB": [samples.memory[n] for n in held],
            "descriptors": [samples.descriptors[n] for n in held],
            "generator busy": [load.busy],
        }
        spreads = {name: Spread.of(values) for name, values in figures.items() if values}
        made.append(Row(case=f"minutes {start:.3g} to {stop:.3g}", arm="CLUE", figures=spreads))
    return made


def claims(config: Config, samples: Samples, answers: Answers) -> list[Claim]:
    """Return what is aimed at."""
    grown = slope(*least_by_minute(samples.minutes, samples.memory), config.warm_up)
    more = slope(samples.minutes, samples.descriptors, config.warm_up)
    third = (config.minutes - config.warm_up) / 3
    good = np.isin(answers.status, (200, 404))
    first, last = (
        np.quantile(answers.seconds[good & (answers.due >= 60 * a) & (answers.due < 60 * b)], 0.99)
        for a, b in (
            (config.warm_up, config.warm_up + third),
            (config.minutes - third, config.minutes),
        )
    )
    errors = len(answers.status) - answers.count(200, 404)
    return [
        claim("Memory, the least of each minute, MB more in ten", grown, "below", 1),
        claim("Descriptors, more in ten minutes", round(more, 2), "at most", 0.5),
        claim("p99 of the last third / of the first", float(last / first), "at most", 1.1),
        claim(f"Errors of {len(answers.status):,} requests", errors, "at most", 0),
    ]


def panels(samples: Samples, answers: Answers) -> list[Panel]:
    """Return memory, descriptors and times over the minutes."""
    times = [Line(name, *by_minute(answers, q)) for name, q in (("p50", 0.5), ("p99", 0.99))]
    minutes = samples.minutes
    return [
        Panel([Line("RSS", minutes, samples.memory)], x_label="minutes", y_label="RSS, MB"),
        Panel(
            [Line("descriptors", minutes, samples.descriptors)],
            x_label="minutes",
            y_label="descriptors",
        ),
        Panel(times, x_label="minutes", y_label="ms"),
    ]
