"""Command: what many users cost in machines and hours, from the measured rates and a fitted law.

    python -m benchmarks.report.sizing index=indexes/demo

Reads the results of the benchmarks of speed and of a scaling study, writes users into a store to
see what they take there, and writes results/sizing.json, from which docs/sizing.md is made.
"""

import json
import math
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.json_files import write_json
from benchmarks.metrics.format import markdown as table
from benchmarks.scaling.fit.isoflop import Cost, optima
from benchmarks.scaling.fit.run_table import read_runs
from benchmarks.scaling.fit.study import FitConfig, laws_of
from benchmarks.speed.report import Report, read_report
from clue.config import run_command

HOUR = 3600.0
GIB = 2.0**30
WRITTEN = 2000  # users that are written into a store
USABLE = 0.8  # of a machine's memory
BUDGETS = np.logspace(9, 27, 361)  # FLOPs among which the data's optimum is looked for


@dataclass(frozen=True, kw_only=True)
class SizingConfig:
    """For how many users, of so many events each and over so many items, on which machines.

    `cores` and `memory_gib` are those of a machine to rent, taken to do `cores` times what one core
    was measured to do; `gpu_flops` is what a GPU is taken to train at, for none was measured.
    `index` is a generation whose widths and identifiers are taken.
    """

    index: Path
    users: tuple[int, ...] = (10_000_000, 100_000_000, 1_000_000_000)
    events: int = 50
    items: int = 10_000_000
    cores: int = 32
    memory_gib: float = 256.0
    gpu_flops: float = 1e14
    study: str = "synthetic_bag"
    min_decades: float = 2.3
    results: Path = Path("results")
    out: Path = Path("results/sizing.json")


@dataclass(frozen=True)
class Rates:
    """What was measured: per second and core, or bytes of each."""

    events_prepared: float
    corpus_bytes_an_event: float
    flops_trained: float
    events_embedded: float
    lookups: float
    users_embedded_by_http: float
    index_bytes_a_user: float
    index_bytes_an_item: float
    store_bytes_a_user: float


@dataclass(frozen=True)
class Training:
    """The compute-optimal run that reads a pair of each user: 80 % of the resamples in brackets."""

    flops: float
    params: float
    params_low80: float
    params_high80: float


def sizing(config: SizingConfig) -> dict[str, Any]:
    """Return the rates, the law's run and the costs for each number of users, and write them.

    Raises FileNotFoundError where a benchmark has not been run.
    """
    rates = measured(config)
    trainings = trainings_of(config)
    content = {
        "config": {**asdict(config), "index": config.index.name},
        "rates": rates,
        "training": [{"users": users, **asdict(each)} for users, each in trainings.items()],
        "costs": [costs(config, rates, users, each) for users, each in trainings.items()],
    }
    return write_json(config.out, content)


def measured(config: SizingConfig) -> Rates:
    """Return the rates of the reports, and the bytes of the index and of a store."""
    speed = config.results / "speed"
    prepare, embed, serve, step = (
        read_report(speed / f"{name}.json") for name in ("prepare", "embed", "serve", "step")
    )
    cases = [row.case for row in prepare.rows if row.arm == "CLUE" and row.status == "measured"]
    prepared = figures(prepare, cases[-1], "CLUE")  # the largest
    prepared_events = 1e6 * float(cases[-1].split()[0])  # 200 M events
    users, events = numbers_of(embed.notes[0])
    a_user, an_item = index_bytes(config.index, read_report(speed / "retrieve.json"))
    return Rates(
        events_prepared=1e6 * prepared["M events/s"] / prepare.config["threads"],
        corpus_bytes_an_event=1e9 * prepared["corpus GB"] / prepared_events,
        flops_trained=1e12 * figures(step, "Zipf", "ours")["useful TFLOP/s"],
        events_embedded=figures(embed, "users", "universal")["users/s"] * events / users,
        lookups=figures(serve, "a stored user", "GET /v1/users/{id}/vector")["requests/s"],
        users_embedded_by_http=figures(serve, "embedding", "HTTP, batches of 32")["users/s"],
        index_bytes_a_user=a_user,
        index_bytes_an_item=an_item,
        store_bytes_a_user=store_bytes(config),
    )


