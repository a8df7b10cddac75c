"""A corpus in Google's store is the corpus: logs from there, the corpus to there, read back.

The store is an emulator of its API, a process of its own on this machine; gcsfs is the real one.
"""

# pyright: standard

import dataclasses
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from fsspec.config import conf

from clue.data import store as object_store
from clue.data.cache import MANIFEST, CacheConfig
from clue.data.corpus import Corpus
from clue.data.store import Store
from clue.data.upload import upload
from clue.prepare import prepare
from tests.data.logs import config, many_events, write_log
from tests.data.test_corpus import write
from tests.object_store import link_to

ADDRESS = "127.0.0.1"
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        find_spec("gcsfs") is None or find_spec("gcp_storage_emulator") is None,
        reason="needs gcsfs, of the extra cloud, and gcp-storage-emulator",
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[int]:
    """The port of the emulator, which has the bucket "clue"."""
    with socket.create_server((ADDRESS, 0)) as free:
        port = int(free.getsockname()[1])
    start = ["start", "-q", "-M", "--host", ADDRESS, "--port", str(port), "--default-bucket=clue"]
    process = subprocess.Popen([sys.executable, "-m", "gcp_storage_emulator", *start])
    try:
        end = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < end:
            with socket.socket() as client:
                if client.connect_ex((ADDRESS, port)) == 0:
                    break
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def cache(tmp_path: Path) -> CacheConfig:
    return CacheConfig(directory=tmp_path / "cache", patience=20)


def connect(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have gcsfs talk to this port from now on, without credentials; it keeps what it was told."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{ADDRESS}:{port}")
    # Else it asks Google itself for the kind of the bucket, for a minute each time.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    monkeypatch.setitem(conf, "gs", {"token": "anon"})
    import_module("gcsfs").GCSFileSystem.clear_instance_cache()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_corpus_comes_whole_through_a_connection_that_breaks(
    server: int, cache: CacheConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(server, monkeypatch)
    write(tmp_path / "known", users=3000, events_each=5)
    upload(tmp_path / "known", "gs://clue/tiny", cache)
    with pytest.raises(FileNotFoundError, match="gs://clue/none/manifest.json"):
        Corpus.open("gs://clue/none", cache)
    monkeypatch.setattr(object_store, "BLOCK", 16_384)
    with link_to(server) as link:
        connect(link.port, monkeypatch)
        link.cut_after, link.cuts = 9_000, 8
        corpus = Corpus.open("gs://clue/tiny", cache)
        assert link.cuts == 0 and contents(corpus.path) == contents(tmp_path / "known")
        passed = link.sent
        Corpus.open("gs://clue/tiny", cache)  # the manifest alone comes again
        assert link.sent - passed < 20_000
        link.down = True
        hasty = dataclasses.replace(cache, patience=2, directory=cache.directory / "other")
        with pytest.raises(ConnectionError, match=r"gs://clue/tiny/\S+ cannot be reached"):
            Corpus.open("gs://clue/tiny", hasty)


def test_logs_from_the_store_make_the_corpus_there(
    server: int, cache: CacheConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(server, monkeypatch)
    log = write_log(tmp_path / "log.csv", many_events(800, seed=0))
    Store("gs://clue/logs", 20).write(log.name, log)
    own = [f"cache.directory={cache.directory}", "shards=2", "events=[gs://clue/logs/*.csv]"]
    here = prepare(config(tmp_path / "here", *own), progress=False)
    prepare(config(Path("gs://clue/made"), *own), progress=False)
    local, remote = Corpus.open(here), Corpus.open("gs://clue/made", cache)
    assert remote.fingerprint == local.fingerprint and remote.manifest == local.manifest
    assert (remote.items_of(0).values == local.items_of(0).values).all()
    version = Store("gs://clue/made", 20).version(MANIFEST)
    prepare(config(Path("gs://clue/made"), *own), progress=False)  # it is there already
    assert version and Store("gs://clue/made", 20).version(MANIFEST) == version
    write(tmp_path / "new", users=5, events_each=2)
    upload(tmp_path / "new", "gs://clue/made", cache)
    assert Corpus.open("gs://clue/made", cache).num_users == 5
    assert contents(remote.path).keys() >= {MANIFEST, "users.arrow"}  # what is held stays
