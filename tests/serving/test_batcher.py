import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from serving.batcher import Batcher, BatcherStopped, QueueFull


class Recorder:
    """Doubles numbers, holds each batch until told, and remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.entered = threading.Event()
        self.threads: set[str] = set()

    def run(self, queries: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(queries))
        self.threads.add(threading.current_thread().name)
        self.entered.set()
        assert self.go.wait(10)
        if 999 in queries:
            raise SystemExit
        if any(query < 0 for query in queries):
            raise ArithmeticError("negative")
        return [KeyError("zero") if query == 0 else 2 * query for query in queries]


def with_batcher(
    test: Callable[[Batcher[int, int], Recorder], Coroutine[Any, Any, None]],
    *,
    queue_size: int = 100,
    batch_cost: int = 10,
    max_wait_seconds: float = 60.0,
    inside: Callable[[], int] = lambda: 0,
) -> None:
    recorder = Recorder()
    batcher: Batcher[int, int] = Batcher(
        recorder.run,
        queue_size=queue_size,
        batch_cost=batch_cost,
        max_wait_seconds=max_wait_seconds,
        inside=inside,
    )
    batcher.start()
    try:
        asyncio.run(asyncio.wait_for(test(batcher, recorder), 10))
    finally:
        recorder.go.set()
        batcher.stop()
    assert not batcher.alive


async def queued(batcher: Batcher[int, int], query: int, cost: int = 1) -> "asyncio.Future[int]":
    """Submit and return once the query waits (or is being answered)."""
    task = asyncio.ensure_future(batcher.submit(query, cost))
    await asyncio.sleep(0)
    return task


async def busy(batcher: Batcher[int, int], recorder: Recorder) -> "asyncio.Future[int]":
    """Submit a first query and return once the thread holds it."""
    task = await queued(batcher, 1)
    assert await asyncio.to_thread(recorder.entered.wait, 5)
    return task


def test_answers_go_to_their_queries_from_one_thread() -> None:
    async def test(batcher: Batcher[int, int], recorder: Recorder) -> None:
        recorder.go.set()
        answers = await asyncio.gather(*(batcher.submit(n, 3) for n in range(1, 200)))
        assert answers == [2 * n for n in range(1, 200)]
        assert recorder.threads == {"clue-batcher"}

    with_batcher(test, queue_size=1000)


@pytest.mark.parametrize(("number", "batches"), [(2, [[1, 2]]), (1, [[1], [2]])])
def test_who_is_in_the_process_already_is_waited_for(number: int, batches: list[list[int]]) -> None:
    """So many requests are inside when the thread looks, and the second query comes after."""
    looked, second = threading.Event(), threading.Event()

    def inside() -> int:
        looked.set()
        assert number == 1 or second.wait(5)
        return number

    async def test(batcher: Batcher[int, int], recorder: Recorder) -> None:
        recorder.go.set()
        one = batcher.submit(1, 1)
        assert await asyncio.to_thread(looked.wait, 5)
        if number == 1:
            assert await asyncio.to_thread(recorder.entered.wait, 5)
        two = batcher.submit(2, 1)
        second.set()
        assert await asyncio.gather(one, two) == [2, 4]
        assert recorder.batches == batches

    with_batcher(test, inside=inside)


def test_it_is_waited_while_more_come_and_not_longer() -> None:
    """Of a hundred that are inside none comes: they wait for a commit, say."""

    async def test(batcher: Batcher[int, int], recorder: Recorder) -> None:
        recorder.go.set()
        started = time.monotonic()
        assert await batcher.submit(1, 1) == 2
        assert time.monotonic() - started < 5

    with_batcher(test, inside=lambda: 100)


def test_a_batch_takes_what_waits_up_to_the_budget_and_always_one() -> None:
    async def test(batcher: Batcher[int, int], recorder: Recorder) -> None:
        first = await busy(batcher, recorder)
        costs = {2: 4, 3: 4, 4: 4, 5: 50, 6: 1}
        tasks = [await queued(batcher, query, cost) for query, cost in costs.items()]
        recorder.go.set()
        await asyncio.gather(first, *tasks)
        assert recorder.batches == [[1], [2, 3], [4], [5], [6]]

    with_batcher(test)


def test_a_full_queue_refuses_at_once() -> None:
    async def test(batcher: Batcher[int, int], recorder: Recorder) -> None:
        tasks = [await busy(batcher, recorder)]
        tasks += [await queued(batcher, n) for n in (2, 3)]
        with pytest.raises(QueueFull) as full:
            await batcher.submit(4, 1)
        assert full.value.retry_seconds >= 1
        recorder.go.set()
        assert await asyncio.gather(*tasks) == [2, 4, 6]
        assert await batcher.submit(4, 1) == 8

    with_batcher(test, queue_size=2)


def test_what_cannot_be_done_in_time_is_refused_before_it_waits() -> None:
    async def test(batcher: Batcher[int, int], recorder: Recorder) -> None:
        first = await busy(batcher, recorder)
        await asyncio.sleep(0.2)  # the thread learns that one unit takes at least 0.2 s
        recorder.go.set()
        await first
        recorder.go.clear()
        recorder.entered.clear()
        second = await busy(batcher, recorder)
        third = await queued(batcher, 3, 5)
        with pytest.raises(QueueFull):
            await batcher.submit(4, 1)
        recorder.go.set()
        assert await asyncio.gather(second, third) == [2, 6]

    with_batcher(test, max_wait_seconds=0.4)


def test_a_cancelled_query_is_never_run_and_frees_its_place() -> None:
    async def test(batcher: Batcher[int, int], recorder: Recorder) -> None:
        first = await busy(batcher, recorder)
        gone = await queued(batcher, 2)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        await asyncio.sleep(0)
        assert batcher.waiting == 0
        third = await queued(batcher, 3)
        recorder.go.set()
        assert await asyncio.gather(first, third) == [2, 6]
        assert recorder.batches == [[1], [3]]

    with_batcher(test, queue_size=1)


def test_a_bad_query_fails_alone() -> None:
    async def test(batcher: Batcher[int, int], recorder: Recorder) -> None:
        first = await busy(batcher, recorder)
        tasks = [await queued(batcher, n) for n in (2, -1, 0, 3)]
        recorder.go.set()
        await first
        good, negative, zero, last = await asyncio.gather(*tasks, return_exceptions=True)
        assert (good, last) == (4, 6)
        assert isinstance(negative, ArithmeticError)
        assert isinstance(zero, KeyError)
        assert recorder.batches == [[1], [2, -1, 0, 3], [2], [-1], [0], [3]]

    with_batcher(test)


def test_stop_answers_what_waits_and_refuses_the_rest() -> None:
    async def test(batcher: Batcher[int, int], recorder: Recorder) -> None:
        tasks = [await busy(batcher, recorder), *[await queued(batcher, n) for n in (2, 3)]]
        stopping = asyncio.ensure_future(asyncio.to_thread(batcher.stop))
        await asyncio.to_thread(_until, lambda: not batcher.alive)
        with pytest.raises(BatcherStopped):
            await batcher.submit(4, 1)
        recorder.go.set()
        assert await asyncio.gather(*tasks) == [2, 4, 6]
        await stopping

    with_batcher(test)


def test_the_end_of_the_thread_is_seen_by_all_who_wait() -> None:
    async def test(batcher: Batcher[int, int], recorder: Recorder) -> None:
        first = await busy(batcher, recorder)
        second = await queued(batcher, 2)
        third = await queued(batcher, 999, 10)  # beyond the budget: a batch of its own
        fourth = await queued(batcher, 4)
        recorder.go.set()
        assert await asyncio.gather(first, second) == [2, 4]
        for task in (third, fourth):
            with pytest.raises(BatcherStopped):
                await task
        await asyncio.to_thread(_until, lambda: not batcher.alive)
        with pytest.raises(BatcherStopped):
            await batcher.submit(4, 1)

    with_batcher(test)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