def figures(report: Report, case: str, arm: str) -> dict[str, float]:
    """Return the medians of one row; ValueError where the report has no such row."""
    for row in report.rows:
        if (row.case, row.arm) == (case, arm):
            return {name: spread.median for name, spread in row.figures.items()}
    raise ValueError(f"{report.name} has no row {arm!r} of {case!r}; run it again")


def numbers_of(note: str) -> list[int]:
    """Return the whole numbers of a note, in order: `1,024 users, 16,296 events.`"""
    words = (word.replace(",", "") for word in note.rstrip(".").split())
    return [int(word) for word in words if word.isdigit()]


def index_bytes(index: Path, retrieve: Report) -> tuple[float, float]:
    """Return the memory of a user and of an item: their arrays, and an IVF over their vectors."""
    from serving.generation import current, read

    contents = read(index, current(index))[1]
    rows = {"user": len(contents.user_ids), "item": len(contents.item_ids)}
    held = {"user": contents.user_ids.nbytes, "item": contents.item_ids.nbytes}
    held["item"] += contents.item_texts.nbytes
    for name, value in vars(contents).items():
        if isinstance(value, np.ndarray):
            held["item" if name.startswith("item") else "user"] += value.nbytes
    ivf = next(row for row in retrieve.rows if row.arm.startswith("ours, ivf"))
    count, width = numbers_of(ivf.case.replace("generated", "").replace(", width", ""))[:2]
    beside = 1e6 * ivf.figures["MB beside the vectors"].median / count / width  # a coordinate
    widths = {"user": contents.user_vectors.shape[1], "item": contents.item_vectors.shape[1]}
    user, item = (held[kind] / rows[kind] + beside * widths[kind] for kind in ("user", "item"))
    return user, item


def store_bytes(config: SizingConfig) -> float:
    """Return what a stored user takes on disk: events with their texts, and the whole vector."""
    from serving.generation import current, read
    from serving.histories import to_bytes
    from serving.schemas import Event
    from serving.store import FILE, Store
    from serving.writes import Upsert

    contents = read(config.index, current(config.index))[1]
    draw = np.random.default_rng(0)
    blocks = contents.item_blocks
    width = (contents.user_vectors if blocks is None else blocks).shape[1]

    def history() -> bytes:
        items = draw.integers(len(contents.item_ids), size=config.events)
        events = [
            Event(
                service=contents.services[contents.item_service[item]],
                text=contents.item_texts[int(item)].as_py(),
                time=1.7e9 + 1000.0 * number,
            )
            for number, item in enumerate(items)
        ]
        return to_bytes(events)

    with tempfile.TemporaryDirectory(prefix="clue-sizing-") as folder:
        store = Store(Path(folder) / "store")
        for number in range(WRITTEN):
            vector = draw.standard_normal(width).astype(np.float32)
            one = Upsert(
                user_id=f"user {number:012d}",
                events=history(),
                as_of=None,
                model="m" * 64,
                vector=vector,
            )
            store.submit([one]).result()
        store.close()
        return (Path(folder) / "store" / FILE).stat().st_size / WRITTEN


def trainings_of(config: SizingConfig) -> dict[int, Training]:
    """Return, by users, the compute-optimal run of one pair a user by the surface of the study.

    Raises ValueError where no budget of the law's optimum reads so many.
    """
    table = config.results / "scaling" / config.study / "runs.parquet"
    fit = FitConfig(table=table, min_decades=config.min_decades)
    laws = laws_of(fit, read_runs(table), ("surface",))
    sample, surface = laws.sample("surface"), laws["surface"]
    cost = Cost.of(sample.flops, *sample.x.T)
    data = np.array([band.value for band in optima(surface, cost, BUDGETS).data])
    for users in config.users:
        if not data[0] <= users <= data[-1]:
            raise ValueError(
                f"{users:,} users are outside the law's {data[0]:.3g} to {data[-1]:.3g}"
            )
    flops = np.exp(np.interp(np.log(config.users), np.log(data), np.log(BUDGETS)))
    sizes = optima(surface, cost, flops).size
    return {
        users: Training(float(spent), size.value, size.low80, size.high80)
        for users, spent, size in zip(config.users, flops, sizes, strict=True)
    }


