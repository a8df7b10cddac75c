import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from clue.data.corpus import Corpus
from clue.inference.text_encoder import TextEncoder
from serving.build_index import BuildConfig, build, main
from serving.generation import publish, read, writing
from serving.index import Index
from serving.settings import Settings
from tests.benchmarks.worlds import corpus_of
from tests.conftest import ROOT, TinyRun
from tests.processes import FORKS


def test_the_index_holds_what_the_encoder_gives(tiny_run: TinyRun, tiny_index: Path) -> None:
    corpus, encoder = Corpus.open(tiny_run.corpus), TextEncoder.load(tiny_run.run)
    contents = read(tiny_index)[1]
    assert contents.item_ids.to_pylist() == corpus.item_ids.to_pylist()
    texts = corpus.item_texts.to_pylist()
    items = encoder.encode_items(texts)
    np.testing.assert_allclose(contents.item_vectors, items, atol=1e-5)

    histories = [corpus.items_of(service) for service in range(len(corpus.services))]
    rows = {name: row for row, name in enumerate(corpus.user_ids.to_pylist())}
    index = Index("x", contents)
    ids = contents.user_ids.to_pylist()
    assert ids == sorted(rows)
    users: list[dict[str, list[str]]] = []
    for place, name in enumerate(ids):
        seen = [history[rows[name]] for history in histories]
        user = {
            service: [texts[item] for item in items]
            for service, items in zip(corpus.services, seen, strict=True)
        }
        users.append(user)
        known = index.user(contents.user_ids[place].as_py())
        assert known is not None and sorted(known.seen) == sorted(np.concatenate(seen))
        events = [(service, text) for service, own in user.items() for text in own]
        keys = zip((service for service, _ in events), encoder.input_keys(events), strict=True)
        by_text = index.catalogue.rows_read(keys)
        assert set(np.concatenate(seen)) <= set(by_text)
    assert len(ids) > 200
    np.testing.assert_allclose(contents.user_vectors, encoder.encode(users), atol=1e-5)
    assert index.catalogue.model_fingerprint == encoder.fingerprint
    assert index.catalogue.corpus_fingerprint == corpus.fingerprint


def publish_for_ever(out: Path, published: Connection) -> None:
    contents = read(out)[1]
    while True:
        start = time.monotonic()
        with writing(out, overwrite=True):
            publish(out, contents)
        published.send(time.monotonic() - start)


def test_a_killed_build_leaves_the_index_as_it_was(tiny_run: TinyRun, tmp_path: Path) -> None:
    """SIGKILL at moments of a loop that publishes; what is read is always whole."""
    out = tmp_path / "index"
    config = BuildConfig(checkpoint=tiny_run.run, corpus=tiny_run.corpus, out=out)
    names = [build(config)]
    for part in np.linspace(0.05, 0.95, 10):  # of the time that a publication takes on this disk
        ours, theirs = FORKS.Pipe()
        process = FORKS.Process(target=publish_for_ever, args=(out, theirs))
        process.start()
        seconds = ours.recv()
        time.sleep(part * seconds)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        names.append(read(out)[0])
    assert names == sorted(set(names)) and len(names) == 11


def test_what_cannot_be_built_is_refused_in_one_line(
    tiny_run: TinyRun,
    tiny_items: TinyRun,
    tiny_index: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    foreign = tmp_path / "foreign"
    shutil.copytree(tiny_run.corpus, foreign)
    manifest = foreign / "manifest.json"
    sha = Corpus.open(foreign).manifest.tokenizer_sha256
    manifest.write_text(manifest.read_text().replace(sha, "0" * 64))
    good = {"checkpoint": tiny_run.run, "corpus": tiny_run.corpus, "out": tmp_path / "new"}
    events = [(user, "shop", name) for user in "abc" for name in ("spoon", "fork")]
    unknown = corpus_of(tmp_path / "world", events, {"a": "train", "b": "valid", "c": "test"}).path
    wrong = {
        "the first of them 'fork' of 'shop'": {"checkpoint": tiny_items.run, "corpus": unknown},
        "already holds an index": {"out": tiny_index},
        "no corpus": {"corpus": tmp_path},
        "no checkpoint": {"checkpoint": tmp_path},
        "another tokenizer": {"corpus": foreign},
    }
    for said, changes in wrong.items():
        arguments = [f"{key}={value}" for key, value in {**good, **changes}.items()]
        monkeypatch.setattr(sys, "argv", ["build_index", *arguments])
        with pytest.raises(SystemExit, match="2"):
            main()
        shown = capsys.readouterr().err
        assert shown.startswith("error: ") and said in shown and shown.count("\n") == 1
    assert len(wrong) == 5
    assert not (tmp_path / "new" / "CURRENT").exists()


def test_the_command_says_what_it_made(
    tiny_run: TinyRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "index"
    arguments = [f"checkpoint={tiny_run.run}", f"corpus={tiny_run.corpus}", f"out={out}"]
    monkeypatch.setattr(sys, "argv", ["build_index", *arguments])
    main()
    assert capsys.readouterr().out == f"{out}: generation {read(out)[0]}\n"


def test_searching_needs_no_torch() -> None:
    program = "import sys, serving.index; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CLUE_")]:
        monkeypatch.delenv(name)
    with pytest.raises(ValueError, match="checkpoint"):
        Settings()  # pyright: ignore[reportCallIssue]
    monkeypatch.setenv("CLUE_CHECKPOINT", "runs/demo")
    monkeypatch.setenv("CLUE_INDEX", "indexes/demo")
    monkeypatch.setenv("CLUE_MAX_K", "7")
    settings = Settings()  # pyright: ignore[reportCallIssue]
    assert (settings.checkpoint, settings.max_k) == (Path("runs/demo"), 7)
    monkeypatch.setenv("CLUE_MAX_K", "0")
    with pytest.raises(ValueError, match="max_k"):
        Settings()  # pyright: ignore[reportCallIssue]
