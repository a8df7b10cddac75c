"""How a service begins and ends: what it loads, why it does not start, what runs beside it."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from serving.batcher import Batcher
from serving.contents import BrokenIndex
from serving.durable import Durable
from serving.engine import Answer, BadVector, Engine, run_all
from serving.generation import CURRENT, names
from serving.generations import Generations, generations_of
from serving.live import Live, not_ready
from serving.loading import NotServable, load_engine
from serving.metrics import Metrics
from serving.problems import Problem
from serving.rows import BrokenStore
from serving.server import return_memory
from serving.settings import Settings
from serving.sqlite import StoreBusy, StoreFull
from serving.store import Store
from serving.store_lock import StoreRefused
from serving.upkeep import Upkeep, watch
from serving.vectors import VectorsAway

log = logging.getLogger("clue.serving")

AWAY = "vectors-away"  # at start: tried again, for it may pass


def load(settings: Settings, metrics: Metrics, inside: Callable[[], int]) -> Live | Problem:
    """Load the model and the index, check that they belong together, and warm up.

    `inside` returns how many requests are being answered. Return the Problem that every request
    gets instead when one of these fails.
    """
    store = generations = None
    try:
        store = None if settings.store is None else Store(settings.store)
        generations = generations_of(settings)
        engine, fallback = _whole(settings, generations, store, metrics)
        # The first encode of a shape is slow; it shows too that the weights give a vector at all.
        for query in engine.samples(settings.batch_tokens):
            if isinstance(engine.run([query])[0], Exception):
                raise NotServable("the model gives no finite vector")
    except (OSError, ValueError, StoreFull, StoreBusy) as error:
        log.error("checkpoint %s, index %s: %s", settings.checkpoint, settings.index, error)
        if store is not None:
            store.close()
        if generations is not None:
            generations.close()
        return _refusal(settings, error)

    def observe(answers: Sequence[Answer | Exception], cost: int) -> None:
        metrics.batches.observe(len(answers))
        metrics.batch_tokens.observe(cost)
        metrics.tokens.inc(cost)
        metrics.bad_vectors.inc(sum(isinstance(each, BadVector) for each in answers))
        metrics.queue.set(batcher.waiting)

    batcher = Batcher(
        run_all,
        queue_size=settings.queue_size,
        batch_cost=settings.batch_tokens,
        max_wait_seconds=settings.request_seconds,
        observe=observe,
        inside=inside,
    )
    live = Live(settings, engine, batcher, metrics, generations, store)
    live.serve(engine, fallback)
    return live


def _whole(
    settings: Settings, generations: Generations, store: Store | None, metrics: Metrics
) -> tuple[Engine, str]:
    """Return what answers by the generation of now or, if it is damaged, by the newest before it.

    And what is said of that, "" of the one of now. What the store holds is in both. Raises what
    `load_engine` raises, and BrokenIndex where none is whole.
    """
    served = generations.current()
    earlier = [name for name in names(settings.index) if name < served]
    damage: BrokenIndex | None = None
    for name in (served, *reversed(earlier)):
        try:
            engine = load_engine(
                settings,
                name,
                store,
                count_items=metrics.count_items,
                generations=generations,
            )
        except (BrokenIndex, NotServable) as error:
            if damage is None and isinstance(error, NotServable):
                raise
            log.error("generation %s: %s", name, error)
            damage = damage or (error if isinstance(error, BrokenIndex) else None)
            continue
        return engine, f"generation {served} is broken: {damage}" if damage else ""
    assert damage is not None
    raise damage


def _refusal(settings: Settings, error: Exception) -> Problem:
    """Return what a service says that cannot start; it names no path."""
    if isinstance(error, VectorsAway):
        return not_ready(f"{error}; come again", kind=AWAY)
    if isinstance(error, NotServable):
        return not_ready(str(error), fingerprints=error.fingerprints)
    if isinstance(error, BrokenIndex):
        return not_ready(f"the index is broken: {error}")
    if isinstance(error, StoreRefused | BrokenStore | StoreFull | StoreBusy):
        return not_ready(f"the store cannot be opened: {error}")
    what = "checkpoint" if (settings.index / CURRENT).is_file() else "index"
    return not_ready(f"the {what} cannot be loaded; the log says why")


def begin(live: Live) -> list["asyncio.Task[None]"]:
    """Start the model thread and what keeps a service in step with its store and generations."""
    live.batcher.start()
    durable = None if live.store is None else Durable(live, live.store)
    tasks = [asyncio.create_task(watch(live, durable)), asyncio.create_task(return_memory())]
    live.metrics.watched.add(
        "clue_vectors_away",
        "1 while vectors on another machine are not asked for, since it did not answer",
        lambda: float(bool(live.generations.trouble())),
    )
    if durable is not None:
        tasks.append(asyncio.create_task(durable.follow()))
        tasks.append(asyncio.create_task(Upkeep(live, durable).run()))
        _watch_store(live, durable.store)
    return tasks


async def end(live: Live, tasks: Sequence["asyncio.Task[None]"]) -> None:
    """End what `begin` started, and let go of the store."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(live.batcher.stop)
    live.waiting.shutdown(wait=False, cancel_futures=True)
    await asyncio.to_thread(live.generations.close)
    if live.store is not None:
        await asyncio.to_thread(live.store.close)


def _watch_store(live: Live, store: Store) -> None:
    """Have /metrics show how far the index is behind the store."""
    add = live.metrics.watched.add
    add("clue_delta_users", "users written since the generation", lambda: len(live.engine.delta))
    add(
        "clue_dead_share",
        "share of the generation's users that are replaced or deleted",
        lambda: live.engine.delta.num_dead / max(1, live.engine.index.num_users),
    )
    add(
        "clue_missing_vectors",
        "users whom the model of now has not embedded yet",
        lambda: len(live.engine.delta.missing),
    )
    add(
        "clue_newest_vector_age_seconds",
        "since the newest vector of the delta was written",
        lambda: live.engine.delta.age(),
    )
    add(
        "clue_store_recovery_seconds",
        "what the store took to be opened and verified, after a kill too",
        lambda: store.recovery_seconds,
    )
