# pyright: standard
"""The command: what it prints, what it refuses, and that a set is whole or is none."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.datasets.__main__ import DataConfig, run
from clue.data.corpus import Corpus
from tests.benchmarks.datasets.server import serve
from tests.benchmarks.datasets.sets import MIND, NEWS, made, zipped
from tests.processes import python, start


def test_the_command_ends_with_the_next_one_and_that_one_works(tmp_path: Path) -> None:
    out = tmp_path / "mind"
    with serve(MIND) as served:
        command = f"-m benchmarks.datasets mind-small out={out} mirror={served.url}"
        first = python(*command.split())
    assert first.returncode == 0, first.stderr
    assert first.stdout == (
        f"{out}: 7 events, 3 items, 8 impressions; next: python clue/prepare.py {out}/data.yaml\n"
    )
    before = (out / "events.parquet").read_bytes()
    again = python(*command.split())  # the server is gone: the files are there
    assert again.returncode == 0, again.stderr
    assert (out / "events.parquet").read_bytes() == before
    following = first.stdout.split("next: python ")[1].strip()
    done = python(*following.split(), f"out={tmp_path / 'corpus'}")
    assert done.returncode == 0, done.stderr
    assert Corpus.open(tmp_path / "corpus").num_users == 2


def test_a_set_that_fails_is_not_whole(tmp_path: Path) -> None:
    made(tmp_path, "mind-small", MIND)
    events = (tmp_path / "events.parquet").read_bytes()
    broken = {**MIND, "MINDsmall_dev.zip": MIND["MINDsmall_dev.zip"][:-30]}
    for file in (tmp_path / "raw").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"MINDsmall_dev\.zip is broken: .*; delete it and run"):
        made(tmp_path, "mind-small", broken)
    assert not (tmp_path / "data.yaml").exists()
    assert not (tmp_path / ".work").exists()
    assert not (tmp_path / "raw" / "lock.json").exists()  # the broken one is nobody's measure
    (tmp_path / "raw" / "MINDsmall_dev.zip").unlink()
    (tmp_path / ".work").mkdir()  # of a killed run
    (tmp_path / ".work" / "rows.duckdb").write_bytes(b"half")
    made(tmp_path, "mind-small", MIND)
    assert (tmp_path / "events.parquet").read_bytes() == events
    assert (tmp_path / "data.yaml").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "mind-small", "categories": ["Software"]}, "categories is a key of amazon-2023"),
        ({"name": "movielens-1m", "token": "x"}, "token is a key of mind-small"),
        ({"name": "mind-small", "mirror": "file:///x"}, "mirror='file:///x' must start with http"),
        ({"name": "amazon-2023", "categories": ["Video_Game"]}, "there is Video_Games"),
        ({"name": "amazon-2023", "categories": ["Software"] * 2}, "Software is named twice"),
        ({"name": "recsys-2025", "services": ["buy"]}, "no 'buy' in the log; there are product_b"),
        ({"name": "recsys-2025", "services": ["page_visit"] * 2}, "page_visit is named twice"),
    ],
)
def test_what_a_set_does_not_have_is_refused(
    tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(DataConfig(out=tmp_path / "set", **keys))
    assert list(tmp_path.iterdir()) == []


def test_a_set_without_a_name_and_one_by_a_wrong_name() -> None:
    for words, message in ("", "missing key name"), ("movielens", "name: Input should be"):
        done = python("-m", "benchmarks.datasets", *words.split())
        assert done.returncode == 2
        assert message in done.stderr


def test_a_killed_download_is_gone_on_with(tmp_path: Path) -> None:
    """The first process is killed in the middle of a file, the second asks for the rest."""
    padding = random.Random(0).randbytes(4 << 20)
    files = {
        name: zipped({"news.tsv": NEWS.encode(), "behaviors.tsv": b"", "more.vec": padding})
        for name in MIND
    }
    part = tmp_path / "set" / "raw" / "MINDsmall_train.zip.part"
    with serve(files) as served:
        command = [
            "-m",
            "benchmarks.datasets",
            "mind-small",
            f"out={tmp_path / 'set'}",
            f"mirror={served.url}",
        ]
        served.stall = 3 << 20
        one = start(*command, said=tmp_path)
        limit = time.monotonic() + 60
        while not (part.is_file() and part.stat().st_size >= 2 << 20):
            assert time.monotonic() < limit
            time.sleep(0.02)
        one.kill()
        one.join()
        served.stall = None
        assert not (tmp_path / "set" / "raw" / "MINDsmall_train.zip").exists()
        had = part.stat().st_size
        done = python(*command)
    assert done.returncode == 0, done.stderr
    assert ("MINDsmall_train.zip", f"bytes={had}-") in served.gets()
    for name, content in files.items():
        assert (tmp_path / "set" / "raw" / name).read_bytes() == content
