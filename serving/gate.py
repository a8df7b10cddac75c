"""Before anything of a request is read: is there hope that it is answered in time?

The model's queue cannot know what still waits to be parsed. At five times what one core answers the
event loop had 800 bodies before it: /livez took 28 s and refusals 27 s. What is refused here costs
its headers alone.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving.metrics import Metrics
from serving.settings import Settings

Header = tuple[bytes, bytes]

TIMEOUT = b"x-request-timeout-ms"
WINDOW_SECONDS = 0.25  # over which the rate of answers is counted
# of a request's time may what is before it take: rates are those of a moment ago
HOPE = 0.5
TOGETHER = 64  # requests that may be encoded or parsed, beside those in the model's queue
ALWAYS = 8  # requests at a time are let in whatever the rate was
UNGATED = (b":activate",)


@dataclass(eq=False)
class Gate:
    """Counts what is being answered and how fast, by one event loop.

    By Little's law a request waits for as long as those before it take at the rate of answers of
    late. `most` may be let in at a time, and `seconds` is what a request may take that says nothing
    less. `refused` is called for each that is not let in.
    """

    most: int
    seconds: float
    refused: Callable[[], None]
    inside: int = 0
    _rate: float = math.inf
    _since: float = 0.0
    _answered: int = 0

    def judges(self, method: bytes, path: bytes) -> bool:
        """Return whether a request asks for work that has to wait: it may be refused."""
        return (
            method in (b"POST", b"PUT")
            and path.startswith(b"/v1/")
            and not path.partition(b"?")[0].endswith(UNGATED)
        )

    def enter(self, headers: Sequence[Header]) -> int:
        """Let a request in and return 0, or the seconds after which it may come again."""
        wait = self.inside / self._rate
        allowed = HOPE * min(self.seconds, _said(headers))
        if self.inside >= self.most or (self.inside >= ALWAYS and wait > allowed):
            self.refused()
            return max(1, math.ceil(wait))
        if self.inside == 0:  # an idle time is no slow one
            self._since, self._answered = time.monotonic(), 0
        self.inside += 1
        return 0

    def leave(self) -> None:
        """Count a request that is answered, or whose client has left."""
        self.inside -= 1
        self._answered += 1
        now = time.monotonic()
        if now - self._since > WINDOW_SECONDS:
            rate = self._answered / (now - self._since)
            # Half of the new, half of the old, as the model's queue has it.
            self._rate = rate if math.isinf(self._rate) else (self._rate + rate) / 2
            self._since, self._answered = now, 0


def gate_of(settings: Settings, metrics: Metrics) -> Gate:
    """Return the gate of an application, which shows what it refuses among its metrics."""

    def refused() -> None:
        metrics.requests.labels("none", "any", 429).inc()
        metrics.rejected.labels("queue-full").inc()

    return Gate(settings.queue_size + TOGETHER, settings.request_seconds, refused)


def _said(headers: Sequence[Header]) -> float:
    """Return the seconds that a request gives itself; infinite where it says none or nonsense."""
    for name, value in headers:
        if name == TIMEOUT:
            return int(value) / 1000 if value.isdigit() and len(value) < 10 else math.inf
    return math.inf
