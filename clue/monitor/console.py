"""What a run looks like on a terminal: a bar and a few rows that are drawn again as it goes on."""

import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType

from rich import console as rich_console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from clue.monitor.throughput import Throughput

BARS = "▁▂▃▄▅▆▇█"
REDRAW = 0.2  # seconds between two drawings; a drawing costs 4 ms


@dataclass(frozen=True)
class Validation:
    """Held-out figures, the mean over the pairs of services: entropy in nats, R@10, and when."""

    step: int
    entropy: float
    recall: float
    chance: float

    def __str__(self) -> str:
        """Return them in words."""
        recall = recall_text(self.recall, self.chance)
        return f"entropy {self.entropy:.3f}, {recall} (step {self.step})"


def chance_of(figures: Mapping[str, float]) -> float:
    """Return the R@10 of a random order of the candidates, 10 / (negatives + 1) and at most 1."""
    return min(1.0, 10 / (figures["negatives"] + 1))


def recall_text(recall: float, chance: float) -> str:
    """Return R@10 beside that of a random order; "-" where ten or fewer candidates give 1 to all.

    `chance` is the mean of min(1, 10 / candidates).
    """
    return "R@10 -" if chance >= 1 else f"R@10 {recall:.3f} (chance {chance:.3f})"


@dataclass
class RunStatus:
    """What there is to see of a run: `first` steps were done before it began, `step` now."""

    name: str
    steps: int
    first: int
    step: int
    began: float = field(default_factory=time.monotonic)
    loss: float = float("nan")
    recall: float | None = None
    scale: float | None = None
    grad_norm: float = float("nan")
    lr: float = float("nan")
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=240))
    speed: Throughput | None = None
    latest: Validation | None = None
    best: Validation | None = None
    saved: int | None = None
    alerts: Sequence[str] = ()

    def passed(self) -> float:
        """Return the seconds since it began, validation and saving included."""
        return time.monotonic() - self.began

    def left(self) -> float:
        """Return the seconds that the remaining steps will take at this pace."""
        return self.passed() / max(1, self.step - self.first) * (self.steps - self.step)


class Console:
    """Draws a RunStatus on the error stream where that is a terminal; a context manager.

    `live` says whether it draws. What others write meanwhile appears above the drawing.
    """

    def __init__(self, status: RunStatus, *, active: bool) -> None:
        """Draw nothing where `active` is false, as on every process but the first."""
        self.status, self.drawn = status, 0.0
        console = rich_console.Console(stderr=True, highlight=False)
        self.live = active and sys.stderr.isatty() and not console.is_dumb_terminal
        self.region = Live(console=console, auto_refresh=False)

    def __enter__(self) -> "Console":
        """Return itself, drawing."""
        if self.live:
            self.region.start()
            self.draw(now=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Draw the last state, which stays."""
        if self.live:
            self.draw(now=True)
            self.region.stop()
            self.live = False

    def draw(self, *, now: bool = False) -> None:
        """Draw the status, but no more often than a reader needs unless `now`."""
        if self.live and (now or time.monotonic() - self.drawn >= REDRAW):
            self.region.update(view(self.status), refresh=True)
            self.drawn = time.monotonic()


def view(status: RunStatus) -> rich_console.Group:
    """Return the drawing: the bar, a row for each kind of figure, the alerts in yellow."""
    done = f"{status.step}/{status.steps}  {status.step / status.steps:.0%}"
    if status.first < status.step < status.steps:
        done += f"  {duration(status.left())} left"
    bar = Table.grid(  # what is narrow cuts the name, then the bar
        Column(max_width=24, no_wrap=True, style="bold cyan"),
        Column(ratio=1, min_width=1),
        Column(min_width=len(done), no_wrap=True),
        padding=(0, 1),
        expand=True,
    )
    bar.add_row(Text(status.name), ProgressBar(status.steps, status.step), done)
    rows = Table.grid("", "", padding=(0, 2))
    for name, figures in figures_of(status).items():
        rows.add_row(Text(name, style="cyan"), Text("  ".join(figures)))
    alerts = [Text(f"! {alert}", style="bold yellow") for alert in status.alerts]
    return rich_console.Group(bar, rows, *alerts)


def figures_of(status: RunStatus) -> dict[str, list[str]]:
    """Return the figures of the drawing by their row."""
    if not status.losses:
        return {"step": ["the first is under way"]}
    rows = {"loss": [f"{status.loss:.3f} {sparkline(status.losses, 20)}".rstrip()]}
    rows["loss"] += [] if status.recall is None else [f"recall {status.recall:.3f}"]
    rows["step"] = [f"gradient {status.grad_norm:.2f}", f"lr {status.lr:.1e}"]
    rows["step"] += [] if status.scale is None else [f"temperature {1 / status.scale:.3f}"]
    if status.speed is not None:
        rows["speed"] = speed_texts(status.speed)
    if status.latest is not None:
        rows["held out"] = [str(status.latest)]
    if status.best is not None:
        rows["best"] = [str(status.best)]
    if status.saved is not None:
        rows["checkpoint"] = [f"step {status.saved}"]
    return rows


def speed_texts(speed: Throughput) -> list[str]:
    """Return the figures of a run's speed as short texts."""
    return [
        f"{speed.pairs_per_s:,.0f} pairs/s",
        f"MFU {speed.mfu:.0%}",
        f"data wait {speed.data_wait:.0%}",
        f"memory {speed.memory_bytes / 2**30:.1f} GiB",
    ]


def sparkline(values: Sequence[float], cells: int) -> str:
    """Return the values from first to last as a row of bars, each the mean of its share of them."""
    count = min(cells, len(values))
    if count < 2:
        return ""
    kept = list(values)
    edges = [round(cell * len(kept) / count) for cell in range(count + 1)]
    means = [sum(kept[a:b]) / (b - a) for a, b in zip(edges, edges[1:], strict=False)]
    low, high = min(means), max(means)
    step = (high - low) / (len(BARS) - 1) or 1.0
    return "".join(BARS[round((mean - low) / step)] for mean in means)


def duration(seconds: float) -> str:
    """Return whole seconds as h:mm:ss, days before them: 0:03:05, 1 day, 4:00:00."""
    return str(timedelta(seconds=round(seconds)))
