"""Turns: few requests are prepared at once, as many are let in as may wait, none is lost."""

import asyncio

import pytest

from serving.settings import Settings
from serving.turns import AT_ONCE, Turn, Turns
from tests.serving.client import body_of, live, serving
from tests.serving.test_faults import Held

URL, BODY = "/v1/users/embed", body_of([{"films": ["one"]}])


def test_turns_come_in_order_and_a_cancelled_one_is_none() -> None:
    async def test() -> None:
        turns, done = Turns(), list[int]()

        async def work(number: int) -> None:
            turn = Turn(turns)
            try:
                await turn.begin()
                assert len(done) > number - AT_ONCE  # all before those that have theirs are over
                await asyncio.sleep(0)
                done.append(number)
            finally:
                turn.end()
                turn.end()

        tasks = [asyncio.ensure_future(work(number)) for number in range(5 * AT_ONCE)]
        await asyncio.sleep(0)
        assert turns.begun == 5 * AT_ONCE
        tasks[-1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert done == list(range(5 * AT_ONCE - 1))
        assert turns.begun == 0
        assert turns.free._value == AT_ONCE  # pyright: ignore[reportPrivateUsage]

    asyncio.run(test())


def test_of_a_burst_as_many_are_let_in_as_may_wait(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={"queue_size": 20})

    async def test() -> None:
        async with serving(settings) as (client, app):
            held = Held(monkeypatch)
            first = asyncio.ensure_future(client.post(URL, json=BODY))
            await asyncio.to_thread(held.entered.wait, 10)
            tasks = [asyncio.ensure_future(client.post(URL, json=BODY)) for _ in range(60)]
            while live(app).batcher.waiting < 20:
                await asyncio.sleep(0.01)
            held.go.set()
            status = [answer.status_code for answer in await asyncio.gather(first, *tasks)]
            assert (status.count(200), status.count(429)) == (21, 40)
            assert app.state.turns.begun == 0
            text = (await client.get("/metrics")).text
            assert 'clue_rejected_total{reason="queue-full"} 40.0' in text

    asyncio.run(test())
