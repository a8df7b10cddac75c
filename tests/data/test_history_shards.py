import hashlib
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue.data import history_shards
from clue.data.cache import CacheConfig
from clue.data.corpus import Corpus
from clue.embed import EmbedConfig, embed
from clue.prepare import prepare
from tests.conftest import TinyRun
from tests.data.field_logs import FIELDS, with_fields
from tests.data.logs import config, many_events, write_log


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Corpus, Corpus]:
    """One corpus whole, and in four shards."""
    rows = with_fields(many_events(4000, seed=0), seed=1)
    rows += [{**row, "user_id": 7} for row in rows[:3000]]  # who alone has three of seven events
    log = f"events=[{write_log(tmp_path / 'log.jsonl', rows)}]"
    whole, cut = (
        prepare(config(tmp_path / name, log, FIELDS, shards), progress=False)
        for name, shards in (("whole", "shards=1"), ("cut", "shards=4"))
    )
    cache = CacheConfig(directory=tmp_path / "cache")
    return Corpus.open(whole, cache), Corpus.open(cut, cache)


def test_shards_are_parts_of_the_corpus_and_joined_it_is_the_same(
    pair: tuple[Corpus, Corpus], tmp_path: Path
) -> None:
    whole, cut = pair
    assert whole.fingerprint == cut.fingerprint
    bounds = cut.manifest.shards
    assert len(bounds) == 5 and bounds[0] == 0 and bounds[-1] == cut.num_users == 200
    names = [file.name for file in cut.path.iterdir()]
    assert len(names) == 4 + 2 * 4 and set(names) == {*cut.manifest.files, "manifest.json"}
    users = np.random.default_rng(0).permutation(200)[:90]  # of all shards, in any order
    for some in (users, np.arange(200), np.arange(3), np.empty(0, np.int64)):
        for service in range(2):
            items, times = cut.histories_of(service, some)
            known = whole.items_of(service).take(some)
            assert np.array_equal(items.values, known.values)
            assert np.array_equal(items.offsets, known.offsets)
            assert np.array_equal(times.values, whole.timestamps_of(service).take(some).values)
            for field in whole.fields_of(service):
                values = cut.field_of(service, field.name, some).values
                known = whole.field_of(service, field.name, some).values
                assert np.array_equal(values, known, equal_nan=field.kind == "numeric")
    with pytest.raises(ValueError, match="no field 'size'"):
        cut.field_of(0, "size", users)
    shards = history_shards.HistoryShards(
        *(cut.path, None, cut.services, np.array(bounds), cut.manifest.files),
        CacheConfig(directory=tmp_path / "cache"),
    )
    for service in cut.services:  # what the file that was cut is known by, without that file
        name = f"histories_{service}.arrow"
        assert shards.whole_sha256(service) == whole.manifest.files[name]["sha256"]
    assert not (tmp_path / "cache").exists()
    assert np.array_equal(cut.items_of(1).values, whole.items_of(1).values)
    (joined,) = [each for each in (tmp_path / "cache").iterdir() if each.is_dir()]
    for service in ("news", "shop"):
        name = f"histories_{service}.arrow"
        made = hashlib.sha256((joined / name).read_bytes()).hexdigest()
        assert made == whole.manifest.files[name]["sha256"]
    assert len(list(joined.iterdir())) == 2


def test_the_shard_of_the_users_asked_for_is_the_one_that_is_opened(
    pair: tuple[Corpus, Corpus],
) -> None:
    whole, cut = pair
    first, stop = cut.manifest.shards[1:3]
    shards = [file for file in cut.path.iterdir() if history_shards.is_shard(file.name)]
    others = [file for file in shards if not file.name.endswith("@00001.arrow")]
    assert len(shards) == 8 and len(others) == 6
    for file in others:
        file.unlink()
    users = np.arange(first, stop)
    items, _ = cut.histories_of(0, users)
    assert items.values.size and np.array_equal(items.values, whole.items_of(0).take(users).values)
    with pytest.raises(ValueError, match=r"@0000[23]\.arrow is missing"):
        cut.histories_of(0, np.array([stop]))


def test_a_user_with_most_events_leaves_shards_empty(tmp_path: Path) -> None:
    rows = [{**row, "user_id": "u5"} for row in many_events(2000, seed=2)]
    rows += [{**row, "user_id": f"u{n}"} for n, row in enumerate(rows[:9])]
    log = f"events=[{write_log(tmp_path / 'log.csv', rows)}]"
    cut = Corpus.open(
        prepare(config(tmp_path / "cut", log, "shards=6"), progress=False),
        CacheConfig(directory=tmp_path / "cache"),
    )
    assert 0 in np.diff(cut.manifest.shards) and cut.num_users == 9
    rows_of_all = [cut.histories_of(service, np.arange(9))[0] for service in range(2)]
    for service, rows in enumerate(rows_of_all):
        assert np.array_equal(rows.values, cut.items_of(service).values)
    with pytest.raises(ValueError, match="shards is 10, and there are 9 users"):
        prepare(config(tmp_path / "more", log, "shards=10"), progress=False)
    assert not (tmp_path / "more").exists()


def test_vectors_of_a_corpus_in_shards(tiny_run: TinyRun, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.corpus, tmp_path / "cut")
    history_shards.cut(tmp_path / "cut", 3)
    tables: list[pa.Table] = []
    for name, corpus in (("whole", tiny_run.corpus), ("cut", tmp_path / "cut")):
        out = tmp_path / f"{name}.parquet"
        cache = CacheConfig(directory=tmp_path / "cache")
        embed(
            EmbedConfig(
                checkpoint=tiny_run.run, corpus=corpus, out=out, shard_users=70, cache=cache
            )
        )
        tables.append(pq.read_table(out))
    assert tables[0].equals(tables[1]) and len(tables[0]) > 300
