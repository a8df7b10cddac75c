"""The Python door, the command and the catalogue give one and the same vector."""

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.snapshot import snapshot_at
from clue.data.corpus import Corpus
from clue.embed import EmbedConfig, embed, main, read_embeddings
from clue.inference import shards
from clue.inference.item_id_encoder import ItemIdEncoder
from clue.inference.text_encoder import TextEncoder
from clue.inference.universal_encoder import UniversalEncoder
from tests.benchmarks.worlds import corpus_of
from tests.conftest import ROOT, TinyRun
from tests.processes import python, start


@pytest.fixture(scope="module")
def encoder(tiny_run: TinyRun) -> TextEncoder:
    return TextEncoder.load(tiny_run.run)


@pytest.fixture(scope="module")
def corpus(tiny_run: TinyRun) -> Corpus:
    return Corpus.open(tiny_run.corpus)


def texts_of(corpus: Corpus, user: int) -> dict[str, list[str]]:
    return {
        name: [corpus.item_texts[int(i)].as_py() for i in corpus.items_of(number)[user]]
        for number, name in enumerate(corpus.services)
    }


def vectors_of(path: Path) -> dict[tuple[str, str], np.ndarray]:
    table = read_embeddings(path)
    keys = zip(table["user_id"].to_pylist(), table["service"].to_pylist(), strict=True)
    return dict(zip(keys, np.array(table["vector"].to_pylist(), np.float32), strict=True))


def test_texts_and_corpus_give_the_same_vectors(
    tiny_run: TinyRun, encoder: TextEncoder, corpus: Corpus, tmp_path: Path
) -> None:
    out = tmp_path / "users.parquet"
    rows = embed(EmbedConfig(checkpoint=tiny_run.run, corpus=tiny_run.corpus, out=out))
    found = vectors_of(out)
    assert len(found) == rows
    checked = 0
    for user in range(0, corpus.num_users, 17):
        user_id, texts = corpus.user_ids[user].as_py(), texts_of(corpus, user)
        np.testing.assert_allclose(found[user_id, "all"], encoder.encode(texts), atol=1e-5)
        for service, events in texts.items():
            if events:
                alone = encoder.encode({service: events})
                np.testing.assert_allclose(found[user_id, service], alone, atol=1e-5)
                checked += 1
    assert checked > 30
    metadata = read_embeddings(out).schema.metadata
    assert metadata[b"model_fingerprint"].decode() == encoder.fingerprint
    assert metadata[b"corpus_fingerprint"].decode() == corpus.fingerprint


def test_a_universal_table_is_as_of_a_moment(
    tiny_universal: TinyRun, corpus: Corpus, tmp_path: Path
) -> None:
    encoder = UniversalEncoder.load(tiny_universal.run)
    moment = float(np.median(corpus.timestamps_of(0).values))
    out = tmp_path / "users.parquet"
    embed(
        EmbedConfig(
            checkpoint=tiny_universal.run, corpus=tiny_universal.corpus, out=out, before=moment
        )
    )
    found = vectors_of(out)
    users = np.arange(corpus.num_users)
    past = snapshot_at(corpus, users, moment)
    expected = encoder.encode_users(corpus, past.parts, as_of=past.cutoff, amounts=past.amounts)
    checked = 0
    for user in users[past.lengths > 0]:
        vector = found[corpus.user_ids[int(user)].as_py(), "all"]
        np.testing.assert_allclose(vector, expected[user], rtol=1e-4, atol=1e-5)
        checked += 1
    assert checked > 200


def test_vectors_do_not_depend_on_company(encoder: TextEncoder, corpus: Corpus) -> None:
    users = [texts_of(corpus, user) for user in range(12)]
    together = encoder.encode(users)
    alone = np.stack([encoder.encode(user) for user in users])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_an_item_is_a_history_of_one(encoder: TextEncoder, corpus: Corpus) -> None:
    texts = [corpus.item_texts[i].as_py() for i in (0, 5, 9)]
    found = encoder.encode_items(texts)
    for text, vector in zip(texts, found, strict=True):
        np.testing.assert_allclose(encoder.encode({"any": [text]}), vector, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_catalogue(corpus)[[0, 5, 9]], found, atol=1e-5)


