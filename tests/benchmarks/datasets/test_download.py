# pyright: standard
"""A file is brought whole or not at all, whatever the connection does."""

import hashlib
import json
import random
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.datasets.download import ATTEMPTS, Publisher, Source, check_space, fetch
from tests.benchmarks.datasets.server import Files, serve

CONTENT = random.Random(0).randbytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def place_of(tmp_path: Path, served: Files, md5: str | None = MD5) -> Publisher:
    raw = tmp_path / "set" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    source = Source(name="log.zip", url=f"{served.url}/log.zip", md5=md5)
    return Publisher(sources=[source], raw=raw, page="https://example.org/set")


def names(place: Publisher) -> list[str]:
    return sorted(file.name for file in place.raw.iterdir())


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_file_is_brought_and_known_by_its_hash(tmp_path: Path) -> None:
    with serve({"log.zip": CONTENT}) as served:
        place = place_of(tmp_path, served)
        known = fetch(place, {})
    assert (place.raw / "log.zip").read_bytes() == CONTENT
    assert names(place) == ["log.zip"]
    assert known == {
        "log.zip": {
            "bytes": 3_000_000,
            "sha256": SHA256,
            "published": f"md5 {MD5}",
            "url": f"{served.url}/log.zip",
        }
    }


def test_a_broken_connection_is_gone_on_with_in_the_same_run(tmp_path: Path) -> None:
    with serve({"log.zip": CONTENT}) as served:
        served.breaks = [1_200_000, 300_000]
        place = place_of(tmp_path, served)
        fetch(place, {}, pause=0)
    assert served.gets() == [
        ("log.zip", ""),
        ("log.zip", "bytes=1200000-"),
        ("log.zip", "bytes=1500000-"),
    ]
    assert (place.raw / "log.zip").read_bytes() == CONTENT


def test_the_next_run_goes_on_and_until_then_nothing_passes_for_whole(tmp_path: Path) -> None:
    with serve({"log.zip": CONTENT}) as served:
        served.breaks = [100_000] * ATTEMPTS
        place = place_of(tmp_path, served)
        with pytest.raises(ConnectionError, match=r"broke off at 500,000 of 3,000,000 bytes"):
            fetch(place, {}, pause=0)
        assert names(place) == ["log.zip.part", "log.zip.part.json"]
        assert (place.raw / "log.zip.part").read_bytes() == CONTENT[:500_000]
        assert "2.5 MB to download, 8.5 MB of disk needed" in check_space(place, 2)
        fetch(place, {})
    assert served.gets()[-1] == ("log.zip", "bytes=500000-")
    assert (place.raw / "log.zip").read_bytes() == CONTENT
    assert names(place) == ["log.zip"]


@pytest.mark.parametrize("missing", ["ranges", "etag"])
def test_a_server_that_cannot_go_on_is_asked_from_the_start(tmp_path: Path, missing: str) -> None:
    with serve({"log.zip": CONTENT}) as served:
        setattr(served, missing, False)
        served.breaks = [1_200_000]
        place = place_of(tmp_path, served)
        fetch(place, {}, pause=0)
    assert len(served.gets()) == 2
    assert (place.raw / "log.zip").read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_not_patched_together(tmp_path: Path) -> None:
    other = CONTENT[::-1]
    with serve({"log.zip": CONTENT}) as served:
        served.breaks = [1_200_000] * ATTEMPTS
        served.ranges = False
        place = place_of(tmp_path, served, md5=None)
        with pytest.raises(ConnectionError):
            fetch(place, {}, pause=0)
        served.files["log.zip"], served.ranges = other, True
        fetch(place, {})
    assert served.gets()[-1] == ("log.zip", "bytes=1200000-")
    assert (place.raw / "log.zip").read_bytes() == other


def test_the_rest_of_another_place_is_not_appended(tmp_path: Path) -> None:
    with serve({"log.zip": CONTENT}) as served:
        served.breaks, served.shift = [1_200_000], 1
        place = place_of(tmp_path, served, md5=None)
        with pytest.raises(ConnectionError, match="asked from byte 1200000: bytes 1200001-"):
            fetch(place, {}, pause=0)
    assert (place.raw / "log.zip.part").read_bytes() == CONTENT[:1_200_000]


def test_a_part_that_is_whole_needs_no_network(tmp_path: Path) -> None:
    with serve({"log.zip": CONTENT}) as served:
        place = place_of(tmp_path, served)
    (place.raw / "log.zip.part").write_bytes(CONTENT)  # killed before it got its name
    state = {"url": "", "validator": '"x"', "bytes": len(CONTENT)}
    (place.raw / "log.zip.part.json").write_text(json.dumps(state))
    fetch(place, {})
    assert names(place) == ["log.zip"]


