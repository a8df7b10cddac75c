"""A circuit breaker: after failures in a row nothing is asked for a while, then one call tries.

The libraries for this hold a lock while the call runs (pybreaker) or are for asyncio alone.
"""

import logging
import math
import threading
import time

from serving.vectors import VectorsAway

log = logging.getLogger("clue.serving")

MOST_FAILURES = 5  # in a row, of calls that may run beside each other
OPEN_SECONDS = 5.0


class Breaker:
    """Closed while calls succeed; open after so many failures in a row. Any thread may use it."""

    def __init__(self, name: str) -> None:
        """`name` is what fails, for people."""
        self._name = name
        self._lock = threading.Lock()
        self._failures = 0
        self._until = 0.0
        self._reason = ""

    @property
    def trouble(self) -> str:
        """Why it is open, "" while it is closed."""
        return f"{self._name} {self._reason}" if self._failures >= MOST_FAILURES else ""

    def enter(self) -> None:
        """Return where a call may be made; each time it has been open long enough, one may.

        Raises VectorsAway where none may.
        """
        with self._lock:
            if self._failures < MOST_FAILURES:
                return
            left = self._until - time.monotonic()
            if left > 0:
                raise VectorsAway(f"{self._name} {self._reason}", math.ceil(left))
            self._until = time.monotonic() + OPEN_SECONDS  # the others wait for this one

    def succeeded(self) -> None:
        """Close it."""
        with self._lock:
            if self._failures >= MOST_FAILURES:
                log.warning("%s answers again", self._name)
            self._failures = 0

    def failed(self, reason: str) -> VectorsAway:
        """Count a failure, and return the error to raise."""
        with self._lock:
            self._failures += 1
            self._reason = reason
            self._until = time.monotonic() + OPEN_SECONDS
            if self._failures == MOST_FAILURES:
                log.error("%s %s: not asked for %g s", self._name, reason, OPEN_SECONDS)
            is_open = self._failures >= MOST_FAILURES
        retry = math.ceil(OPEN_SECONDS) if is_open else 1
        return VectorsAway(f"{self._name} {reason}", retry)
