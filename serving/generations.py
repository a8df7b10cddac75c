"""Which generation is to be served, and where its vectors are: in files, or on a cluster too."""

import logging
import shutil
from pathlib import Path
from typing import Protocol

from serving import generation
from serving.base_index import Choice
from serving.contents import BrokenIndex
from serving.engine import Engine
from serving.generation import read, writing
from serving.index import Index
from serving.settings import Settings
from serving.store import Store
from serving.vectors import Vectors

log = logging.getLogger("clue.serving")


class Generations(Protocol):
    """The generations of one service. Where `remote`, a call may wait and raise VectorsAway."""

    remote: bool

    def current(self) -> str:
        """Return the name of the one to serve; raises FileNotFoundError and BrokenIndex."""
        ...

    def serve(self, name: str) -> None:
        """Have another one served from now on, by all who look: at one moment."""
        ...

    def open(self, name: str) -> Vectors:
        """Return the vectors of one; raises BrokenIndex."""
        ...

    def keep_up(self, engine: Engine) -> None:
        """Let go of what the engine's generation has taken in meanwhile."""
        ...

    def absorb(self, store: Store, engine: Engine) -> int:
        """Have the engine's generation take in what the store holds; return how many users.

        One process alone may call it. Whom it deletes leaves the others too.
        """
        ...

    def forget(self, store: Store, before: float, served: str) -> None:
        """Have users deleted before a moment leave the generations beside the `served` one."""
        ...

    def trouble(self) -> str:
        """Return why there is no search now, "" where there is; waits for nothing."""
        ...

    def close(self) -> None: ...  # noqa: D102


class LocalGenerations:
    """Files alone: each process reads them whole, and a new generation takes in what changed."""

    remote = False

    def __init__(self, out: Path, choice: Choice | None = None) -> None:
        """`choice` says of which structure the indexes are."""
        self._out, self._choice = out, choice

    def current(self) -> str:
        """Return the name that CURRENT has."""
        return generation.current(self._out)

    def serve(self, name: str) -> None:
        """Write CURRENT."""
        with writing(self._out, overwrite=True):
            generation.serve(self._out, name)

    def open(self, name: str) -> Index:
        """Read one, and build its indexes in memory."""
        return Index(*read(self._out, name), self._choice)

    def keep_up(self, engine: Engine) -> None:
        """Do nothing: files take in nothing."""

    def absorb(self, store: Store, engine: Engine) -> int:
        """Do nothing: `serving.rebuild` makes the next generation."""
        return 0

    def forget(self, store: Store, before: float, served: str) -> None:
        """Remove the generations of before that hold one of these users."""
        out = self._out
        old = [
            name
            for name in generation.names(out)
            if name not in (self.current(), served)
            and (out / name / "manifest.json").stat().st_mtime < before
        ]
        gone = store.deleted_before(before) if old else set[str]()
        for name in old if gone else ():
            if _holds(out, name, gone):
                with writing(out, overwrite=True):
                    shutil.rmtree(out / name)
                log.info("generation %s held deleted users and is gone", name)

    def trouble(self) -> str:
        """Return ""."""
        return ""

    def close(self) -> None:
        """Do nothing."""


def _holds(out: Path, name: str, user_ids: set[str]) -> bool:
    """Return whether a generation holds one of these users, or cannot say."""
    try:
        return not user_ids.isdisjoint(generation.read(out, name)[1].user_ids.to_pylist())
    except BrokenIndex:
        return True


def generations_of(settings: Settings) -> Generations:
    """Return what the settings name: files, or files of the items and Milvus beside them."""
    if settings.vectors == "local":
        return LocalGenerations(settings.index, settings.choice)
    try:
        from serving.milvus.generations import MilvusGenerations
    except ModuleNotFoundError as missing:
        raise ValueError(
            f"vectors=milvus needs {missing.name}: pip install 'clue-users[milvus]'"
        ) from None
    return MilvusGenerations(settings)
