"""A breaker opens after failures in a row, lets one call try, and closes when that succeeds."""

import threading

import pytest

from serving.milvus import breaker
from serving.milvus.breaker import MOST_FAILURES, Breaker
from serving.vectors import VectorsAway


def test_it_opens_tries_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(breaker.time, "monotonic", lambda: now)
    one = Breaker("Milvus")
    for _ in range(3):  # a success in between: these are not in a row
        for _ in range(MOST_FAILURES - 1):
            one.enter()
            assert one.failed("cannot be reached").retry_seconds == 1
        assert not one.trouble
        one.succeeded()
    for _ in range(MOST_FAILURES - 1):
        one.enter()
        one.failed("cannot be reached")
    one.enter()
    away = one.failed("cannot be reached")
    assert (str(away), away.retry_seconds) == ("Milvus cannot be reached", 5)
    assert one.trouble == "Milvus cannot be reached"
    now += 3.5
    with pytest.raises(VectorsAway, match="cannot be reached") as refused:
        one.enter()
    assert refused.value.retry_seconds == 2
    now += 2
    one.enter()  # the one that tries
    with pytest.raises(VectorsAway):
        one.enter()  # the others wait for it
    one.failed("has not answered within 2 s")
    with pytest.raises(VectorsAway, match="has not answered"):
        one.enter()
    now += 5.1
    one.enter()
    one.succeeded()
    for _ in range(10):
        one.enter()
    assert not one.trouble


def test_of_many_threads_one_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "OPEN_SECONDS", 0.05)
    one = Breaker("Milvus")
    for _ in range(MOST_FAILURES):
        one.failed("has refused (5)")
    entered: list[int] = []
    together = threading.Barrier(8)

    def enter(number: int) -> None:
        together.wait(10)
        try:
            one.enter()
        except VectorsAway:
            return
        entered.append(number)

    for _ in range(3):
        threading.Event().wait(0.06)
        threads = [threading.Thread(target=enter, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert len(entered) == 3
