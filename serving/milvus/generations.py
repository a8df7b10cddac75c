"""Generations: items in files, vectors in Milvus, whose alias says which is served."""

from itertools import takewhile

from serving import generation
from serving.catalogue import Catalogue
from serving.engine import Engine
from serving.generation import read, writing
from serving.milvus.index import HOLD_SECONDS, MilvusIndex
from serving.milvus.link import Link
from serving.milvus.tables import Tables
from serving.settings import Settings
from serving.store import Store

TOGETHER = 500  # users written in one go: 2 MB at a width of 768


class MilvusGenerations:
    """See `Generations`: a generation in Milvus takes in what is written, and is never rebuilt."""

    remote = True

    def __init__(self, settings: Settings, *, hold_seconds: float = HOLD_SECONDS) -> None:
        """Connect to nothing yet."""
        secret = settings.milvus_token
        token = secret.get_secret_value() if secret else ""
        assert settings.milvus_uri is not None
        self._link = Link(settings.milvus_uri, token, seconds=settings.milvus_seconds)
        self.tables = Tables(self._link, settings.milvus_prefix)
        self._out, self._hold_seconds = settings.index, hold_seconds

    def current(self) -> str:
        """Return the generation that the alias names; raises FileNotFoundError without one."""
        name = self.tables.current()
        if name is None:
            raise FileNotFoundError(
                f"Milvus has no alias {self.tables.prefix}; python -m serving.milvus.publish"
            )
        return name

    def serve(self, name: str) -> None:
        """Have the alias name another, and then CURRENT, which is there for people."""
        with writing(self._out, overwrite=True):
            self.tables.activate(name)
            generation.serve(self._out, name)

    def open(self, name: str) -> MilvusIndex:
        """Read the items of one; raises BrokenIndex where files or record are not as they were."""
        catalogue = Catalogue(*read(self._out, name))
        return MilvusIndex(self.tables, catalogue, hold_seconds=self._hold_seconds)

    def keep_up(self, engine: Engine) -> None:
        """Let go of the users whom every search of Milvus sees by now."""
        index = engine.index
        assert isinstance(index, MilvusIndex)
        index.refresh()
        engine.delta.settle(index.settled)

    def absorb(self, store: Store, engine: Engine) -> int:
        """Write what the store holds, as far as the model has embedded it."""
        index, encoder = engine.index, engine.encoder
        assert isinstance(index, MilvusIndex)
        taken = 0
        while changes := store.changes(index.store_seq, encoder.fingerprint, most=TOGETHER):
            ready = [*takewhile(lambda each: each[0].events is None or each[1], changes)]
            if ready:
                index.take_in(ready, encoder, store.name)
                taken += len(ready)
            if len(ready) < len(changes):
                break
        return taken

    def forget(self, store: Store, before: float, served: str) -> None:
        """Delete them there: who is in an index may come to Milvus after their deletion."""
        gone = sorted(store.deleted_before(before))
        names = [name for name in self.tables.names() if name != served] if gone else []
        for start in range(0, len(gone), TOGETHER):
            self.tables.forget(names, gone[start : start + TOGETHER])

    def trouble(self) -> str:
        """Return why Milvus is not asked now, "" where it is."""
        return self._link.trouble

    def close(self) -> None:
        """Let go of the client."""
        self._link.close()
