# pyright: standard
"""Checkpoints: what stays, what a full disk and damage leave, and what is said about it."""

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clue.data.corpus import Corpus
from clue.run import checkpoint
from clue.run.pretrain_config import PretrainConfig
from clue.train.state_dict import StateDict
from tests.conftest import TinyRun

MIB = 1 << 20


@pytest.fixture
def config(tiny_run: TinyRun, tmp_path: Path) -> PretrainConfig:
    """Run under tmp_path; nothing is trained here."""
    return PretrainConfig(name="kept", corpus=tiny_run.corpus, runs=tmp_path)


def state(seed: int, nbytes: int = 256) -> StateDict:
    """Return weights of `nbytes` and as many bytes of optimiser state, with a plain number."""
    random = torch.Generator().manual_seed(seed)
    weight, slot = (torch.rand(nbytes // 4, generator=random) for _ in range(2))
    return StateDict(
        {"w": weight}, {"w/exp_avg": slot, "w/step": torch.tensor(3.0), "w/count": seed}
    )


def save(config: PretrainConfig, step: int, entropy: float | None = None) -> checkpoint.Checkpoint:
    figures = {} if entropy is None else {"a-b": {"calibrated_entropy": entropy}}
    return checkpoint.save(config, Corpus.open(config.corpus), state(step), step, figures)


def names(config: PretrainConfig) -> set[str]:
    return {path.name for path in (config.run / "checkpoints").iterdir()}


def test_what_was_saved_is_read_again(config: PretrainConfig) -> None:
    save(config, 7)
    found, expected = checkpoint.find_last(config.run), state(7)
    assert found is not None
    assert found.step == 7
    assert torch.equal(found.weights()["w"], expected.weights["w"])
    assert torch.equal(found.trained()["w"], expected.weights["w"])
    read = found.optimizer()
    assert read.keys() == expected.optimizer.keys()
    assert read["w/count"] == 7
    assert type(read["w/count"]) is int
    assert torch.equal(*(torch.as_tensor(kept["w/exp_avg"]) for kept in (read, expected.optimizer)))


def test_weights_in_training_are_kept_beside_their_average(config: PretrainConfig) -> None:
    average = replace(state(1), trained=state(2).weights)
    checkpoint.save(config, Corpus.open(config.corpus), average, 4, {})
    found = checkpoint.find(config.run)
    assert torch.equal(found.weights()["w"], state(1).weights["w"])
    assert torch.equal(found.trained()["w"], state(2).weights["w"])


def test_the_newest_two_the_best_and_multiples_of_keep_every_stay(config: PretrainConfig) -> None:
    config = replace(config, checkpoint_every=1, keep_every=4)
    for step, entropy in enumerate([5.0, 4.0, 3.0, 3.5, 3.2, 3.0, 3.1, 3.3, 3.4, 3.6, 3.7], 1):
        save(config, step, entropy)
    assert names(config) == {f"step_{step:08d}" for step in (3, 4, 8, 10, 11)}
    assert checkpoint.find(config.run).step == 3  # the first of equals
    assert checkpoint.best_score(config.run) == 3.0
    assert (config.run / "best").read_text() == "step_00000003\n"
    assert (config.run / "last").read_text() == "step_00000011\n"
    with pytest.raises(ValueError, match=r"keep_every 5 is no multiple of checkpoint_every 2"):
        replace(config, checkpoint_every=2, keep_every=5)


def flip(place: Path) -> None:
    content = bytearray((place / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (place / "model.safetensors").write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip,
    "no optimiser": lambda place: (place / "optimizer.safetensors").unlink(),
    "an empty record": lambda place: (place / "checkpoint.json").write_text(""),
    "a cut record": lambda place: (place / "checkpoint.json").write_text('{"step": 3, "metr'),
    "no record": lambda place: (place / "checkpoint.json").unlink(),
    "another record": lambda place: (place / "checkpoint.json").write_text("[]"),
    "bytes for a record": lambda place: (place / "checkpoint.json").write_bytes(b"\xff\x00"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_resume_goes_on_from_the_one_before_a_damaged_checkpoint_and_says_so(
    config: PretrainConfig, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(config, 1, 3.0)
    newest = save(config, 2, 2.0)
    DAMAGE[kind](newest.path)
    with pytest.raises(ValueError, match="is damaged"):  # who asks for the best gets no other
        checkpoint.find(config.run)
    found = checkpoint.find_last(config.run)
    assert found is not None
    assert found.step == 1
    said = capsys.readouterr().err
    assert re.search(r"step_00000002.* is damaged.*damaged-step_00000002.*step_00000001", said)
    assert names(config) == {"step_00000001", "damaged-step_00000002"}
    assert save(config, 2, 2.0).path.is_dir()  # the damaged one is not in the way
    assert checkpoint.find(config.run).step == 2


def test_no_whole_checkpoint_is_an_error_every_time(config: PretrainConfig) -> None:
    for step in (1, 2):
        flip(save(config, step).path)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"none of the 2 checkpoints in .* is whole"):
            checkpoint.find_last(config.run)
    assert names(config) == {"step_00000001", "step_00000002"}


@pytest.mark.parametrize("torn", ["", "step_000", None])
def test_torn_pointers_change_nothing(config: PretrainConfig, torn: str | None) -> None:
    save(config, 1, 2.0)
    save(config, 2, 3.0)
    for name in ("best", "last"):
        (config.run / name).unlink()
        if torn is not None:
            (config.run / name).write_text(torn)
    last = checkpoint.find_last(config.run)
    assert last is not None
    assert (last.step, checkpoint.find(config.run).step) == (2, 1)
    save(config, 3, 4.0)
    assert (config.run / "best").read_text() == "step_00000001\n"


def test_leftovers_of_a_kill_are_gone_after_the_next_save(config: PretrainConfig) -> None:
    save(config, 1)
    for name in (".writing-step_00000002", ".pruned-step_00000000"):
        (config.run / "checkpoints" / name).mkdir()
        (config.run / "checkpoints" / name / "model.safetensors").write_bytes(b"half")
    assert checkpoint.find(config.run).step == 1
    save(config, 2)
    assert names(config) == {"step_00000001", "step_00000002"}


def test_a_place_without_checkpoints_is_named(tmp_path: Path) -> None:
    assert checkpoint.find_last(tmp_path) is None
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        checkpoint.find(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_an_error_that_leaves_the_run_resumable(
    config: PretrainConfig, small_disk: Path
) -> None:
    config, corpus = replace(config, runs=small_disk), Corpus.open(config.corpus)
    checkpoint.save(config, corpus, state(0), 100, {})
    checkpoint.save(config, corpus, state(1, MIB // 2), 200, {})
    before = names(config)
    for _ in range(2):  # nothing half-written stays in the way of the second try
        with pytest.raises(OSError, match="could not be written") as refused:
            checkpoint.save(config, corpus, state(2, 2 * MIB), 300, {})
        said = str(refused.value)
        assert re.search(r"disk/kept/checkpoints/step_00000300 could not .*[Nn]o space left", said)
        found = re.search(r"needs ([\d,]+) bytes and ([\d,]+) are free", said)
        assert found is not None
        needed, free = (int(number.replace(",", "")) for number in found.groups())
        assert needed == 4 * MIB + 4
        assert 2 * MIB < free < 3 * MIB
        assert said.endswith("the same command goes on from step_00000200")
        assert names(config) == before
        last = checkpoint.find_last(config.run)
        assert last is not None
        assert torch.equal(last.weights()["w"], state(1, MIB // 2).weights["w"])
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    checkpoint.save(config, corpus, state(2, 2 * MIB), 300, {})
    assert names(config) == {"step_00000200", "step_00000300"}