def test_events_at_and_after_the_time_are_not_read(
    tiny_run: TinyRun, encoder: TextEncoder, corpus: Corpus, tmp_path: Path
) -> None:
    times = corpus.timestamps_of(0)
    before = float(np.median(times.values))
    out = tmp_path / "early.parquet"
    embed(EmbedConfig(checkpoint=tiny_run.run, corpus=tiny_run.corpus, out=out, before=before))
    table = read_embeddings(out)
    assert max(table["as_of"].to_pylist()) < before
    user = int(np.flatnonzero((times.lengths > 3) & (corpus.split == 0))[0])
    early = times[user] < before
    assert early.any()
    history = corpus.items_of(0).take(np.array([user]))
    texts = [corpus.item_texts[int(i)].as_py() for i in history.values[early]]
    expected = encoder.encode({"x": texts})
    found = vectors_of(out)[corpus.user_ids[user].as_py(), corpus.services[0]]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_only_the_newest_events_are_read(encoder: TextEncoder, corpus: Corpus) -> None:
    texts = [corpus.item_texts[i].as_py() for i in range(encoder.max_events + 10)]
    whole, cut = encoder.encode({"x": texts}), encoder.encode({"x": texts[-encoder.max_events :]})
    assert np.array_equal(whole, cut)


def test_untrained_is_another_model_of_the_same_shape(
    tiny_run: TinyRun, encoder: TextEncoder
) -> None:
    control = TextEncoder.load(tiny_run.run, seed=0)
    assert control.width == encoder.width
    assert control.fingerprint != encoder.fingerprint
    user = {"x": ["one", "two"]}
    assert not np.allclose(control.encode(user), encoder.encode(user))
    assert np.array_equal(control.encode(user), TextEncoder.load(tiny_run.run, seed=0).encode(user))


