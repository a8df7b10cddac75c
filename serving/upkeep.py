"""What a service does beside answering: it takes up generations, has them built, and forgets.

Every worker looks which generation is to be served (CURRENT) and swaps to it between two requests.
One of them, which holds the store's upkeep lock, also has the next generation built when much has
changed, has all users embedded by a model that is to be served, and removes generations that hold
deleted users.
"""

import asyncio
import fcntl
import json
import logging
import os
import sys
import time
from contextlib import suppress
from typing import BinaryIO

from serving.batcher import BatcherStopped, QueueFull
from serving.contents import BrokenIndex
from serving.durable import TOGETHER, Durable, write
from serving.engine import Engine
from serving.live import Live
from serving.loading import NotServable, load_engine
from serving.problems import Problem
from serving.sqlite import StoreBusy, StoreFull
from serving.vectors import VectorsAway
from serving.writes import Goal

log = logging.getLogger("clue.serving")

WATCH_SECONDS = 0.25
AWAY_SECONDS = 1.0  # between looks at another machine
UPKEEP_SECONDS = 0.5
RETRY_SECONDS = 30.0  # after a build that failed: on a full disk, say
CHANGED_SHARE = 0.1  # of a generation's users: the exact search of the rest costs a tenth of all
LOCK = ".upkeep"
# A builder beside the server: p99 of a search 96 ms instead of 106, of an upsert 106, not 118.
GIVES_WAY, LEAST_PRIORITY = 10, 19
# what may happen to a step of upkeep while the service goes on
FAULTS = (OSError, ValueError, Problem, BatcherStopped, QueueFull, StoreBusy, StoreFull)


async def watch(live: Live, durable: Durable | None) -> None:
    """Serve the generation that CURRENT names, whenever it changes, until cancelled.

    One that is broken or cannot be served is left: the one before goes on.
    """
    generations = live.generations
    tried = live.engine.index.catalogue.name
    while True:
        await asyncio.sleep(AWAY_SECONDS if generations.remote else WATCH_SECONDS)
        try:
            if generations.remote:
                name = await asyncio.to_thread(generations.current)
                if name == live.engine.index.catalogue.name:
                    await asyncio.to_thread(generations.keep_up, live.engine)
            else:
                name = generations.current()
            if name in (tried, live.engine.index.catalogue.name):
                continue
            tried = name
            engine = await prepared(live, name)
            if durable is None:
                live.serve(engine)
            else:
                await asyncio.to_thread(durable.replace, engine)
            log.info("generation %s is served", name)
        except VectorsAway:  # of which the log and /readyz tell already
            tried = live.engine.index.catalogue.name
        except FAULTS as error:
            log.error("the generation before goes on: %s", error)


async def prepared(live: Live, name: str) -> Engine:
    """Return what answers by another generation, warm: a model's first encode of a shape is slow.

    That is done beside the model thread: in its queue the largest shape had requests refused.
    """
    load = (load_engine, live.settings, name, live.store, live.engine.encoder)
    engine = await asyncio.to_thread(*load, live.metrics.count_items, live.generations)
    if engine.encoder is not live.engine.encoder:
        for query in engine.samples(live.settings.batch_tokens):
            await asyncio.to_thread(engine.run, [query])
    return engine