def test_a_file_that_is_there_is_not_downloaded_again(tmp_path: Path) -> None:
    with serve({"log.zip": CONTENT}) as served:
        place = place_of(tmp_path, served)
        known = fetch(place, {})
        before = len(served.asked)
        assert fetch(place, known) == known
        assert "0.0 MB to download" in check_space(place, 0)
        assert len(served.asked) == before == 1


def test_a_wrong_published_checksum_is_refused_by_name_and_the_file_kept(tmp_path: Path) -> None:
    with serve({"log.zip": b"a page that says sorry"}) as served:
        place = place_of(tmp_path, served)
        with pytest.raises(
            ValueError, match=r"log\.zip is refused and kept as .*log\.zip\.refused"
        ):
            fetch(place, {})
    assert names(place) == ["log.zip.refused"]
    assert (place.raw / "log.zip.refused").read_bytes() == b"a page that says sorry"


def test_a_file_by_hand_is_checked_alike(tmp_path: Path) -> None:
    with serve({}) as served:
        place = place_of(tmp_path, served)
        (place.raw / "log.zip").write_bytes(CONTENT)
        assert fetch(place, {})["log.zip"]["sha256"] == SHA256
        (place.raw / "log.zip").write_bytes(CONTENT[:-1])
        with pytest.raises(ValueError, match=f"the publisher's {MD5}"):
            fetch(place, {})
    assert names(place) == ["log.zip.refused"]
    assert served.asked == []


def test_without_a_published_checksum_the_first_download_is_the_measure(tmp_path: Path) -> None:
    with serve({"log.zip": CONTENT}) as served:
        place = place_of(tmp_path, served, md5=None)
        known = fetch(place, {})
        assert known["log.zip"]["published"] is None
        (place.raw / "log.zip").unlink()
        served.files["log.zip"] = CONTENT + b"\0"
        with pytest.raises(ValueError, match=rf"that of the first download was {SHA256}.*lock"):
            fetch(place, known)
        assert names(place) == ["log.zip.refused"]


def test_no_network_names_the_address_and_the_place_of_every_absent_file(tmp_path: Path) -> None:
    raw = tmp_path / "set" / "raw"
    raw.mkdir(parents=True)
    base = f"http://127.0.0.1:{closed_port()}"
    place = Publisher(
        sources=[Source(name=f"{n}.zip", url=f"{base}/{n}.zip") for n in ("a", "b", "c")],
        raw=raw,
        page="https://example.org/set",
        hint="ask nicely",
    )
    (raw / "b.zip").write_bytes(b"here")
    for call in (lambda: check_space(place, 1), lambda: fetch(place, {}, pause=0)):
        with pytest.raises(ConnectionError) as caught:
            call()
        message = str(caught.value)
        assert message.startswith(f"{base}/a.zip does not come: [Errno 111] Connection refused")
        assert f"  {base}/a.zip -> {raw / 'a.zip'}\n  {base}/c.zip -> {raw / 'c.zip'}\n" in message
        assert "b.zip" not in message
        assert message.endswith("the publisher's page: https://example.org/set\nask nicely")
    assert names(place) == ["b.zip"]


@pytest.mark.parametrize(("status", "tries"), [(401, 1), (404, 1), (503, ATTEMPTS)])
def test_an_answer_that_is_no_file(tmp_path: Path, status: int, tries: int) -> None:
    with serve({"log.zip": CONTENT}) as served:
        served.refuse = {"log.zip": status}
        place = place_of(tmp_path, served)
        assert "1 files of unknown size" in check_space(place, 1)
        with pytest.raises(ConnectionError, match=f"log.zip does not come: HTTP {status} "):
            fetch(place, {}, pause=0)
        assert len(served.gets()) == tries
    assert names(place) == []


def test_a_token_goes_to_the_publisher_and_not_to_a_mirror(tmp_path: Path) -> None:
    with serve({"log.zip": CONTENT}) as served:
        place = replace(place_of(tmp_path, served), token="secret")
        fetch(place, {})
        assert served.headers["Authorization"] == "Bearer secret"
        (place.raw / "log.zip").unlink()
        fetch(replace(place, mirror=f"{served.url}/"), {})
        assert served.gets()[-1] == ("log.zip", "")
        assert "Authorization" not in served.headers


def test_a_disk_that_is_too_small_is_refused_before_any_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=8_999_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with serve({"log.zip": CONTENT}) as served:
        place = place_of(tmp_path, served)
        assert check_space(place, 1.99).startswith("3.0 MB to download, 9.0 MB of disk needed")
        with pytest.raises(OSError, match=r"9\.0 MB free; make room, or give out= on a larger"):
            check_space(place, 2)
        assert served.gets() == []
