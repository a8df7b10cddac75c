import dataclasses
import fcntl
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.contents import BrokenIndex, Contents
from serving.generation import publish, read, writing
from tests.serving.planted import contents


def write(out: Path, what: Contents, *, overwrite: bool = False) -> str:
    with writing(out, overwrite=overwrite):
        return publish(out, what)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    wrote = contents()
    name = write(tmp_path / "index", wrote)
    found, back = read(tmp_path / "index")
    assert found == name
    for field in dataclasses.fields(Contents):
        a, b = getattr(wrote, field.name), getattr(back, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
        else:
            assert a == b


def test_an_index_is_replaced_only_when_asked_and_the_one_before_stays(tmp_path: Path) -> None:
    out = tmp_path / "index"
    names = [write(out, contents())]
    with pytest.raises(FileExistsError, match="overwrite=true"):
        write(out, contents(seed=1))
    assert read(out)[0] == names[0]
    names += [write(out, contents(seed=seed), overwrite=True) for seed in (1, 2, 3)]
    assert [name[:6] for name in names] == ["000001", "000002", "000003", "000004"]
    assert read(out)[0] == names[-1]
    assert sorted(p.name for p in out.iterdir()) == [".lock", *names[-2:], "CURRENT"]


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.tex"):
        write(tmp_path, contents(), overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "index"
    write(out, contents())
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process"):
            write(out, contents(), overwrite=True)


def test_killed_at_any_step_the_old_generation_or_the_new_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every system call that publishing makes through `os` or `Path` fails once, in turn."""

    class Killed(BaseException):
        pass

    calls = [(os, "fsync"), (os, "open"), (Path, "rename"), (Path, "replace"), (Path, "chmod")]
    checked = 0
    for owner, call in calls:
        for step in range(20):
            out = tmp_path / f"{call}-{step}"
            old = write(out, contents())
            left = [step]
            real = getattr(owner, call)

            def dying(*args: Any, _real: Any = real, _left: Any = left, **kwargs: Any) -> Any:
                if _left[0] == 0:
                    raise Killed
                _left[0] -= 1
                return _real(*args, **kwargs)

            with monkeypatch.context() as patch:
                patch.setattr(owner, call, dying)
                try:
                    new = write(out, contents(seed=1), overwrite=True)
                except Killed:
                    new = ""
            assert (out / old).is_dir()
            name, found = read(out)
            model = contents(seed=int(name != old))
            np.testing.assert_array_equal(found.item_vectors, model.item_vectors)
            again = write(out, contents(seed=2), overwrite=True)
            assert read(out)[0] == again
            assert not list(out.glob(".building-*"))
            checked += 1
            if new:
                break
    assert checked > 10


def test_every_bit_flip_and_truncation_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "index"
    name = write(out, contents())
    rng = np.random.default_rng(0)
    files = [out / "CURRENT", *sorted((out / name).iterdir())]
    assert len(files) == 5
    checked = 0
    for path in files:
        whole = path.read_bytes()
        damaged = [whole[: len(whole) * part // 10] for part in range(10)]
        damaged += [whole + b"\0", b"\0" * len(whole)]
        for bit in rng.integers(0, 8 * len(whole), 40):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << (bit % 8)
            damaged.append(bytes(flipped))
        for blob in damaged:
            path.write_bytes(blob)
            with pytest.raises(BrokenIndex) as refused:
                read(out)
            assert str(tmp_path) not in str(refused.value)
            checked += 1
        path.unlink()
        with pytest.raises((BrokenIndex, FileNotFoundError)):
            read(out)
        path.write_bytes(whole)
    assert checked == 5 * 52
    assert read(out)[0] == name


def test_no_index_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="clue index"):
        read(tmp_path)
