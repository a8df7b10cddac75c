"""What a run looks like on a terminal: a few lines that are drawn again as it goes on."""

import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from rich import console as rich_console
from rich.live import Live
from rich.text import Text

from clue.monitor.throughput import Throughput

BARS = "▁▂▃▄▅▆▇█"
EVERY = 0.2  # seconds between two drawings; a drawing costs 2 ms


@dataclass(frozen=True)
class Held:
    """Held-out figures, the mean over the pairs of services: entropy in nats, R@10, and when."""

    step: int
    entropy: float
    recall: float

    def __str__(self) -> str:
        """Return them in words."""
        return f"entropy {self.entropy:.3f}, R@10 {self.recall:.3f} (step {self.step})"


@dataclass
class Status:
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
    held: Held | None = None
    best: Held | None = None
    saved: int | None = None
    alarms: Sequence[str] = ()

    def passed(self) -> float:
        """Return the seconds since it began, validation and saving included."""
        return time.monotonic() - self.began

    def left(self) -> float:
        """Return the seconds that the remaining steps will take at this pace."""
        return self.passed() / max(1, self.step - self.first) * (self.steps - self.step)


class Console:
    """Draws a Status on the error stream where that is a terminal; a context manager.

    `live` says whether it draws. What others write meanwhile appears above the drawing.
    """

    def __init__(self, status: Status, *, active: bool) -> None:
        """Draws nothing where `active` is false, as on every process but the first."""
        self.status, self.drawn = status, 0.0
        self.console = rich_console.Console(stderr=True, highlight=False)
        self.live = active and sys.stderr.isatty() and not self.console.is_dumb_terminal
        self.region = Live(console=self.console, auto_refresh=False)

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
        """Draws the last state, which stays."""
        if self.live:
            self.draw(now=True)
            self.region.stop()
            self.live = False

    def draw(self, *, now: bool = False) -> None:
        """Draws the status, but no more often than a reader needs unless `now`."""
        if not self.live or (not now and time.monotonic() - self.drawn < EVERY):
            return
        self.region.update(
            rich_console.Group(*styled(self.status, self.console.width)), refresh=True
        )
        self.drawn = time.monotonic()


def styled(status: Status, width: int) -> list[Text]:
    """Return the drawing: the bar's line bold, the alarms in yellow."""
    bar, *others = lines(status, width)
    alarms = [line for text in status.alarms for line in flow(f"! {text}".split(), width, " ")]
    return [
        Text(bar, style="bold cyan", no_wrap=True),
        *(Text(line, no_wrap=True) for line in others),
        *(Text(line, style="bold yellow", no_wrap=True) for line in alarms),
    ]


def lines(status: Status, width: int) -> list[str]:
    """Return the lines of the drawing, each at most `width` columns; the alarms are not in it."""
    found = [progress(status, width)]
    if not status.losses:
        return [*found, "the first step is under way"[:width]]
    found += flow(
        [
            f"loss {status.loss:.3f} {sparkline(status.losses, 20)}".rstrip(),
            *([] if status.recall is None else [f"recall {status.recall:.3f}"]),
            *([] if status.scale is None else [f"temperature {1 / status.scale:.3f}"]),
            f"gradient {status.grad_norm:.2f}",
            f"lr {status.lr:.1e}",
        ],
        width,
    )
    if status.speed is not None:
        found += flow(speed_words(status.speed), width)
    if status.held is not None:
        best = [f"best: {status.best}"] if status.best is not None else []
        found += flow([f"held out: {status.held}", *best], width)
    if status.saved is not None:
        found += flow([f"checkpoint of step {status.saved}"], width)
    return found


def speed_words(speed: Throughput) -> list[str]:
    """Return the figures of a run's speed as short texts."""
    return [
        f"{speed.pairs_per_s:,.0f} pairs/s",
        f"MFU {speed.mfu:.0%}",
        f"data wait {speed.data_wait:.0%}",
        f"memory {speed.memory_bytes / 2**30:.1f} GiB",
    ]


def progress(status: Status, width: int) -> str:
    """Return name, bar, steps and the time left, in one line of at most `width` columns."""
    share = status.step / status.steps
    left = f"  {duration(status.left())} left" if status.first < status.step < status.steps else ""
    right = f"  {status.step}/{status.steps}  {share:.0%}{left}"
    room = width - len(right)
    name = status.name[: max(0, min(len(status.name), room - 12))]
    cells = max(0, room - len(name) - 2)
    done = round(share * cells)
    return f"{name}  {'━' * done}{'─' * (cells - done)}{right}"[:width]


def flow(words: Iterable[str], width: int, gap: str = "  ") -> list[str]:
    """Return the words in as few lines of `width` columns as they need; a longer word is cut."""
    found: list[str] = []
    for word in words:
        if found and len(found[-1]) + len(gap) + len(word) <= width:
            found[-1] += gap + word
        else:
            found.append(word[:width])
    return found


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
    """Return time in the two largest units that it has: 42 s, 3 min 05 s, 2 h 03 min, 1 d 04 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"
