"""Benchmark `prepare`: preparation of logs larger than memory, against two others' first step.

    python -m benchmarks.speed prepare [sizes=[10000000,50000000,200000000] folder=data/prepare]

A synthetic world of so many events, with an amount and a channel each, is streamed to Parquet, a
file for each two days; then `clue prepare` makes its corpus. Beside it stand what RecTools and
pytorch-lifestream do first, which hold the log in memory: RecTools numbers users and items
(`Dataset.construct`), pytorch-lifestream encodes and groups by user (its pandas preprocessor). All
may take `limit_gib` of memory and are ended beyond it. What fails at one size is not tried at a
larger one. The logs stay in `folder` until the benchmark ends, for one that was stopped goes on.
"""

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.external.environments import LIFESTREAM, RECTOOLS
from benchmarks.speed.interleave import Arm, Comparison, run
from benchmarks.speed.measure import memory, run_arm
from benchmarks.speed.report import Claim, Report, claim

OURS, THEIR_DATASET, THEIR_RECORDS = "CLUE", "RecTools", "pytorch-lifestream"
RIVALS = {THEIR_DATASET: RECTOOLS, THEIR_RECORDS: LIFESTREAM}
EVENTS_PER_USER = 51.0  # of a world with three services; the exact number is counted
EVENTS_PER_ITEM = 500  # of a service's items: the catalogue grows with the log
FILES = 90
GIB = 2**30
STAGES = {
    "read s": "reading",
    "number s": "numbering",
    "text s": "learning|encoding",
    "sort and write s": "writing histories",
}
NOTE = (
    "Memory is the peak of the whole process with all mapped files; disk is the peak of staged, of "
    "spilled rows and of the corpus together. RecTools and pytorch-lifestream read the same "
    "Parquet files with pandas; they check no rows, read no texts and leave their result in memory."
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Events of the logs, the memory of a process and DuckDB's part of it.

    The claims are on the largest of `sizes`, and on speed at the largest of at most 50 million.
    """

    sizes: tuple[int, ...] = (10_000_000, 50_000_000, 200_000_000)
    folder: Path = Path("data/prepare")
    limit_gib: float = 4.0
    memory_limit: str = "2GB"
    rivals: tuple[Literal["RecTools", "pytorch-lifestream"], ...] = (THEIR_DATASET, THEIR_RECORDS)
    rival_sizes: tuple[int, ...] = (1_000_000, 3_000_000)  # tried beside `sizes`, from small on
    keep_logs: bool = False
    threads: int = 2
    out: Path = Path("results/speed/prepare.json")

    def __post_init__(self) -> None:
        """Refuse a log without events."""
        if not self.sizes or min(*self.sizes, *self.rival_sizes) < 1000:
            raise ValueError(f"sizes {self.sizes}: give logs of at least 1000 events")


def measure(config: Config) -> Report:
    """Return a row for each size and arm; the claims are on memory, cost an event and speed."""
    comparison = Comparison(1)
    alive = list(config.rivals)
    for size in sorted({*config.sizes, *(config.rival_sizes if alive else ())}):
        arms = [_arm(config, OURS, size)] if size in config.sizes else []
        arms += [_arm(config, name, size) for name in alive]
        if not arms:
            continue
        log = _arm(config, "log", size)
        written = run(log, {})["figures"]
        sys.stderr.write(f"{size:,} events: {written['GB']:.2f} GB of Parquet\n")
        case = f"{size / 1e6:g} M events"
        comparison.run(case, arms, equal=False)
        measured = comparison.medians(case, "seconds")
        alive = [name for name in alive if name in measured]
        if not config.keep_logs and size != max(config.sizes):
            shutil.rmtree(_logs(config.folder, size))
    report = comparison.report(_claims(config, comparison), [NOTE])
    if not config.keep_logs:
        shutil.rmtree(config.folder)
    return report


def _claims(config: Config, comparison: Comparison) -> list[Claim]:
    cases = {size: f"{size / 1e6:g} M events" for size in sorted(config.sizes)}
    claims = [
        claim(
            f"Peak memory of the process, GiB, {case}",
            comparison.median(case, OURS, "peak GiB"),
            "at most",
            config.limit_gib,
        )
        for case in cases.values()
    ]
    fast = cases[max((s for s in cases if s <= 50_000_000), default=min(cases))]
    speed = comparison.median(fast, OURS, "M events/s")
    claims.append(claim(f"M events/s end to end on two cores, {fast}", speed, "at least", 1))
    first, last = min(cases), max(cases)
    costs = [comparison.median(cases[size], OURS, "us an event") for size in (first, last)]
    ratio = costs[1] / costs[0] if costs[0] and costs[1] else None
    what = f"Seconds an event at {cases[last]} over those at {cases[first]}"
    return [*claims, claim(what, ratio, "at most", 1.3)]


def _arm(config: Config, name: str, size: int) -> Arm:
    spec = {"impl": name, "size": size, "folder": str(config.folder), "threads": config.threads}
    spec |= {"device": "cpu", "memory_limit": config.memory_limit, "limit_gib": config.limit_gib}
    return Arm(name, "benchmarks.speed.prepare", spec, RIVALS.get(name))


def _logs(folder: Path, size: int) -> Path:
    return folder / f"logs-{size}"


def measure_arm(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the seconds, speed, peak memory and disk of one arm, or what the log took."""
    folder, size = Path(spec["folder"]), spec["size"]
    logs = _logs(folder, size)
    if spec["impl"] == "log":
        write_logs(logs, size)
        return {"figures": {"GB": _bytes(logs) / 1e9}}
    threading.Thread(target=keep_below, args=(spec["limit_gib"],), daemon=True).start()
    impl = {OURS: clue_prepare, THEIR_DATASET: rectools, THEIR_RECORDS: lifestream}[spec["impl"]]
    began, busy = time.perf_counter(), time.process_time()
    events, more = impl(logs, spec)
    seconds = time.perf_counter() - began
    figures = {
        "seconds": seconds,
        "M events/s": events / seconds / 1e6,
        "us an event": seconds / events * 1e6,
        "processor s": time.process_time() - busy,
        "peak GiB": memory("VmHWM") / GIB,
    }
    return {"figures": {**figures, **more}}


def keep_below(limit_gib: float) -> None:
    """End this process when its memory was above the limit, looked at ten times a second."""
    while memory("VmHWM") <= limit_gib * GIB:
        time.sleep(0.1)
    sys.stderr.write(f"its memory went beyond {limit_gib:g} GiB\n")
    sys.stderr.flush()
    os._exit(1)


def write_logs(logs: Path, size: int) -> None:
    """Write the world's log into `logs`, unless it is there."""
    from clue.synthetic.stream import write_stream
    from clue.synthetic.world import SyntheticConfig

    if logs.exists():
        return
    partial = logs.with_name(f".{logs.name}")
    shutil.rmtree(partial, ignore_errors=True)
    users, items = round(size / EVENTS_PER_USER), max(1200, size // EVENTS_PER_ITEM)
    world = SyntheticConfig(users=users, items_per_service=items, out=partial)
    write_stream(world, partial, min(FILES, max(1, size // 10_000)))
    partial.rename(logs)


def clue_prepare(logs: Path, spec: dict[str, Any]) -> tuple[int, dict[str, float]]:
    """Prepare the logs; return the events, and of the stages the seconds, and the disk."""
    from clue.data.corpus import Corpus
    from clue.data.ingest.prepare_config import FieldConfig, PrepareConfig, ServiceConfig
    from clue.data.ingest.progress import Progress
    from clue.prepare import prepare
    from clue.synthetic.world import SyntheticConfig

    lines: list[str] = []
    Progress.line = lambda self, text: lines.append(text)  # what it shows, kept
    out = logs.with_name(f"corpus-{spec['size']}")
    config = PrepareConfig(
        name="world",
        events=[str(logs / "events-*.parquet")],
        items=[str(logs / "items.parquet")],
        services={name: ServiceConfig(template="{title}") for name in SyntheticConfig().services},
        fields={
            "amount": FieldConfig(kind="numeric"),
            "channel": FieldConfig(kind="categorical"),
        },
        out=out,
        overwrite=True,
        memory_limit=spec["memory_limit"],
    )
    with disk_of(lambda: list(logs.parent.glob("*corpus-*"))) as peak:
        prepare(config)
    stages = [match for line in lines if (match := re.fullmatch(r"(.*): ([\d.]+) s", line))]
    figures = {
        name: sum(float(each[2]) for each in stages if re.match(start, each[1]))
        for name, start in STAGES.items()
    }
    events = sum(Corpus.open(out).manifest.num_events.values())
    figures |= {
        "disk GB": peak() / 1e9,
        "log GB": _bytes(logs) / 1e9,
        "corpus GB": _bytes(out) / 1e9,
    }
    shutil.rmtree(out)
    return events, figures


def rectools(logs: Path, spec: dict[str, Any]) -> tuple[int, dict[str, float]]:
    """Make RecTools' data set of the log, its users and items numbered; return the events."""
    import pandas as pd
    from rectools.dataset import Dataset  # pyright: ignore

    names = {"amount": "weight", "timestamp": "datetime"}
    log = _table(logs, ["user_id", "item_id", *names]).rename(columns=names)
    log["datetime"] = pd.to_datetime(log["datetime"], unit="s")
    data = Dataset.construct(log)
    return len(data.interactions.df), {}


def lifestream(logs: Path, spec: dict[str, Any]) -> tuple[int, dict[str, float]]:
    """Encode the log and group it by user as pytorch-lifestream does; return the events."""
    from ptls.preprocessing import PandasDataPreprocessor  # pyright: ignore

    log = _table(logs, ["user_id", "service", "item_id", "timestamp", "amount", "channel"])
    preprocessor = PandasDataPreprocessor(
        col_id="user_id",
        col_event_time="timestamp",
        event_time_transformation="none",
        cols_category=["service", "item_id", "channel"],
        cols_numerical=["amount"],
        return_records=True,
    )
    records = preprocessor.fit_transform(log)
    return sum(len(record["event_time"]) for record in records), {}


def _table(logs: Path, columns: list[str]) -> Any:
    """Return columns of the log as a pandas frame, its Arrow table let go on the way."""
    import pyarrow.dataset as ds

    files = [str(file) for file in sorted(logs.glob("events-*.parquet"))]
    return ds.dataset(files).to_table(columns=columns).to_pandas(self_destruct=True)


@contextmanager
def disk_of(paths: Callable[[], list[Path]]) -> Generator[Callable[[], int]]:
    """Look twice a second at the bytes below `paths`; yield what returns the most there were."""
    most, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.5):
            most[0] = max(most[0], sum(_bytes(path) for path in paths()))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: max(most[0], sum(_bytes(path) for path in paths()))
    finally:
        ended.set()
        thread.join()


def _bytes(path: Path) -> int:
    """Return the bytes on disk of a file or of all below a folder, which may vanish meanwhile."""
    total = 0
    for file in [path, *path.rglob("*")]:
        try:
            total += file.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


if __name__ == "__main__":
    run_arm(measure_arm)