def costs(config: SizingConfig, rates: Rates, users: int, run: Training) -> dict[str, float]:
    """Return hours of one machine and of a GPU, bytes, and how many machines hold the index."""
    events = users * config.events
    memory = users * rates.index_bytes_a_user + config.items * rates.index_bytes_an_item
    machine = config.cores * HOUR
    return {
        "users": users,
        "events": events,
        "corpus_gib": events * rates.corpus_bytes_an_event / GIB,
        "prepare_hours": events / rates.events_prepared / machine,
        "train_hours": run.flops / rates.flops_trained / machine,
        "train_gpu_hours": run.flops / config.gpu_flops / HOUR,
        "embed_hours": events / rates.events_embedded / machine,
        "index_gib": memory / GIB,
        "index_machines": math.ceil(memory / GIB / (USABLE * config.memory_gib)),
        "store_gib": users * rates.store_bytes_a_user / GIB,
        "lookups": rates.lookups * config.cores,
        "embeds": rates.users_embedded_by_http * config.cores,
    }


def markdown(root: Path) -> str:
    """Return the tables of results/sizing.json below the checkout `root`."""
    file = root / "results" / "sizing.json"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; make it with python -m benchmarks.report.sizing")
    content = json.loads(file.read_text(encoding="utf-8"))
    config, rates = content["config"], content["rates"]
    runs = {each["users"]: each for each in content["training"]}
    lines = [
        f"```bash\npython -m benchmarks.report.sizing index=indexes/{config['index']}\n```\n",
        f"A machine has {config['cores']} cores and {config['memory_gib']:g} GiB; a user has "
        f"{config['events']} events, and there are {config['items']:,} items.\n",
        table(["", *(f"{each['users']:,} users" for each in content["costs"])], _rows(content)),
        "",
        "What they are made of, a core each:\n",
        table(
            ["measured", "", "from"],
            [[what, number(rates[key]), source] for key, what, source in SOURCES],
        ),
        "",
    ]
    sizes = "; ".join(
        f"{users:,} users: {number(run['params'])} parameters, 80 % of the resamples between "
        f"{number(run['params_low80'])} and {number(run['params_high80'])}"
        for users, run in runs.items()
    )
    lines.append(f"The law's model, of results/scaling/{config['study']}: {sizes}.")
    return "\n".join(lines)


SOURCES = (
    ("events_prepared", "events prepared a second", "results/speed/prepare.json"),
    ("corpus_bytes_an_event", "bytes of the corpus an event", "results/speed/prepare.json"),
    ("flops_trained", "useful FLOPs of training a second", "results/speed/step.json"),
    ("events_embedded", "events embedded a second, all blocks", "results/speed/embed.json"),
    ("users_embedded_by_http", "users embedded a second over HTTP", "results/speed/serve.json"),
    ("lookups", "stored vectors a second over HTTP", "results/speed/serve.json"),
    (
        "index_bytes_a_user",
        "bytes of the index a user",
        "the index and results/speed/retrieve.json",
    ),
    ("index_bytes_an_item", "bytes of the index an item", "the same"),
    ("store_bytes_a_user", "bytes of the store a user", f"{WRITTEN:,} users written into one"),
)


def _rows(content: dict[str, Any]) -> list[list[str]]:
    names = {
        "events": "events",
        "corpus_gib": "corpus, GiB",
        "prepare_hours": "preparation, machine hours",
        "train_hours": "training to the law's optimum, machine hours",
        "train_gpu_hours": f"the same on a GPU of {number(content['config']['gpu_flops'])} FLOPs "
        "a second (assumed, not measured), hours",
        "embed_hours": "embedding everyone, machine hours",
        "index_gib": "index in memory, GiB",
        "index_machines": "machines that hold it once",
        "store_gib": "histories and vectors on disk, GiB",
        "embeds": "users embedded a second by one machine",
        "lookups": "stored vectors a second by one machine",
    }
    return [
        [label, *(number(each[key]) for each in content["costs"])] for key, label in names.items()
    ]


def number(value: float) -> str:
    """Return three digits of a number, with commas from a thousand on and a power from 1e9 on."""
    if value >= 1e9 or value < 1e-3:
        return f"{value:.2e}"
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def show(config: SizingConfig) -> None:
    """Write the sizes and show them."""
    sizing(config)
    sys.stdout.write(markdown(config.results.parent) + "\n")


def main() -> None:
    """Run the command line."""
    run_command(SizingConfig, show, description=__doc__)


if __name__ == "__main__":
    main()