class Upkeep:
    """The one worker's part."""

    def __init__(self, live: Live, durable: Durable) -> None:
        """Do nothing yet."""
        self.live, self.durable, self.store = live, durable, durable.store
        self.out = live.settings.index
        self._not_before = 0.0
        self._looked = 0.0

    async def run(self) -> None:
        """Be the one worker as soon as no other is, until cancelled."""
        with (self.store.directory / LOCK).open("wb") as lock:
            while not _locked(lock):
                await asyncio.sleep(1)
            while True:
                await asyncio.sleep(UPKEEP_SECONDS)
                try:
                    await self.step()
                except VectorsAway:
                    await asyncio.sleep(AWAY_SECONDS)
                except FAULTS as error:
                    log.error("upkeep: %s", error)
                    self._not_before = time.monotonic() + RETRY_SECONDS

    async def step(self) -> None:
        """Do what is due."""
        if time.monotonic() < self._not_before:
            return
        goal = self.store.state().goal
        if goal:
            await self._pursue(goal)
        elif self.live.generations.remote:
            await asyncio.to_thread(self.live.generations.absorb, self.store, self.live.engine)
        elif self._much_has_changed(self.live.engine) or self._deletion_is_due():
            await self.build(self.live.engine)
        await self._forget()

    async def build(self, base: Engine) -> None:
        """Have the next generation made of `base` and the store, and served.

        It is taken up by `watch`. Raises ValueError where that fails; the old one goes on.
        """
        similarity, ranking = base.encoder.similarity_columns, base.encoder.ranking_columns
        command = [
            *("-m", "serving.rebuild", f"index={self.out}", f"store={self.store.directory}"),
            f"base={json.dumps(base.index.catalogue.name)}",
            f"similarity=[{similarity.start},{similarity.stop}]",
            f"ranking=[{ranking.start},{ranking.stop}]",
        ]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=pipe, stderr=pipe
        )
        _give_way(process.pid)
        try:
            made, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise ValueError(f"no new generation: {said.decode(errors='replace')[-500:]}")
        name, deadline = made.decode().strip(), time.monotonic() + RETRY_SECONDS
        while self.live.engine.index.catalogue.name != name and time.monotonic() < deadline:
            await asyncio.sleep(WATCH_SECONDS)

    def _much_has_changed(self, engine: Engine) -> bool:
        changed = len(engine.delta) + engine.delta.num_dead
        least = self.live.settings.rebuild_users
        return changed >= max(least, CHANGED_SHARE * engine.index.num_users)

    def _deletion_is_due(self) -> bool:
        """Whether the generation has held a deleted user for half of the time that it may."""
        engine = self.live.engine
        if not engine.delta.num_dead:
            return False
        oldest = self.store.oldest_deletion(engine.index.store_seq)
        return oldest is not None and oldest < time.time() - self.live.settings.forget_seconds / 2

    async def _pursue(self, goal: str) -> None:
        """Have all users embedded by the goal's model, then have the goal served.

        What was embedded is in the store: after a restart the rest alone is left.
        """
        try:
            if goal != self.live.engine.index.catalogue.name:
                engine = await prepared(self.live, goal)
                await self._embed_all(engine)
                generations = self.live.generations
                if generations.remote:
                    await asyncio.to_thread(generations.absorb, self.store, engine)
                    await asyncio.to_thread(generations.serve, goal)
                elif self._much_has_changed(engine):
                    await self.build(engine)
                else:
                    generations.serve(goal)
        except (BrokenIndex, NotServable, FileNotFoundError) as error:
            log.error("generation %s is not served: %s", goal, error)
        await write(self.store, [Goal(generation="")])

    async def _embed_all(self, engine: Engine) -> None:
        last = ""
        while users := self.store.lacking(engine.encoder.fingerprint, after=last, most=TOGETHER):
            if await self.durable.embed(engine, users):
                last = users[-1].user_id
            else:
                await asyncio.sleep(UPKEEP_SECONDS)

    async def _forget(self) -> None:
        """Have users who were deleted a while ago leave the generations that are not served."""
        allowed = self.live.settings.forget_seconds
        if time.monotonic() < self._looked + allowed / 10:
            return
        self._looked = time.monotonic()
        given = (self.store, time.time() - allowed, self.live.engine.index.catalogue.name)
        await asyncio.to_thread(self.live.generations.forget, *given)


def _give_way(pid: int) -> None:
    """Let a process have what answering leaves of the cores."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(ProcessLookupError):  # it has ended
        os.setpriority(os.PRIO_PROCESS, pid, min(own + GIVES_WAY, LEAST_PRIORITY))


def _locked(lock: BinaryIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
