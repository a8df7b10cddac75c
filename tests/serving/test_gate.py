"""The gate: who is let in before anything is read, by what is inside and the rate of answers."""

import pytest

from serving import gate
from serving.gate import ALWAYS, Gate


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(gate.time, "monotonic", lambda: now[0])
    return now


def test_who_would_wait_for_more_than_half_of_the_time_is_refused(clock: list[float]) -> None:
    refused: list[int] = []
    door = Gate(most=1000, seconds=10.0, refused=lambda: refused.append(1))
    # 41 answers in a second, 9 still inside: 41 a second
    assert [door.enter([]) for _ in range(50)] == [0] * 50
    for _ in range(40):
        door.leave()
    clock[0] += 1.0
    door.leave()
    assert door.inside == 9 and not refused
    # within a second others may take half of it: 20 are answered in that, and the next is late
    hasty = [(b"x-request-timeout-ms", b"1000")]
    assert [door.enter(hasty) for _ in range(12)] == [0] * 12
    assert (door.inside, door.enter(hasty), len(refused)) == (21, 1, 1)
    # who says nothing, or nonsense, has the service's ten seconds: 205 are answered in half of them
    vague = [(b"accept", b"*/*"), (b"x-request-timeout-ms", b"soon")]
    assert [door.enter(vague) for _ in range(185)] == [0] * 185
    assert (door.inside, door.enter(vague), len(refused)) == (206, 6, 2)


def test_so_many_at_a_time_and_few_always(clock: list[float]) -> None:
    door = Gate(most=20, seconds=10.0, refused=lambda: None)
    assert [door.enter([]) for _ in range(20)] == [0] * 20 and door.enter([]) == 1
    clock[0] += 100  # 20 answers in 100 s: each waits for longer than any request may
    for _ in range(20):
        door.leave()
    for _ in range(ALWAYS):
        assert door.enter([(b"x-request-timeout-ms", b"1")]) == 0
    assert door.enter([(b"x-request-timeout-ms", b"1")]) > 1


def test_only_work_that_waits_is_judged() -> None:
    door = Gate(most=1, seconds=1.0, refused=lambda: None)
    for method, path in (
        (b"POST", b"/v1/users/embed"),
        (b"PUT", b"/v1/users/u1?x=1"),
        (b"POST", b"/v1/embeddings"),
    ):
        assert door.judges(method, path)
    for method, path in (
        (b"GET", b"/livez"),
        (b"GET", b"/v1/users/u1"),
        (b"DELETE", b"/v1/users/u1"),
        (b"POST", b"/v1/models/000001-0123456789ab:activate"),
        (b"POST", b"/elsewhere"),
    ):
        assert not door.judges(method, path)