@pytest.mark.parametrize(("user", "message"), [({}, "no events"), ({"x": [""]}, "empty")])
def test_users_and_texts_without_content_are_refused(
    encoder: TextEncoder, user: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encoder.encode(user)


def test_a_corpus_of_another_tokenizer_is_refused(
    encoder: TextEncoder, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "tokenizer_sha256", "0" * 64)
    with pytest.raises(ValueError, match=r"tokenizer\.path="):
        encoder.encode_catalogue(corpus)


def test_two_processes_and_raw_logs_write_the_same_table(tiny_run: TinyRun, tmp_path: Path) -> None:
    one, two, raw = (tmp_path / f"{name}.parquet" for name in ("one", "two", "raw"))
    embed(EmbedConfig(checkpoint=tiny_run.run, corpus=tiny_run.corpus, out=one))
    model = f"checkpoint={tiny_run.run}"
    command = [sys.executable, "-m", "clue.cli", "embed"]  # options of the launcher come first
    command += ["--config_file=configs/accelerate/cpu2.yaml", model]
    command += [f"corpus={tiny_run.corpus}", f"out={two}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stderr.splitlines() if "vectors" in line]
    assert len(rows) == 2  # a line a process
    logs = tiny_run.corpus.parent / "logs"
    data = tmp_path / "data.yaml"
    data.write_text(
        f"name: raw\nevents: [{logs}/events.parquet]\nitems: [{logs}/items.parquet]\n"
        "services: {shop: {template: '{title}'}, news: {template: '{title}'},"
        " films: {template: '{title}'}}\n"
    )
    _run("clue/embed.py", model, f"data={data}", f"out={raw}")
    expected = vectors_of(one)
    for path in (two, raw):
        found = vectors_of(path)
        assert found.keys() == expected.keys()
        for key, vector in expected.items():
            np.testing.assert_allclose(found[key], vector, atol=1e-5)


def test_a_killed_command_goes_on_and_makes_no_shard_twice(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole.parquet", tmp_path / "users"
    embed(EmbedConfig(checkpoint=tiny_run.run, corpus=tiny_run.corpus, out=whole))
    keys = [f"checkpoint={tiny_run.run}", f"corpus={tiny_run.corpus}", f"out={out}"]
    command = ["clue/embed.py", *keys, "shard_users=20"]
    work = tmp_path / ".users.shards"
    known: dict[str, int] = {}
    kills = 0
    for after in (1, 6):  # shards that are finished when the kill comes
        process = start(*command, said=tmp_path)
        while process.exitcode is None and len(list(work.glob("part-*.json"))) < after:
            time.sleep(0.002)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        now = {f.name: f.stat().st_mtime_ns for f in work.glob("part-*.parquet")}
        finished = {f.stem + ".parquet" for f in work.glob("part-*.json")}
        assert known.items() <= now.items()  # what was finished has not been made again
        known = {name: now[name] for name in finished}
        with pytest.raises((FileNotFoundError, ValueError)):
            read_embeddings(out)
    assert kills == 2 and len(known) >= 6
    _run(*command)
    made = {f.name: f.stat().st_mtime_ns for f in out.glob("*.parquet")}
    assert known.items() <= made.items() and not work.exists()
    assert sorted(f.name for f in out.iterdir()) == ["manifest.json", *sorted(made)]
    found, expected = vectors_of(out), vectors_of(whole)
    assert found.keys() == expected.keys() and len(found) > 300
    for key, vector in expected.items():
        np.testing.assert_allclose(found[key], vector, atol=1e-5)
    (out / "part-00000.json").write_text("{}")  # a kill may leave some
    _run(*command)  # nothing is left to do
    assert sorted(f.name for f in out.iterdir()) == ["manifest.json", *sorted(made)]
    assert {f.name: f.stat().st_mtime_ns for f in out.glob("*.parquet")} == made
    part = next(out.glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is not what was written"):
        read_embeddings(out)


def test_shards_of_another_model_or_moment_make_way(tiny_run: TinyRun, tmp_path: Path) -> None:
    out = tmp_path / "users"
    config = EmbedConfig(checkpoint=tiny_run.run, corpus=tiny_run.corpus, out=out, shard_users=50)
    embed(config)
    first = vectors_of(out)
    other = dataclasses.replace(config, untrained=True)
    embed(other)
    second = vectors_of(out)
    assert first.keys() == second.keys()
    assert not any(np.array_equal(first[key], second[key]) for key in list(first)[:50])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="directory of something else"):
        embed(dataclasses.replace(config, out=tmp_path / "mine"))
    with shards.held(out, is_main=True), pytest.raises(ValueError, match="another run is writing"):
        embed(config)


def test_a_next_item_checkpoint_writes_the_same_table(tiny_items: TinyRun, tmp_path: Path) -> None:
    encoder, corpus = ItemIdEncoder.load(tiny_items.run), Corpus.open(tiny_items.corpus)
    out, before = tmp_path / "users.parquet", float(np.median(corpus.timestamps_of(0).values))
    config = EmbedConfig(checkpoint=tiny_items.run, corpus=tiny_items.corpus, out=out)
    checked = 0
    for limit in (None, before):
        rows = embed(dataclasses.replace(config, before=limit))
        found = vectors_of(out)
        assert len(found) == rows
        for user in range(0, corpus.num_users, 17):
            name, done = corpus.user_ids[user].as_py(), list[tuple[float, str, str]]()
            for number, service in enumerate(corpus.services):
                times, items = corpus.timestamps_of(number)[user], corpus.items_of(number)[user]
                ids = [corpus.item_ids[int(item)].as_py() for item in items]
                named = zip(times.tolist(), [service] * len(ids), ids, strict=True)
                mine = [event for event in named if limit is None or event[0] < limit]
                done += mine
                key = (name, service)
                assert (key in found) == bool(mine)
                if mine:
                    alone = encoder.encode({service: [item_id for *_, item_id in mine]})
                    np.testing.assert_allclose(found[key], alone, atol=1e-6)
                    checked += 1
            done.sort(key=lambda event: event[0])
            if done:
                whole = encoder.encode_events([[event[1:] for event in done]])
                np.testing.assert_allclose(found[name, "all"], whole[0], atol=1e-6)
    assert checked > 50


def test_the_command_names_an_item_outside_the_catalogue(
    tiny_items: TinyRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    events = [(user, "shop", name) for user in "abc" for name in ("spoon", "fork")]
    corpus = corpus_of(tmp_path, events, {"a": "train", "b": "valid", "c": "test"})
    keys = [f"checkpoint={tiny_items.run}", f"corpus={corpus.path}", f"out={tmp_path / 'x'}"]
    monkeypatch.setattr(sys, "argv", ["clue/embed.py", *keys])
    with pytest.raises(SystemExit, match="2"):
        main()
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: ")
    assert "2 of its 2 items" in stderr and "the first of them 'fork' of 'shop'" in stderr


def test_the_next_day_takes_the_place_of_the_last(tiny_run: TinyRun, tmp_path: Path) -> None:
    def log(name: str, users: range) -> None:
        rows = [
            f"u{u},i{n},{1e9 + n},pan number {n}" for u in users for n in range(u % 3, u % 3 + 4)
        ]
        lines = ["user_id,item_id,timestamp,text", *rows]
        (tmp_path / "day" / name).write_text("\n".join(lines) + "\n")

    (tmp_path / "day").mkdir()
    data, out = tmp_path / "day.yaml", tmp_path / "vectors.parquet"
    data.write_text(f"name: day\nevents: [{tmp_path}/day/*.csv]\nservice: shop\n")
    config = EmbedConfig(checkpoint=tiny_run.run, data=data, out=out)
    log("d1.csv", range(20))
    embed(config)
    first = vectors_of(out)
    log("d2.csv", range(20, 50))
    embed(config)
    second = vectors_of(out)
    assert (len(first), len(second)) == (40, 100)
    for key, vector in first.items():
        np.testing.assert_allclose(second[key], vector, atol=1e-5)
    assert Corpus.open(tmp_path / "vectors.corpus").num_users == 50
    log("d2.csv", range(20, 30))
    data.write_text(data.read_text().replace("shop", "''"))
    with pytest.raises(ValueError, match=r"day\.yaml: "):
        embed(config)
    assert len(vectors_of(out)) == 100


def _run(*command: str) -> None:
    done = python(*command)
    assert done.returncode == 0, done.stdout + done.stderr
