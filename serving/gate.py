"""Before anything of a request is read: is there hope that it is answered in time?

The model's queue cannot know what still waits to be parsed. At five times what one core answers the
event loop had 800 bodies before it: /livez took 28 s and refusals 27 s. What is refused here costs
its headers alone.
"""

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from serving.metrics import Metrics
from serving.settings import Settings

TIMEOUT = b"x-request-timeout-ms"
WINDOW_SECONDS = 0.25  # over which the rate of answers is counted
# of a request's time may what is before it take: rates are those of a moment ago
HOPE = 0.5
TOGETHER = 64  # requests that may be encoded or parsed, beside those in the model's queue
ALWAYS = 8  # requests at a time are let in whatever the rate was
UNGATED = (b":activate",)
PLAIN = re.compile(rb"[a-z0-9-]+")
UNUSUAL = {b"connection", b"expect", b"transfer-encoding", b"upgrade"}
# Work is counted in bytes of bodies: a request of 32 users is no request of one. Beside its body
# each takes about what this many bytes of events do.
REQUEST_BYTES = 2000
UNKNOWN_BYTES = 8000  # of a chunked body


@dataclass(eq=False)
class Gate:
    """Counts what is being answered and how fast, by one event loop.

    By Little's law a request waits for as long as the work before it takes at the rate of late.
    `most` may be let in at a time, and `seconds` is what a request may take that says nothing less.
    `refused` is called for each that is not let in.
    """

    most: int
    seconds: float
    refused: Callable[[], None]
    inside: int = 0
    _work: int = 0
    _rate: float = math.inf
    _since: float = 0.0
    _last: float = 0.0
    _done: int = 0

    def judges(self, method: bytes, path: bytes) -> bool:
        """Return whether a request asks for work that has to wait: it may be refused."""
        return (
            method in (b"POST", b"PUT")
            and path.startswith(b"/v1/")
            and not path.partition(b"?")[0].endswith(UNGATED)
        )

    def refusal(self, named: Mapping[bytes, bytes]) -> int:
        """Return after how many seconds a request of these headers is to come again; 0 for now."""
        self._learn()
        wait = self._work / self._rate
        allowed = HOPE * min(self.seconds, _said(named))
        if self.inside >= self.most or (self.inside >= ALWAYS and wait > allowed):
            self.refused()
            return max(1, math.ceil(wait))
        return 0

    def enter(self, named: Mapping[bytes, bytes]) -> int:
        """Let in a request of these headers, whose body is whole, and return its work.

        Not before: a body that trickles would count as work that the service is slow to do.
        """
        if self.inside == 0:  # an idle time is no slow one
            self._since, self._done = time.monotonic(), 0
        length = named.get(b"content-length", b"")
        work = REQUEST_BYTES + (int(length) if length.isdigit() else UNKNOWN_BYTES)
        self.inside += 1
        self._work += work
        return work

    def leave(self, work: int) -> None:
        """Count a request that is answered, or whose client has left."""
        self.inside -= 1
        self._work -= work
        self._done += work
        self._last = time.monotonic()

    def _learn(self) -> None:
        """Take up the rate of the answers so far, once they are of a window.

        When the next request comes: answers leave in batches, and of the batch at the end of a
        window the first alone would count.
        """
        seconds = self._last - self._since
        if seconds > WINDOW_SECONDS and self._done:
            rate = self._done / seconds
            # Half of the new, half of the old, as the model's queue has it.
            self._rate = rate if math.isinf(self._rate) else (self._rate + rate) / 2
            self._since, self._done = self._last, 0


def head_of(data: bytes) -> dict[bytes, bytes] | None:
    """Return the headers of `data` where it is one whole and plain request that a gate judges.

    None where it is anything else, or is not seen to be that at a glance: then it is for the parser
    to say. A look takes 4 µs at a body of 5 kB.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0 or not data.startswith((b"POST /v1/", b"PUT /v1/")):
        return None
    first, *lines = data[:end].lower().split(b"\r\n")
    parts = first.split(b" ")
    if len(parts) != 3 or parts[2] != b"http/1.1" or UNGATED[0] in parts[1]:
        return None
    named: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or name in named or not PLAIN.fullmatch(name):
            return None
        named[name] = value.strip(b" \t")
    length = named.get(b"content-length", b"")
    whole = length.isdigit() and len(length) < 10 and len(data) == end + 4 + int(length)
    return named if whole and b"host" in named and not named.keys() & UNUSUAL else None


def gate_of(settings: Settings, metrics: Metrics) -> Gate:
    """Return the gate of an application, which shows what it refuses among its metrics."""
    counts = metrics.requests.labels("none", "any", 429), metrics.rejected.labels("queue-full")

    def refused() -> None:
        for count in counts:
            count.inc()

    return Gate(settings.queue_size + TOGETHER, settings.request_seconds, refused)


def _said(headers: Mapping[bytes, bytes]) -> float:
    """Return the seconds that a request gives itself; infinite where it says none or nonsense."""
    said = headers.get(TIMEOUT, b"")
    return int(said) / 1000 if said.isdigit() and len(said) < 10 else math.inf
