"""Base, delta, tombstones and rebuilds against a plain dict and brute force."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from clue.inference.text_encoder import TextEncoder
from serving.engine import Engine, Query
from serving.generation import current, names, publish, read, serve, writing
from serving.loading import catch_up, load_engine
from serving.rebuild import RebuildConfig, rebuild
from serving.settings import Settings
from serving.store import Store
from serving.vectors import Search
from serving.writes import Delete, Embed, Upsert
from tests.conftest import TinyRun
from tests.serving.planted import contents, unit

KNOWN = [f"user {n}" for n in range(25)]
USERS = st.sampled_from([*KNOWN[:8], "ann", "bob", "a/b", "Zoë", "user 3x", "🙂"])


def vector_of(seed: int, width: int) -> np.ndarray:
    return unit(np.random.default_rng(seed), 1, width)[0]


class Service:
    """A store, an index and what answers by both, without HTTP."""

    def __init__(self, root: Path, encoder: TextEncoder) -> None:
        self.encoder, self.width = encoder, encoder.width
        self.settings = Settings(checkpoint=root, index=root / "index", store=root / "store")
        self.base = replace(contents(width=self.width), model_fingerprint=encoder.fingerprint)
        with writing(self.settings.index, overwrite=False):
            publish(self.settings.index, self.base)
        self.open()

    def open(self) -> None:
        assert self.settings.store is not None
        self.store = Store(self.settings.store)
        self.serve()
        self.store.on_commit = lambda: catch_up(self.store, self.engine)

    def serve(self) -> None:
        name = current(self.settings.index)
        self.engine: Engine = load_engine(self.settings, name, self.store, self.encoder)

    def upsert(self, user_id: str, vector: np.ndarray) -> None:
        write = Upsert(
            user_id=user_id,
            events=b"[]",
            as_of=None,
            model=self.encoder.fingerprint,
            vector=vector,
        )
        self.store.submit([write]).result(20)

    def rebuild(self) -> str:
        assert self.settings.store is not None
        config = RebuildConfig(
            index=self.settings.index,
            store=self.settings.store,
            base=current(self.settings.index),
            similarity=(0, self.width),
            ranking=(0, self.width),
        )
        return rebuild(config)

    def nearest(self, vector: np.ndarray, k: int, without: str | None = None) -> list[str]:
        search = Search(kind="users", k=k, exclude=np.empty(0, np.int64))
        (answer,) = self.engine.run([Query(vector=vector, search=search, without=without)])
        assert not isinstance(answer, Exception) and answer.users is not None
        scores = [score for _, score in answer.users]
        assert scores == sorted(scores, reverse=True)
        return [user_id for user_id, _ in answer.users]


class AgainstADict(RuleBasedStateMachine):
    """Whatever was done, a search finds the k nearest of those who live, or all of them."""

    encoder: TextEncoder

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.service = Service(self.root, self.encoder)
        base = self.service.base
        self.truth = dict(zip(base.user_ids.to_pylist(), base.user_vectors, strict=True))

    @rule(user_id=USERS, seed=st.integers(0, 10**6))
    def upsert(self, user_id: str, seed: int) -> None:
        self.truth[user_id] = vector_of(seed, self.service.width)
        self.service.upsert(user_id, self.truth[user_id])

    @rule(user_id=USERS)
    def delete(self, user_id: str) -> None:
        self.truth.pop(user_id, None)
        self.service.store.submit([Delete(user_id=user_id)]).result(20)

    @rule(seed=st.integers(0, 10**6), k=st.integers(1, 40), without=st.none() | USERS)
    def search(self, seed: int, k: int, without: str | None) -> None:
        vector = vector_of(seed, self.service.width)
        living = {u: v for u, v in self.truth.items() if u != without}
        best = sorted(living, key=lambda user_id: (-float(living[user_id] @ vector), user_id))
        assert self.service.nearest(vector, k, without) == best[:k]

    @rule()
    def publish(self) -> None:
        self.service.rebuild()
        self.service.serve()
        assert len(self.service.engine.delta) == self.service.engine.delta.num_dead == 0
        assert self.service.engine.index.num_users == len(self.truth)

    @rule()
    def roll_back(self) -> None:
        out = self.service.settings.index
        with writing(out, overwrite=True):
            serve(out, names(out)[0])
        self.service.serve()

    @rule()
    def restart(self) -> None:
        self.service.store.close()
        self.service.open()

    def teardown(self) -> None:
        if hasattr(self, "service"):
            self.service.store.close()
            shutil.rmtree(self.root)


@pytest.fixture(scope="module")
def encoder(tiny_run: TinyRun) -> TextEncoder:
    return TextEncoder.load(tiny_run.run)


def test_every_answer_is_that_of_a_plain_dict(encoder: TextEncoder) -> None:
    AgainstADict.encoder = encoder
    run_state_machine_as_test(
        AgainstADict,
        settings=settings(
            max_examples=6,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_who_lacks_a_vector_of_the_model_stays_in_the_delta(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    service = Service(tmp_path, encoder)
    service.upsert("ann", vector_of(1, service.width))
    other = Upsert(
        user_id="bob", events=b"[]", as_of=None, model="another", vector=np.ones(3, np.float32)
    )
    service.store.submit([other]).result(20)
    service.upsert("zoe", vector_of(2, service.width))
    service.rebuild()
    service.serve()
    assert service.engine.index.store_seq == 1 and list(service.engine.delta.missing) == ["bob"]
    assert service.nearest(vector_of(2, service.width), 1) == ["zoe"]
    assert len(service.nearest(vector_of(2, service.width), 100)) == 27
    vector = vector_of(3, service.width)
    made = Embed(user_id="bob", seq=2, model=encoder.fingerprint, vector=vector)
    service.store.submit([made]).result(20)
    service.engine.delta.embedded("bob", 2, vector)
    assert service.nearest(vector, 1) == ["bob"]
    service.rebuild()
    service.serve()
    assert service.engine.index.store_seq == 3 and not service.engine.delta.missing
    assert len(service.nearest(vector, 100)) == 28
    service.store.close()


def test_a_rebuild_keeps_the_items_and_what_base_users_have_seen(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    service = Service(tmp_path, encoder)
    service.upsert("user 3", vector_of(1, service.width))
    service.store.submit([Delete(user_id="user 7")]).result(20)
    _, made = read(service.settings.index, service.rebuild())
    base = service.base
    np.testing.assert_array_equal(made.item_vectors, base.item_vectors)
    ids = made.user_ids.to_pylist()
    assert ids == sorted(set(KNOWN) - {"user 7"})
    for row, user_id in enumerate(ids):
        seen = made.seen_values[made.seen_offsets[row] : made.seen_offsets[row + 1]]
        before = base.user_ids.to_pylist().index(user_id)
        wanted = [] if user_id == "user 3" else base.seen_values[3 * before : 3 * before + 3]
        np.testing.assert_array_equal(seen, wanted)
    service.store.close()
