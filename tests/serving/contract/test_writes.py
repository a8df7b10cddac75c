"""Users written, replaced and deleted under both sides: each answer is that of a plain dict."""

import dataclasses
import shutil
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from serving.contents import BrokenIndex
from serving.filters import UserFilter
from serving.loading import NotServable, load_engine
from serving.milvus.generations import MilvusGenerations
from serving.milvus.tables import key_of
from tests.serving.contract.arena import Arena, Session, items, users
from tests.serving.planted import contents, unit

KNOWN = [f"user {n}" for n in range(25)]
USERS = st.sampled_from([*KNOWN[:8], "ann", "a/b", 'Zoë"', "user 3x", "🙂\\"])


def vector_of(seed: int, width: int) -> np.ndarray:
    return unit(np.random.default_rng(seed), 1, width)[0]


class AgainstADict(RuleBasedStateMachine):
    """Whatever was done, a search finds the k nearest of those who live, or all of them."""

    arena: Arena
    runs = 0

    @initialize()
    def begin(self) -> None:
        AgainstADict.runs += 1
        root = Path(tempfile.mkdtemp(dir=self.arena.root, prefix=f"run_{self.runs}_"))
        self.own = dataclasses.replace(self.arena, root=root, published={})
        self.width = self.arena.encoder.width
        base = contents(width=self.width)
        self.own.publish(base)
        self.session = Session(self.own)
        self.truth = dict(zip(base.user_ids.to_pylist(), base.user_vectors, strict=True))

    @rule(user_id=USERS, seed=st.integers(0, 10**6))
    def upsert(self, user_id: str, seed: int) -> None:
        self.truth[user_id] = vector_of(seed, self.width)
        self.session.upsert(user_id, self.truth[user_id])

    @rule(user_id=USERS)
    def delete(self, user_id: str) -> None:
        self.truth.pop(user_id, None)
        self.session.delete(user_id)

    @rule(seed=st.integers(0, 10**6), k=st.integers(1, 40), without=st.none() | USERS)
    def search(self, seed: int, k: int, without: str | None) -> None:
        vector = vector_of(seed, self.width)
        living = {u: v for u, v in self.truth.items() if u != without}
        best = sorted(living, key=lambda user_id: (-float(living[user_id] @ vector), user_id))
        hits = self.session.nearest(vector, users(k), without)
        assert [user_id for user_id, _ in hits] == best[:k]

    @rule()
    def take_in(self) -> None:
        self.session.take_in()
        assert len(self.session.engine.delta) == 0

    @rule()
    def roll_back(self) -> None:
        self.session.roll_back()

    @rule()
    def restart(self) -> None:
        self.session.close()
        self.session = Session(self.own)

    def teardown(self) -> None:
        if hasattr(self, "session"):
            self.session.close()
            shutil.rmtree(self.own.root)


