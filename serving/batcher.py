"""One thread that owns the model, fed by one bounded queue.

Running torch in the handler served 246 users/s and stalled an innocent request for 568 ms; one
thread that takes whatever waits served 512 users/s and stalled it for 26 ms (64 clients, 2 cores).
"""

import asyncio
import logging
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

log = logging.getLogger("clue.serving")

# Of the model thread. At five times the peak of one core, 4,000 requests a second: at 0 the answers
# in time are the peak's but /livez takes 7.5 s, at 4 they are .94 to .98 and it takes .06, and at 7
# a tenth is left, since refusals alone take the core.
NICE = 4
# A single user of a batch of 64 took .63 ms of the processor, of one of 32 .81 ms, and while the
# thread works the event loop lets others in slowly: who is in the process already is waited for.
PAUSE_SECONDS, LINGER_SECONDS = 0.001, 0.05

Query = TypeVar("Query")
Answer = TypeVar("Answer")


class QueueFull(Exception):
    """The work that waits cannot be done in time; come again after `retry_seconds`."""

    def __init__(self, retry_seconds: int) -> None:
        """`retry_seconds` is at least 1."""
        super().__init__(f"the queue is full; retry in {retry_seconds} s")
        self.retry_seconds = retry_seconds


class TooLate(Exception):
    """The time of the query was over before its turn came; nothing was computed."""


class BatcherStopped(Exception):
    """The thread has ended; nothing will answer."""


@dataclass(frozen=True, eq=False)
class _Job(Generic[Query, Answer]):
    query: Query
    cost: int
    future: asyncio.Future[Answer]
    deadline: float


