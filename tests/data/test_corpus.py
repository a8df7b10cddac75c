import dataclasses
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clue.data.columns import history_file, ragged_column, write_columns
from clue.data.corpus import Corpus, Manifest, building, read_manifest, seal
from clue.data.ragged import Ragged


def write(path: Path, users: int, events_each: int, service: str = "shop") -> None:
    """Write a corpus of one item whose users did it `events_each` times."""
    path.mkdir()
    offsets = np.arange(users + 1, dtype=np.int64) * events_each
    items = Ragged(np.zeros(offsets[-1], dtype=np.int32), offsets)
    times = Ragged(np.arange(offsets[-1], dtype=np.float64), offsets)
    write_columns(
        path / "users.arrow",
        {
            "user_id": pa.array([f"u{n:06d}" for n in range(users)]),
            "split": pa.array(np.arange(users) % 3, pa.uint8()),
        },
    )
    write_columns(
        path / "items.arrow",
        {
            "item_id": pa.array(["a"]),
            "service": pa.array([0], pa.uint8()),
            "text": pa.array(["skillet"], pa.large_string()),
            "tokens": ragged_column(Ragged(np.array([5, 7], np.int32), np.array([0, 2]))),
            "content": pa.array([11], pa.int64()),
        },
    )
    columns = {"items": ragged_column(items), "timestamps": ragged_column(times)}
    write_columns(history_file(path, service), columns)
    (path / "tokenizer.json").write_text("{}")
    seal(path, manifest(users, users * events_each, service))


def manifest(users: int, events: int, service: str) -> Manifest:
    return Manifest(
        name="test",
        services=[service],
        num_users=users,
        num_items=1,
        num_events={service: events},
        clocks={service: False},
        num_tokens=2,
        split={},
        max_item_tokens=8,
        vocab_size=300,
        seed=0,
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "c", users=7, events_each=2)
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.user_ids.to_pylist()[6] == "u000006"
    assert corpus.users_in("valid").tolist() == [1, 4] and corpus.users_in("test").dtype == np.int64
    assert corpus.item_tokens[0].tolist() == [5, 7] and corpus.item_tokens.values.dtype == np.int32
    rows, times = corpus.items_of(0), corpus.timestamps_of(0)
    assert len(rows) == 7 and rows.lengths.tolist() == [2] * 7 and rows.values.dtype == np.int32
    assert times[3].tolist() == [6.0, 7.0] and np.array_equal(rows.offsets, times.offsets)
    assert corpus.item_content.tolist() == [11] and corpus.item_texts.to_pylist() == ["skillet"]


def test_arrays_are_views_of_the_mapped_file(tmp_path: Path) -> None:
    write(tmp_path / "c", users=100, events_each=1000)
    before = pa.total_allocated_bytes()
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.timestamps_of(0).values.sum() == sum(range(100_000))
    assert pa.total_allocated_bytes() - before < 10_000  # the file has 1.2 MB
    with pytest.raises(ValueError, match="read-only"):
        corpus.items_of(0).values[0] = 1


def test_opening_costs_the_same_however_many_events(tmp_path: Path) -> None:
    seconds: list[float] = []
    for name, events in (("small", 10), ("large", 20_000)):
        write(tmp_path / name, users=100, events_each=events)
        Corpus.open(tmp_path / name)
        tries: list[float] = []
        for _ in range(20):
            start = time.perf_counter()
            Corpus.open(tmp_path / name).items_of(0)
            tries.append(time.perf_counter() - start)
        seconds.append(min(tries))
    assert seconds[1] < 3 * seconds[0] + 0.002  # 2,000 times the events


def test_a_row_beyond_the_last_is_refused() -> None:
    rows = Ragged(np.array([1, 2, 3]), np.array([0, 1, 3]))
    assert rows[1].tolist() == [2, 3]
    for row in (2, -1):
        with pytest.raises(IndexError, match=str(row)):
            rows[row]


def test_a_service_may_have_any_name(tmp_path: Path) -> None:
    write(tmp_path / "c", users=3, events_each=1, service="a/b ünlü")
    assert Corpus.open(tmp_path / "c").items_of(0).values.tolist() == [0, 0, 0]


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    for name, events in (("one", 2), ("same", 2), ("other", 3)):
        write(tmp_path / name, users=4, events_each=events)
    one, same, other = (Corpus.open(tmp_path / n).fingerprint for n in ("one", "same", "other"))
    assert one == same != other


def test_no_corpus_and_wrong_corpora_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="prepare"):
        Corpus.open(tmp_path / "none")
    write(tmp_path / "c", users=4, events_each=1)
    history_file(tmp_path / "c", "shop").rename(tmp_path / "away")
    with pytest.raises(ValueError, match=r"histories_shop.arrow is missing.*overwrite"):
        Corpus.open(tmp_path / "c")
    (tmp_path / "away").rename(history_file(tmp_path / "c", "shop"))
    whole = read_manifest(tmp_path / "c")
    seal(tmp_path / "c", dataclasses.replace(whole, num_users=5))
    with pytest.raises(ValueError, match="5 users"):
        Corpus.open(tmp_path / "c")
    for older in (1, 2):
        seal(tmp_path / "c", dataclasses.replace(whole, format=older))
        with pytest.raises(ValueError, match=f"format {older}, this version reads 3; prepare it"):
            Corpus.open(tmp_path / "c")


def test_a_block_that_raises_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "c"
    write(target, users=3, events_each=1)
    before = Corpus.open(target).fingerprint
    with pytest.raises(RuntimeError), building(target, replace=True) as scratch:
        (scratch / "corpus" / "half").write_text("x")
        raise RuntimeError
    assert Corpus.open(target).fingerprint == before
    assert not (tmp_path / ".c.partial").exists()


def test_a_kill_between_the_two_renames_loses_no_corpus(tmp_path: Path) -> None:
    target, scratch = tmp_path / "c", tmp_path / ".c.partial"
    write(target, users=3, events_each=1)
    before = Corpus.open(target).fingerprint
    scratch.mkdir()
    target.rename(scratch / "replaced")
    with pytest.raises(RuntimeError), building(target, replace=True):
        raise RuntimeError
    assert Corpus.open(target).fingerprint == before


def test_two_builders_do_not_meet(tmp_path: Path) -> None:
    with (
        building(tmp_path / "c", replace=False),
        pytest.raises(ValueError, match="another process"),
        building(tmp_path / "c", replace=False),
    ):
        pass
    with pytest.raises(ValueError, match="meanwhile"), building(tmp_path / "c", replace=False):
        pass
    with building(tmp_path / "c", replace=True) as scratch:
        (scratch / "corpus" / "new").write_text("x")
    assert [file.name for file in (tmp_path / "c").iterdir()] == ["new"]