def test_every_answer_is_that_of_a_plain_dict(arena: Arena) -> None:
    AgainstADict.arena = arena
    run_state_machine_as_test(
        AgainstADict,
        settings=settings(
            max_examples=3,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_filters_see_what_was_written_before_and_after_it_is_taken_in(arena: Arena) -> None:
    width = arena.encoder.width
    arena.publish(contents(width=width))
    with closing(Session(arena)) as session:
        both = b'[{"service": "films"}, {"service": "news"}, {"service": "news"}]'
        session.upsert("ann", vector_of(1, width), both)
        session.upsert("user 3", vector_of(2, width), b'[{"service": "news"}]')
        for taken in (False, True):
            if taken:
                session.take_in()
            for wanted, ids in (
                (UserFilter(services=(0, 1), min_events=3), {*KNOWN, "ann"} - {"user 3"}),
                (UserFilter(services=(1,), min_events=1), {*KNOWN, "ann"}),
                (UserFilter(min_events=4), set[str]()),
            ):
                hits = session.nearest(vector_of(3, width), users(100, filter=wanted))
                assert {user_id for user_id, _ in hits} == ids
            known = session.engine.index.user("ann")
            assert (known is not None) == taken
            if known is not None:
                np.testing.assert_allclose(known.vector, vector_of(1, width), atol=1e-6)
                assert known.events.tolist() == [1, 2, 0]


def test_another_generation_is_served_from_one_moment_on(arena: Arena) -> None:
    """No answer is of two: users and items of one, and the scores of no other."""
    width = arena.encoder.width
    first, second = (contents(width=width, seed=seed) for seed in (1, 2))
    names = [arena.publish(first), arena.publish(second, activate=False)]
    generations = arena.generations()
    query, wrong, answers = vector_of(5, width), list[str](), dict.fromkeys(names, 0)
    truth = {
        name: (sorted(-(made.user_vectors @ query))[:3], sorted(-(made.item_vectors @ query))[:3])
        for name, made in zip(names, (first, second), strict=True)
    }
    ended = threading.Event()

    def ask() -> None:
        index = generations.open(generations.current())
        while not ended.is_set():
            name = generations.current()
            if name != index.catalogue.name:
                index = generations.open(name)
            (near,) = index.nearest_users([query], [users(3)], [None], index.left_out([]))
            (hits,) = index.nearest_items([query], [items(3)])
            scores = ([-score for _, score in near], (-hits.scores).tolist())
            own = truth[index.catalogue.name]
            if not all(np.allclose(a, b, atol=1e-5) for a, b in zip(scores, own, strict=True)):
                wrong.append(name)
            answers[index.catalogue.name] += 1

    with closing(generations):
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for turn in range(8):
            before = dict(answers)
            target = names[(turn + 1) % 2]
            generations.serve(target)
            while answers[target] < before[target] + 2 and any(t.is_alive() for t in threads):
                ended.wait(0.005)
        ended.set()
        for thread in threads:
            thread.join(20)
    assert not wrong and min(answers.values()) >= 8


def test_a_deleted_user_is_in_no_generation_of_milvus(milvus: int, arena: Arena) -> None:
    if arena.side == "local":
        pytest.skip("files are rebuilt and removed: tests/serving/test_upkeep.py")
    width = arena.encoder.width
    names = [arena.publish(contents(width=width, seed=seed), activate=seed == 1) for seed in (0, 1)]
    with closing(Session(arena)) as session:
        session.upsert("ann", vector_of(1, width))
        session.take_in()
        session.delete("ann")
        session.delete("user 3")
        session.take_in()
        assert isinstance(session.generations, MilvusGenerations)
        tables = session.generations.tables
        for name in names:
            for user_id, left in (("ann", 0), ("user 3", 0), ("user 4", 1)):
                keys = [key_of(user_id)]
                assert tables.link.call("get", tables.users(name), ids=keys, read=len) == left


def test_vectors_of_another_model_or_store_are_refused(arena: Arena, tmp_path: Path) -> None:
    width = arena.encoder.width
    name = arena.publish(contents(width=width))
    with closing(Session(arena)) as session:
        session.upsert("ann", vector_of(1, width))
        session.take_in()
        name = session.generations.current()
        with pytest.raises(NotServable, match="another store"):
            load_engine(arena.settings, name, None, arena.encoder, generations=session.generations)
        if isinstance(session.generations, MilvusGenerations):
            tables = session.generations.tables
            record = tables.record(name)
            assert record is not None
            for wrong in ({"model_fingerprint": "0" * 64}, {"num_items": 7}):
                tables.note(name, dataclasses.replace(record, **wrong))  # pyright: ignore[reportArgumentType]
                with pytest.raises(BrokenIndex, match="publish it"):
                    session.generations.open(name)
            tables.link.call("delete", f"{tables.prefix}_generations", ids=[name], read=len)
            with pytest.raises(BrokenIndex, match=r"serving\.milvus\.publish"):
                session.generations.open(name)
