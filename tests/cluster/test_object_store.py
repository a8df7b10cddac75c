"""A corpus in a store is the corpus: equal bytes, whatever breaks on the way, once for everyone.

The store is moto's S3 server in a process of its own; breaks are those of a real TCP link.
"""

# pyright: standard

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest
import s3fs

from benchmarks.speed.offline_jobs import CREDENTIALS, s3_server
from clue.config import load
from clue.data import store as object_store
from clue.data.cache import MANIFEST, CacheConfig
from clue.data.corpus import Corpus
from clue.data.ingest.prepare_config import PrepareConfig, ServiceConfig
from clue.data.store import Store, path_of, url_of
from clue.data.upload import upload
from clue.embed import EmbedConfig, embed, read_embeddings
from clue.prepare import prepare
from clue.pretrain import pretrain
from clue.run.pretrain_config import PretrainConfig
from tests.conftest import ROOT, TinyRun
from tests.data.test_corpus import write
from tests.object_store import Link, ask_for_credentials, link_to

OPEN = "import sys; from pathlib import Path; from clue.data.cache import CacheConfig; "
OPEN += "from clue.data.corpus import Corpus; from clue.data import store; store.BLOCK = 16384; "
OPEN += "Corpus.open(sys.argv[1], CacheConfig(directory=Path(sys.argv[2]), patience=20))"


@pytest.fixture(scope="module")
def server() -> Generator[int]:
    with s3_server() as port:
        yield port


