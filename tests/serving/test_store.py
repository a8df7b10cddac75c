import multiprocessing
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from serving.rows import BrokenStore
from serving.sqlite import StoreFull
from serving.store import ACKNOWLEDGED, FILE, NOTE_BYTES, Store, StoreClosed
from serving.store_lock import StoreRefused
from serving.writes import Conflict, Delete, Embed, Goal, Upsert
from tests.processes import FORKS

MODEL = "m" * 64


def upsert(user_id: str, events: str = "[]", *, seed: int = 0, if_seq: int | None = None) -> Upsert:
    vector = np.random.default_rng(seed).standard_normal(8).astype(np.float32)
    whole = events.encode()
    return Upsert(
        user_id=user_id, events=whole, as_of=None, model=MODEL, vector=vector, if_seq=if_seq
    )


def write(store: Store, *writes: Upsert | Delete | Embed | Goal) -> list[int]:
    return store.submit(writes).result(20)


@contextmanager
def opened(directory: Path) -> Generator[Store]:
    store = Store(directory)
    try:
        yield store
    finally:
        store.close()


def events(store: Store, user_id: str) -> bytes | None:
    user = store.user(user_id)
    return None if user is None else user.events


def test_what_was_written_is_read_at_once_and_after_reopening(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert write(store, upsert("b", "one"), upsert("a", "two", seed=1)) == [1, 2]
        assert write(store, upsert("b", "three", seed=2)) == [3]
        assert write(store, Delete(user_id="a"), Delete(user_id="never")) == [4, 5]
        assert store.user("nobody") is None
    with opened(tmp_path) as store:
        assert (events(store, "b"), events(store, "a")) == (b"three", None)
        made = store.vector("b", MODEL)
        assert made is not None
        np.testing.assert_array_equal(made.vector, upsert("b", seed=2).vector)
        assert store.vector("b", "other") is None and store.vector("a", MODEL) is None
        assert (store.state().users, store.state().seq) == (1, 5)
        after = store.changes(2, MODEL)
        assert [(user.user_id, user.seq) for user, _ in after] == [("b", 3), ("a", 4), ("never", 5)]
        assert [made is None for _, made in after] == [False, True, True]
        with pytest.raises(StoreRefused, match="another service"):  # not even this process
            subprocess_store(tmp_path)
    assert write_fails(store)


def write_fails(store: Store) -> bool:
    with pytest.raises(StoreClosed):
        write(store, upsert("late"))
    return True


def subprocess_store(directory: Path) -> None:
    """Open the store as a service of its own; raises StoreRefused with what that one said."""
    code = "import sys; from pathlib import Path; from serving.store_lock import hold; "
    command = [sys.executable, "-c", code + "hold(Path(sys.argv[1]))", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    raise StoreRefused(done.stderr.splitlines()[-1])


def test_a_write_that_read_something_older_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        write(store, upsert("a", "one", if_seq=0))
        for stale in (0, 2):
            with pytest.raises(Conflict):
                write(store, upsert("b", "never"), upsert("a", "two", if_seq=stale))
        assert store.state().seq == 1 and store.user("b") is None
        assert write(store, upsert("a", "two", if_seq=1)) == [2]


def test_vectors_of_another_model_come_beside_and_go_with_the_next_write(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        write(store, upsert("a"), upsert("b"), upsert("c"), Delete(user_id="c"))
        assert [user.user_id for user in store.lacking("new")] == ["a", "b"]
        vector = np.arange(3, dtype=np.float32)
        write(store, *(Embed(user_id=u, seq=1, model="new", vector=vector) for u in "abc"))
        assert [user.user_id for user in store.lacking("new")] == ["b"]  # which is no longer so old
        write(store, upsert("a", "more"), Goal(generation="000002-x"))
        assert [user.user_id for user in store.lacking("new")] == ["a", "b"]
        assert store.vector("a", "new") is None and store.state().goal == "000002-x"


def test_32_threads_that_upsert_one_user_leave_one_row(tmp_path: Path) -> None:
    numbers: list[int] = []
    with opened(tmp_path) as store:

        def work(thread: int) -> None:
            for n in range(20):
                numbers.extend(write(store, upsert("same", f"{thread} {n}")))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(numbers) == list(range(1, 641))
        assert store.state().users == 1
        assert [user.seq for user, _ in store.changes(0, MODEL)] == [640]


def worker(directory: Path, name: str, count: int, answers: "multiprocessing.Queue[str]") -> None:
    """Write and read as one of a service's processes."""
    store = Store(directory)
    futures: list[Future[list[int]]] = []
    for n in range(count):
        futures.append(store.submit([upsert(f"{name} {n}"), upsert("shared", f"{name} {n}")]))
        futures[-1].result(20)
        assert events(store, f"{name} {n}") is not None
    answers.put(",".join(str(seq) for future in futures for seq in future.result()))
    store.close()


def test_the_processes_of_one_service_share_a_store(tmp_path: Path) -> None:
    answers: multiprocessing.Queue[str] = FORKS.Queue()
    processes = [FORKS.Process(target=worker, args=(tmp_path, n, 20, answers)) for n in "ab"]
    for process in processes:
        process.start()
    numbers = [int(seq) for _ in processes for seq in answers.get(timeout=60).split(",")]
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(numbers) == list(range(1, 81))
    with opened(tmp_path) as store:
        assert store.state().users == 41


def test_a_full_disk_refuses_writes_and_nothing_else(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        # a write's note lies in room taken before it: it was committed, and must not fail then
        assert (tmp_path / ACKNOWLEDGED).stat().st_size == NOTE_BYTES
        write(store, upsert("a", "x" * 100))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        try:
            for n in range(4):
                with pytest.raises(StoreFull):
                    write(store, upsert(f"big {n}", "x" * 1_000_000))
                assert events(store, "a") == b"x" * 100
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert write(store, upsert("big", "x" * 1_000_000)) == [2]  # by itself, without restart
    with opened(tmp_path) as store:
        assert store.state().users == 2


def test_a_directory_that_cannot_be_written_is_refused() -> None:
    # the root directory of whoever is not root; imports first, for they may lie where root may read
    code = (
        "import os, sys; from pathlib import Path; from serving.store_lock import hold\n"
        "os.getuid() or os.setuid(65534)\n"
        "hold(Path('/store'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot be written (Permission denied)" in done.stderr.splitlines()[-1]


def crashed(directory: Path) -> dict[str, bytes]:
    """Make a store whose process ended without closing it; return all that it holds."""
    store = Store(directory / "whole")
    truth: dict[str, bytes] = {}
    for n in range(40):
        truth[f"user {n}"] = f"{n} ".encode() * (5 + 60 * (n % 4))
        write(store, upsert(f"user {n}", truth[f"user {n}"].decode(), seed=n))
        if n == 30:
            store._writer.execute("PRAGMA wal_checkpoint(PASSIVE)")  # pyright: ignore[reportPrivateUsage]
    shutil.copytree(directory / "whole", directory / "crashed")
    store.close()
    return truth


def test_flipped_bits_and_truncations_are_never_served(tmp_path: Path) -> None:
    truth = crashed(tmp_path)
    source = tmp_path / "crashed"
    assert (source / f"{FILE}-wal").stat().st_size > 10_000
    rng = np.random.default_rng(0)
    refused = intact = 0
    for n in range(64):
        broken = tmp_path / "broken"
        shutil.copytree(source, broken)
        file = broken / [FILE, f"{FILE}-wal", FILE, ACKNOWLEDGED][n % 4]
        blob = bytearray(file.read_bytes())
        if n % 8 < 6:
            blob[rng.integers(len(blob))] ^= 1 << int(rng.integers(8))
        else:
            del blob[rng.integers(len(blob)) :]
        file.write_bytes(blob)
        try:
            with opened(broken) as store:
                for user_id, whole in truth.items():
                    assert events(store, user_id) == whole
                    assert store.vector(user_id, MODEL) is not None
                intact += 1  # a byte that holds nothing, or an older page than the log's
        except BrokenStore as error:
            assert "damaged" in str(error) and str(tmp_path) not in str(error)
            refused += 1
        shutil.rmtree(broken)
    assert refused + intact == 64 and refused > 8


def test_a_young_store_whose_log_is_damaged_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    """It lies in the log alone: with the log's first bytes SQLite sees an empty file."""
    store = Store(tmp_path / "whole")
    write(store, upsert("a"), upsert("b"))
    shutil.copytree(tmp_path / "whole", tmp_path / "crashed")
    store.close()
    log = tmp_path / "crashed" / f"{FILE}-wal"
    blob = bytearray(log.read_bytes())
    for damage in (bytes([blob[0] ^ 1]) + blob[1:], b"", blob[:1000]):
        log.write_bytes(damage)
        with pytest.raises(BrokenStore, match="damaged"), opened(tmp_path / "crashed"):
            pass


def test_what_a_kill_left_unnoted_is_noted_when_it_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "whole")
    write(store, upsert("a"))
    note = (tmp_path / "whole" / ACKNOWLEDGED).read_bytes()
    write(store, upsert("b"))
    shutil.copytree(tmp_path / "whole", tmp_path / "crashed")
    later = (tmp_path / "whole" / ACKNOWLEDGED).read_bytes()
    store.close()
    (tmp_path / "crashed" / ACKNOWLEDGED).write_bytes(note)  # killed between commit and note
    with opened(tmp_path / "crashed"):
        assert (tmp_path / "crashed" / ACKNOWLEDGED).read_bytes() == later != note


def test_what_other_programs_left_does_not_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"a process of long ago")
    (tmp_path / ACKNOWLEDGED).write_bytes(b"torn")
    (tmp_path / "lost+found").mkdir()
    with opened(tmp_path) as store:
        assert write(store, upsert("a")) == [1]
    assert (tmp_path / ACKNOWLEDGED).stat().st_size == 24
