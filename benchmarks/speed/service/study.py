"""What the parts of a study share: the server that is measured, its users, the load generator."""

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.speed.report import Claim, Row, Spread
from benchmarks.speed.service import process
from benchmarks.speed.service.bare import Events
from benchmarks.speed.service.load import Load, Plan, Stream, send
from benchmarks.speed.service.process import Server


@dataclass(frozen=True, eq=False, kw_only=True)
class Study:
    """One run: `seconds` of load for each arm in each of the `rounds`.

    The load are `users`, sent by `generator`, a process on a core of its own; what the servers
    write lies below `root`.
    """

    checkpoint: Path
    index: Path
    seconds: float
    rounds: int
    root: Path
    users: Sequence[Events]
    generator: Executor
    rows: list[Row] = field(default_factory=list[Row])
    claims: list[Claim] = field(default_factory=list[Claim])
    notes: list[str] = field(default_factory=list[str])

    @contextmanager
    def serving(self, name: str, index: Path | None = None, **settings: str) -> Generator[Server]:
        """Run our service over the study's index, or a copy of it, with further settings."""
        command, environment = process.of_clue(self.checkpoint, index or self.index, **settings)
        with process.running(command, environment, self.root / f"{name}.log") as server:
            yield server

    def send(self, server: Server, streams: Mapping[str, Stream], seconds: float = 0) -> Load:
        """Return what came of streams that were sent for `seconds`, by default the study's."""
        plan = Plan(address=server.address, seconds=seconds or self.seconds, streams=streams)
        return self.generator.submit(send, plan).result()

    def row(self, case: str, arm: str, **figures: Sequence[float]) -> None:
        """Add a row; `p99_ms` is the column "p99 ms"."""
        spreads = {
            COLUMNS[name]: Spread.of(values) for name, values in figures.items() if len(values)
        }
        self.rows.append(Row(case=case, arm=arm, figures=spreads))

    def timed(
        self, case: str, arm: str, loads: Sequence[Load], stream: str, **figures: Sequence[float]
    ) -> None:
        """Add a row of loads, one a round: the times of a stream's answers beside `figures`."""
        answers = [load.answers[stream] for load in loads]
        self.row(
            case,
            arm,
            **figures,
            p50=[each.quantile_ms(0.5) for each in answers],
            p99=[each.quantile_ms(0.99) for each in answers],
            busy=[load.busy for load in loads],
        )


COLUMNS = {
    "users": "users/s",
    "requests": "requests/s",
    "part": "part of it",
    "processor": "processor ms each",
    "p50": "p50 ms",
    "p99": "p99 ms",
    "refused": "refused/s",
    "refused_p99": "refused, p99 ms",
    "livez": "/livez, p99 ms",
    "errors": "errors",
    "memory": "RSS MB",
    "busy": "generator busy",
}