class Batcher(Generic[Query, Answer]):
    """Answers queries in batches on a thread of its own.

    A batch is what waits when the thread is free, and what comes at once behind it.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Query]], Sequence[Answer | Exception]],
        *,
        queue_size: int,
        batch_cost: int,
        max_wait_seconds: float,
        observe: Callable[[Sequence[Answer | Exception], int], None] | None = None,
        inside: Callable[[], int] = lambda: 0,
    ) -> None:
        """Do not start the thread.

        `run` maps queries to as many answers; an answer that is an Exception fails its query alone.
        When `run` itself raises, each query of the batch is tried alone, so that a bad query fails
        only itself. At most `queue_size` queries wait. A batch takes queries up to `batch_cost`
        together, in the unit of `submit`'s cost, and always at least one. `observe` is told the
        answers and the cost of each batch. `inside` returns how many requests are being answered:
        those that are not queries yet may be soon.
        """
        self._run = run
        self._queue_size = queue_size
        self._batch_cost = batch_cost
        self._max_wait = max_wait_seconds
        self._observe = observe
        self._inside = inside
        self._jobs: deque[_Job[Query, Answer]] = deque()
        self._batch: list[_Job[Query, Answer]] = []
        self._wake = threading.Condition()
        self._started = False
        self._stopping = False
        self._ended = False
        self._cost_ahead = 0
        self._seconds_per_cost = 0.0
        self._thread = threading.Thread(target=self._serve, name="clue-batcher", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs and takes queries."""
        return self._started and not (self._stopping or self._ended)

    @property
    def waiting(self) -> int:
        """How many queries wait, those being answered not counted."""
        return len(self._jobs)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()
        self._started = True

    def stop(self) -> None:
        """Answer what already waits, then end the thread; return when it has ended."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def refusal(self, seconds: float | None = None, coming: int = 0) -> QueueFull | None:
        """Return why a query that may take `seconds` would not be taken now; None where it would.

        Its time is at most `max_wait_seconds`, also without `seconds`. So many queries are `coming`
        that were let in before it.
        """
        allowed = self._max_wait if seconds is None else min(seconds, self._max_wait)
        wait = self._cost_ahead * self._seconds_per_cost
        if len(self._jobs) + coming >= self._queue_size or wait > allowed:
            return QueueFull(max(1, math.ceil(wait)))
        return None

    def submit(
        self, query: Query, cost: int, seconds: float | None = None
    ) -> "asyncio.Future[Answer]":
        """Return the future of the answer. To cancel it takes the query out of the queue.

        Raises QueueFull when as many wait as may, or when what waits would by the rate so far take
        longer than `seconds` or `max_wait_seconds`; BatcherStopped when the thread has ended. The
        future raises that too, TooLate when `seconds` were over before its turn came, and the
        query's own exception.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        with self._wake:
            if not self.alive:
                raise BatcherStopped("the model thread has ended; restart the service")
            full = self.refusal(seconds)
            if full is not None:
                raise full
            deadline = math.inf if seconds is None else time.monotonic() + seconds
            job = _Job(query, cost, future, deadline)
            self._jobs.append(job)
            self._cost_ahead += cost
            self._wake.notify()
        future.add_done_callback(partial(self._withdraw, job))
        return future

    def _withdraw(self, job: _Job[Query, Answer], future: "asyncio.Future[Answer]") -> None:
        if not future.cancelled():
            return
        with self._wake:
            if job in self._jobs:  # else the thread has it already
                self._jobs.remove(job)
                self._cost_ahead -= job.cost

    def _serve(self) -> None:
        _yield_to_loop()
        try:
            while self._take():
                started = time.monotonic()
                answers = self._answer(self._batch)
                done = self._account(time.monotonic() - started)
                if self._observe is not None:  # first: who has an answer finds it counted
                    self._observe(answers, sum(job.cost for job in done))
                self._settle(done, answers)
        except BaseException:  # what is no Exception is no query's fault: the service is over
            log.critical("the model thread has ended", exc_info=True)
        finally:
            self._end()

    def _take(self) -> bool:
        """Wait for work and make it the batch; False when told to stop and all is done."""
        while True:
            late: list[_Job[Query, Answer]] = []
            with self._wake:
                self._wake.wait_for(lambda: self._jobs or self._stopping)
            self._linger()
            with self._wake:
                now, cost = time.monotonic(), 0
                while self._jobs and self._fits(cost):
                    job = self._jobs.popleft()
                    if job.deadline < now:
                        self._cost_ahead -= job.cost
                        late.append(job)
                        continue
                    self._batch.append(job)
                    cost += job.cost
            self._settle(late, [TooLate("the time of the query is over") for _ in late])
            if self._batch or not late:
                return bool(self._batch)

    def _linger(self) -> None:
        """Wait for queries that are on their way, while more of them come and a batch has room."""
        end, before = time.monotonic() + LINGER_SECONDS, 0
        while before < len(self._jobs) < self._inside() and not self._stopping:
            before = len(self._jobs)
            if self._cost_ahead >= self._batch_cost or time.monotonic() > end:
                return
            time.sleep(PAUSE_SECONDS)

    def _fits(self, cost: int) -> bool:
        return not self._batch or cost + self._jobs[0].cost <= self._batch_cost

    def _answer(self, batch: list[_Job[Query, Answer]]) -> Sequence[Answer | Exception]:
        try:
            answers = self._run([job.query for job in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(batch)} queries got {len(answers)} answers")
            return answers
        except Exception as error:
            if len(batch) == 1:
                return [error]
            log.warning("a batch of %d failed (%s); each is tried alone", len(batch), error)
            return [answer for job in batch for answer in self._answer([job])]

    def _settle(
        self, batch: list[_Job[Query, Answer]], answers: Sequence[Answer | Exception]
    ) -> None:
        """Hand each event loop its answers with one wake-up."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Answer], object]]] = {}
        for job, answer in zip(batch, answers, strict=True):
            by_loop.setdefault(job.future.get_loop(), []).append((job.future, answer))
        for loop, settled in by_loop.items():
            try:
                loop.call_soon_threadsafe(_resolve, settled)
            except RuntimeError:  # the loop has closed: nobody waits any more
                log.warning("%d answers came after their event loop had closed", len(settled))

    def _account(self, seconds: float) -> list[_Job[Query, Answer]]:
        """Learn the rate from the batch that is done, and return it."""
        with self._wake:
            done, self._batch = self._batch, []
            cost = sum(job.cost for job in done)
            self._cost_ahead -= cost
            # Half of the new, half of the old: a slow first batch is forgotten after a few.
            # A small batch costs what any does, 6 ms: at its rate two large queries were refused.
            least = max(1, self._batch_cost // 16)
            self._seconds_per_cost = (self._seconds_per_cost + seconds / max(least, cost)) / 2
            return done

    def _end(self) -> None:
        with self._wake:
            self._ended = True
            left = [*self._batch, *self._jobs]
            self._jobs.clear()
        stopped = BatcherStopped("the model thread has ended; restart the service")
        self._settle(left, [stopped] * len(left))


def _yield_to_loop() -> None:
    """Let the event loop have the core first where both want it; on Linux, threads are nice."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def _resolve(settled: list[tuple[asyncio.Future[Answer], object]]) -> None:
    for future, answer in settled:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)  # pyright: ignore[reportArgumentType]
