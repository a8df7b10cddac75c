"""Durable users under a running service: writes, what other workers wrote, vectors that lack."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from serving.batcher import BatcherStopped, QueueFull
from serving.engine import Engine, History, Query, cost_of, is_comparable
from serving.histories import from_bytes, moment_of, readable
from serving.live import FOLLOW_SECONDS, Live, not_ready
from serving.loading import catch_up
from serving.problems import Problem
from serving.rows import BrokenStore, StoredUser
from serving.sqlite import StoreBusy, StoreFull
from serving.store import Store, StoreClosed, Write
from serving.store_lock import StoreRefused
from serving.writes import Embed

log = logging.getLogger("clue.serving")

TOGETHER = 16  # users embedded in one go behind the requests: what a request waits for at most
NO_VECTOR = np.empty(0, np.float32)
PAUSE_SECONDS = 0.5  # after a batch that the queue or the store had no room for


def open_store(directory: Path) -> Store | Problem:
    """Return the open store, or the Problem that says why there is none."""
    try:
        return Store(directory)
    except (StoreRefused, BrokenStore, StoreFull, StoreBusy) as error:
        log.error("store %s: %s", directory, error)
        return not_ready(f"the store cannot be opened: {error}")


class Durable:
    """Keeps what answers requests in step with the store. Its methods belong to the event loop."""

    def __init__(self, live: Live, store: Store) -> None:
        """Have each commit of the store taken in before it is acknowledged."""
        self.live, self.store = live, store
        self._applying = threading.Lock()
        store.on_commit = self.catch_up

    def catch_up(self) -> None:
        """Take in all writes. Any thread may call it."""
        with self._applying:
            catch_up(self.store, self.live.engine)

    def replace(self, engine: Engine) -> None:
        """Serve `engine` from now on, with all writes in it."""
        catch_up(self.store, engine)  # most of it, while writes go on
        with self._applying:
            catch_up(self.store, engine)
            self.live.serve(engine)

    async def follow(self) -> None:
        """Take in what other workers write, and embed what the model has not, until cancelled."""
        version = 0
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                if version != (version := self.store.version()):
                    await asyncio.to_thread(self.catch_up)
                engine = self.live.engine
                missing = list(engine.delta.missing)[:TOGETHER]
                users = [u for u in map(self.store.user, missing) if u is not None]
                if users and not await self.embed(engine, users):
                    await asyncio.sleep(PAUSE_SECONDS)
            except (BrokenStore, StoreBusy, StoreFull, BatcherStopped) as error:
                log.error("store: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)

    async def embed(self, engine: Engine, users: Sequence[StoredUser]) -> bool:
        """Have `engine` embed stored users behind the requests; False where there is no room.

        A history of which the model reads nothing gets a vector of no length: its user is in no
        search.
        """
        read: list[StoredUser] = []
        made: list[tuple[StoredUser, np.ndarray]] = []
        histories: list[History] = []
        for user in users:
            events = from_bytes(user.events or b"[]")
            settings = self.live.settings
            history = readable(events, engine.encoder, settings, moment_of(user.as_of))
            if history:
                read.append(user)
                histories.append(history)
            else:
                made.append((user, NO_VECTOR))
        try:
            if read:
                query = Query(histories=histories, as_of=[moment_of(u.as_of) for u in read])
                cost = cost_of(query, engine.encoder)
                answer = await self.live.batcher.submit((engine, query), cost)
                made += [
                    (user, vector if is_comparable(engine.encoder, vector) else NO_VECTOR)
                    for user, vector in zip(read, answer.vectors, strict=True)
                ]
            model = engine.encoder.fingerprint
            await write(
                self.store,
                [Embed(user_id=u.user_id, seq=u.seq, model=model, vector=v) for u, v in made],
            )
        except (QueueFull, Problem):
            return False
        for user, vector in made:
            engine.delta.embedded(user.user_id, user.seq, vector)
        return True


async def write(store: Store, writes: Sequence[Write]) -> list[int]:
    """Return the numbers of writes that are on the disk and seen by this worker.

    Raises Problem 507 where the disk takes no more and 503 where the store does not.
    """
    try:
        return await asyncio.wrap_future(store.submit(writes))
    except StoreFull:
        detail = "the disk takes no more writes; reads go on, and writes when there is room again"
        raise Problem(507, "disk-full", detail, headers={"retry-after": "30"}) from None
    except (StoreBusy, StoreClosed) as error:
        raise Problem(
            503, "store-busy", f"{error}; come again", headers={"retry-after": "1"}
        ) from None
