"""A service's generations on either side of the protocol, without HTTP."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from clue.inference.encoder import Encoder
from serving.contents import Contents
from serving.engine import Engine, Query
from serving.generation import names, publish, writing
from serving.generations import Generations, LocalGenerations
from serving.loading import catch_up, load_engine
from serving.milvus.generations import MilvusGenerations
from serving.milvus.publish import PublishConfig, bring
from serving.rebuild import RebuildConfig, rebuild
from serving.settings import Settings
from serving.store import Store
from serving.vectors import Search
from serving.writes import Delete, Upsert

Side = Literal["local", "milvus"]
SIDES: tuple[Side, ...] = ("local", "milvus")
NOTHING = np.empty(0, np.int64)


@dataclass
class Arena:
    """A folder of one service: an index, a store, and on the side of Milvus the collections."""

    root: Path
    side: Side
    milvus: int  # its port
    encoder: Encoder
    kind: Literal["HNSW", "FLAT"] = "FLAT"
    published: dict[str, Contents] = field(default_factory=dict[str, Contents])

    @property
    def settings(self) -> Settings:
        """What the service would read of its environment."""
        own = {"vectors": "milvus", "milvus_uri": f"http://127.0.0.1:{self.milvus}"}
        return Settings(  # pyright: ignore[reportCallIssue]
            checkpoint=self.root,
            index=self.root / "index",
            store=self.root / "store",
            milvus_prefix=self.prefix,
            milvus_seconds=10,
            **(own if self.side == "milvus" else {}),  # pyright: ignore[reportArgumentType]
        )

    @property
    def prefix(self) -> str:
        """The prefix of its collections: one server has those of all tests."""
        return f"c_{self.root.name.replace('-', '_')}"

    def generations(self) -> Generations:
        """Return them, of which Milvus's hold no writes back."""
        if self.side == "local":
            return LocalGenerations(self.settings.index)
        return MilvusGenerations(self.settings, hold_seconds=0)

    def publish(self, contents: Contents, *, activate: bool = True) -> str:
        """Publish a generation of the arena's model."""
        contents = replace(contents, model_fingerprint=self.encoder.fingerprint)
        out = self.settings.index
        if self.side == "local":
            with writing(out, overwrite=True):
                name = publish(out, contents, activate=activate)
        else:
            source = self.root / f"source {len(self.published)}"
            with writing(source, overwrite=False):
                publish(source, contents)
            config = PublishConfig(
                index=source,
                out=out,
                uri=f"http://127.0.0.1:{self.milvus}",
                prefix=self.prefix,
                kind=self.kind,
                overwrite=True,
                activate=activate,
            )
            name = bring(config)
        self.published[name] = contents
        return name


class Session:
    """A started service of an arena: a store, and what answers."""

    def __init__(self, arena: Arena) -> None:
        """Open the store, and the generation of now."""
        self.arena = arena
        assert arena.settings.store is not None
        self.store = Store(arena.settings.store)
        self.generations = arena.generations()
        self.serve()
        self.store.on_commit = lambda: catch_up(self.store, self.engine)

    def serve(self, name: str | None = None) -> None:
        """Answer by a generation, by default that of now, with all that was written."""
        settings, encoder = self.arena.settings, self.arena.encoder
        name = self.generations.current() if name is None else name
        self.engine: Engine = load_engine(
            settings, name, self.store, encoder, generations=self.generations
        )

    def upsert(self, user_id: str, vector: np.ndarray, events: bytes = b"[]") -> None:
        """Write a user's vector."""
        model = self.arena.encoder.fingerprint
        write = Upsert(user_id=user_id, events=events, as_of=None, model=model, vector=vector)
        self.store.submit([write]).result(20)

    def delete(self, user_id: str) -> None:
        """Delete a user."""
        self.store.submit([Delete(user_id=user_id)]).result(20)

    def take_in(self) -> None:
        """Have the generation take in what was written: the next one, where it is of files."""
        if self.generations.remote:
            self.generations.absorb(self.store, self.engine)
            for _ in range(2):  # the first look notes the write, the next finds it old enough
                self.generations.keep_up(self.engine)
            return
        settings, width = self.arena.settings, self.arena.encoder.width
        assert settings.store is not None
        config = RebuildConfig(
            index=settings.index,
            store=settings.store,
            base=self.generations.current(),
            similarity=(0, width),
            ranking=(0, width),
        )
        rebuild(config)
        self.serve()

    def roll_back(self) -> None:
        """Serve the first generation that is still there."""
        self.generations.serve(names(self.arena.settings.index)[0])
        self.serve()

    def nearest(
        self, vector: np.ndarray, search: Search, without: str | None = None
    ) -> list[tuple[str, float]]:
        """Return the nearest users, (id, score)."""
        query = Query(vector=vector, search=search, without=without)
        (answer,) = self.engine.run([query])
        assert not isinstance(answer, Exception)
        users = answer.users
        if answer.sought is not None:
            users = self.engine.search(query, answer.sought)[1]
        assert users is not None
        return list(users)

    def close(self) -> None:
        """Let go of both."""
        self.store.close()
        with closing(self.generations):
            pass


def users(k: int, **more: object) -> Search:
    """Return a search for users."""
    return Search(kind="users", k=k, exclude=NOTHING, **more)  # pyright: ignore[reportArgumentType]


def items(k: int, exclude: Sequence[int] = (), **more: object) -> Search:
    """Return a search for items."""
    return Search(kind="items", k=k, exclude=np.array(exclude, np.int64), **more)  # pyright: ignore[reportArgumentType]