def connect(port: int, monkeypatch: pytest.MonkeyPatch, secret: str = "s") -> None:
    """Have s3fs talk to this port from now on; it keeps what it was told before."""
    here = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_SECRET_ACCESS_KEY": secret}
    for name, value in {**CREDENTIALS, **here}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(server: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A URL in the store that nobody else uses."""
    connect(server, monkeypatch)
    name = tmp_path.name.lower().replace("_", "-")[-40:]
    s3fs.S3FileSystem().mkdir(f"bucket-{name}")
    return f"s3://bucket-{name}"


@pytest.fixture
def link(server: int, monkeypatch: pytest.MonkeyPatch) -> Generator[Link]:
    """The way to the server, in blocks of 16 KiB, so that a small corpus has many."""
    monkeypatch.setattr(object_store, "BLOCK", 16_384)
    with link_to(server) as made:
        yield made


@pytest.fixture
def cache(tmp_path: Path) -> CacheConfig:
    return CacheConfig(directory=tmp_path / "cache", patience=20)


def entries(cache: CacheConfig) -> list[Path]:
    return [path for path in cache.directory.glob("*") if path.is_dir() and path.name != "outbox"]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("name", ["s3://bucket/a/b", "gs://bucket/a.csv"])
def test_a_url_is_known_as_text_and_as_path(name: str) -> None:
    assert url_of(name) == url_of(Path(name)) == name
    assert url_of(name.replace("://", "/")) is None


def test_a_file_url_is_a_path(tiny_run: TinyRun) -> None:
    corpus = Corpus.open(f"file://{tiny_run.corpus}")
    assert corpus.path == tiny_run.corpus and url_of(f"file://{tiny_run.corpus}") is None
    assert path_of(Path(f"file://{tiny_run.corpus}")) == tiny_run.corpus


@pytest.mark.cluster
def test_training_and_vectors_from_a_store_are_those_from_the_folder(
    tiny_run: TinyRun, bucket: str, cache: CacheConfig, tmp_path: Path
) -> None:
    upload(tiny_run.corpus, f"{bucket}/tiny", cache)
    corpus = Corpus.open(f"{bucket}/tiny", cache)
    assert contents(corpus.path) == contents(tiny_run.corpus)
    before = [path.stat().st_mtime_ns for path in sorted(corpus.path.iterdir())]
    weights = []
    for number, location in enumerate([tiny_run.corpus, f"{bucket}/tiny"]):
        keys = [f"name=r{number}", f"corpus={location}", f"runs={tmp_path}", "trackers=[]"]
        keys += ["batch=32", "steps=2", "validate_every=2", "checkpoint_every=2", "compile=false"]
        keys += ["precision=fp32", "model.item.width=16", "model.item.layers=1"]
        keys += ["model.user.width=16", "model.user.layers=1", "model.user.embedding=8"]
        keys += [f"cache.directory={cache.directory}"]
        pretrain(load(PretrainConfig, None, keys))
        (file,) = (tmp_path / f"r{number}").glob("checkpoints/step_*/model.safetensors")
        weights.append(file.read_bytes())
    assert weights[0] == weights[1]
    here, there = tmp_path / "users", f"{bucket}/users"
    config = EmbedConfig(
        checkpoint=tiny_run.run, corpus=tiny_run.corpus, out=here, cache=cache, shard_users=64
    )
    rows = embed(config)
    remote = dataclasses.replace(config, corpus=Path(f"{bucket}/tiny"), out=Path(there))
    assert embed(remote) == rows > 300
    store = Store(there, 5)
    shards = {each.url.rpartition("/")[2]: each.version for each in store.list()}
    assert shards.keys() == contents(here).keys() and len(shards) == 6
    assert read_embeddings(there, cache).equals(read_embeddings(here), check_metadata=True)
    assert embed(remote) == rows  # what is there is not made again
    assert {each.url.rpartition("/")[2]: each.version for each in store.list()} == shards
    assert before == [path.stat().st_mtime_ns for path in sorted(corpus.path.iterdir())]
    assert not list((cache.directory / "outbox").glob("[!.]*"))


def test_logs_from_a_store_make_the_corpus_there(
    tiny_run: TinyRun, bucket: str, cache: CacheConfig, tmp_path: Path
) -> None:
    rows = ["user_id,item_id,timestamp,text"]
    for name, users in {"a": range(6), "b": range(6, 12)}.items():
        lines = [f"u{u},i{n},{1e9 + n},pan number {n}" for u in users for n in range(4)]
        file = tmp_path / f"{name}.csv"
        file.write_text("\n".join([*rows, *lines]) + "\n")
        Store(f"{bucket}/logs/service=shop", 5).write(file.name, file)
    config = PrepareConfig(
        name="both",
        events=[f"{bucket}/logs/service=shop/*.csv"],
        out=Path(f"{bucket}/both"),
        services={"shop": ServiceConfig()},
        cache=cache,
        tokenizer=dataclasses.replace(PrepareConfig(name="x", events=[]).tokenizer, vocab_size=300),
    )
    assert url_of(prepare(config, progress=False)) == f"{bucket}/both"
    whole = dataclasses.replace(
        config, events=[f"{bucket}/logs"], out=Path(f"file://{tmp_path}/both")
    )
    prepare(whole, progress=False)
    made, local = Corpus.open(f"{bucket}/both", cache), Corpus.open(tmp_path / "both")
    assert made.fingerprint == local.fingerprint and made.num_users == 12
    assert [each["path"] for each in made.manifest.source] == [
        f"{bucket}/logs/service=shop/{name}.csv" for name in "ab"
    ]
    version = Store(f"{bucket}/both", 5).version(MANIFEST)
    prepare(config, progress=False)  # what is there is not made again
    assert Store(f"{bucket}/both", 5).version(MANIFEST) == version
    Store(f"{bucket}/logs/service=shop", 5).write("b.csv", tmp_path / "a.csv")
    with pytest.raises(ValueError, match=rf"{bucket}/both holds a corpus of other logs"):
        prepare(config, progress=False)
    with pytest.raises(FileNotFoundError, match=f"no object matches '{bucket}/none"):
        prepare(dataclasses.replace(config, events=[f"{bucket}/none/*.csv"]), progress=False)


def test_a_connection_that_breaks_is_made_again_until_the_corpus_is_whole(
    tiny_run: TinyRun, bucket: str, link: Link, cache: CacheConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(tiny_run.corpus, f"{bucket}/tiny", cache)
    connect(link.port, monkeypatch)
    link.cut_after, link.cuts = 9_000, 25
    corpus = Corpus.open(f"{bucket}/tiny", cache)
    assert link.cuts == 0 and contents(corpus.path) == contents(tiny_run.corpus)


def test_a_store_that_stays_away_is_an_error_in_time_and_the_next_run_goes_on(
    tiny_run: TinyRun, bucket: str, link: Link, cache: CacheConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(tiny_run.corpus, f"{bucket}/tiny", cache)
    connect(link.port, monkeypatch)
    size = sum(map(len, contents(tiny_run.corpus).values()))
    link.down_after = size // 2
    hasty = dataclasses.replace(cache, patience=4)
    with pytest.raises(ConnectionError, match=rf"{bucket}/tiny/\S+ cannot be .* for 4 s"):
        Corpus.open(f"{bucket}/tiny", hasty)
    assert link.down
    began = time.monotonic()
    with pytest.raises(ConnectionError, match="run the command again when the store answers"):
        Corpus.open(f"{bucket}/tiny", hasty)
    assert time.monotonic() - began < 2 * hasty.patience + 2
    (partial,) = entries(cache)
    assert partial.suffix == ".partial"
    link.down, link.sent, link.down_after = False, 0, 10 * size
    corpus = Corpus.open(f"{bucket}/tiny", cache)
    assert contents(corpus.path) == contents(tiny_run.corpus)
    assert link.sent < 0.8 * size


def test_what_the_store_refuses_is_said_at_once(
    tiny_run: TinyRun, server: int, bucket: str, cache: CacheConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="s3://no-such-bucket/x/manifest.json"):
        Corpus.open("s3://no-such-bucket/x", cache)
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as where it is not installed
    # by its full name, for in fsspec the registry has the name of its module
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "gs", raising=False)
    with pytest.raises(ValueError, match=r"gs://bucket/x .*clue-users\[cloud\]"):
        Corpus.open("gs://bucket/x", cache)
    upload(tiny_run.corpus, f"{bucket}/tiny", cache)
    ask_for_credentials(server, True)
    try:
        connect(server, monkeypatch, secret="wrong")
        with pytest.raises(PermissionError, match=rf"{bucket}/tiny/\S+ is refused.*credentials"):
            Corpus.open(f"{bucket}/tiny", cache)
    finally:
        ask_for_credentials(server, False)
    assert entries(cache) == []
    with pytest.raises(ValueError, match="is one file|is a file"):
        EmbedConfig(checkpoint=tiny_run.run, corpus=tiny_run.corpus, out=Path("s3://b/x.parquet"))


def test_what_changes_in_the_store_is_never_mixed(
    bucket: str, cache: CacheConfig, tmp_path: Path
) -> None:
    write(tmp_path / "old", users=3, events_each=1)
    write(tmp_path / "new", users=5, events_each=2)
    upload(tmp_path / "old", f"{bucket}/c", cache)
    old = Corpus.open(f"{bucket}/c", cache)
    upload(tmp_path / "new", f"{bucket}/c", cache)
    new = Corpus.open(f"{bucket}/c", cache)
    assert (old.num_users, new.num_users) == (3, 5)
    assert contents(old.path) == contents(tmp_path / "old")
    upload(tmp_path / "old", f"{bucket}/d", cache)
    Store(f"{bucket}/d", 5).write("users.arrow", tmp_path / "new/users.arrow")
    with pytest.raises(ValueError, match=r"d/users\.arrow is not what its manifest says"):
        Corpus.open(f"{bucket}/d", cache)
    Store(f"{bucket}/d", 5).write("users.arrow", tmp_path / "old/users.arrow")
    assert Corpus.open(f"{bucket}/d", cache).num_users == 3
    text = (tmp_path / "old" / MANIFEST).read_text()
    for bad in (text.replace('"users.arrow"', '"../users.arrow"'), "[]", text[:100]):
        (tmp_path / "bad").write_text(bad)
        Store(f"{bucket}/d", 5).write(MANIFEST, tmp_path / "bad")
        with pytest.raises(ValueError, match="is no name of a file|lists no hashes"):
            Corpus.open(f"{bucket}/d", cache)


@pytest.mark.cluster
def test_processes_share_one_download_and_a_kill_leaves_nothing_that_is_read(
    tiny_run: TinyRun, bucket: str, link: Link, cache: CacheConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(tiny_run.corpus, f"{bucket}/tiny", cache)
    connect(link.port, monkeypatch)
    size = sum(map(len, contents(tiny_run.corpus).values()))
    command = [sys.executable, "-c", OPEN, f"{bucket}/tiny", str(cache.directory)]

    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command, cwd=ROOT, env=os.environ)

    link.delay = 0.02
    killed = start()
    while link.sent < size // 3:
        assert killed.poll() is None
        time.sleep(0.005)
    killed.kill()
    killed.wait()
    assert [path.suffix for path in entries(cache)] == [".partial"]
    link.delay = 0.0
    both = [start(), start()]
    assert [process.wait(60) for process in both] == [0, 0]
    # one copy, the two manifests, and what the kill cut off
    assert link.sent < 1.6 * size
    assert contents(Corpus.open(f"{bucket}/tiny", cache).path) == contents(tiny_run.corpus)


def test_the_least_recently_used_makes_way_but_never_what_is_held(
    bucket: str, cache: CacheConfig, tmp_path: Path
) -> None:
    for name in "abcd":
        write(tmp_path / name, users=2000, events_each=5, service=name)
        upload(tmp_path / name, f"{bucket}/{name}", cache)
    size = sum(map(len, contents(tmp_path / "a").values()))
    two = dataclasses.replace(cache, gib=2.5 * size / (1 << 30))

    def has() -> set[str]:
        return {next(p.glob("histories_*")).stem[-1] for p in entries(two)}

    Corpus.open(f"{bucket}/a", two)
    held = Corpus.open(f"{bucket}/b", two)
    Corpus.open(f"{bucket}/a", two)  # now b was used less recently, and is held
    Corpus.open(f"{bucket}/c", two)
    assert has() == {"b", "c"}
    also_held = Corpus.open(f"{bucket}/c", two)
    with pytest.raises(ValueError, match=r"are in use by processes; raise cache\.gib"):
        Corpus.open(f"{bucket}/d", two)
    assert has() == {"b", "c"} and held.num_users == also_held.num_users == 2000
    del held
    assert Corpus.open(f"{bucket}/d", two).num_users == 2000
    assert has() == {"c", "d"}
    small = dataclasses.replace(cache, directory=tmp_path / "small", gib=0.5 * size / (1 << 30))
    with pytest.raises(ValueError, match="holds at most"):
        Corpus.open(f"{bucket}/a", small)


def test_an_upload_that_is_killed_is_no_table_and_sends_nothing_twice(
    bucket: str, cache: CacheConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "c", users=3, events_each=1)
    sent: list[str] = []
    real = Store.write

    def until_killed(self: Store, name: str, file: Path) -> None:
        if len(sent) == 2:
            raise KeyboardInterrupt
        sent.append(name)
        real(self, name, file)

    monkeypatch.setattr(Store, "write", until_killed)
    with pytest.raises(KeyboardInterrupt):
        upload(tmp_path / "c", f"{bucket}/c", cache)
    with pytest.raises(FileNotFoundError, match="manifest.json"):
        Corpus.open(f"{bucket}/c", cache)
    monkeypatch.setattr(Store, "write", lambda *a: (sent.append(a[1]), real(*a)))
    upload(tmp_path / "c", f"{bucket}/c", cache)
    assert len(sent) == len(set(sent)) == 5
    assert Corpus.open(f"{bucket}/c", cache).num_users == 3
