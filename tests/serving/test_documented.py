"""What README.md and docs/serving.md have to copy, sent to a service of a universal model."""

import re
import shlex
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.generation import read
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.process import listening

ROOT = Path(__file__).parents[2]
LINES = re.compile(r"^ *(curl (?:.*\\\n)*.*)$", re.MULTILINE)


def requests_of(page: str) -> list[tuple[str, str, dict[str, str], str | None]]:
    """Method, URL, headers and body of each curl line of a page."""
    made: list[tuple[str, str, dict[str, str], str | None]] = []
    for line in LINES.findall((ROOT / page).read_text(encoding="utf-8")):
        words = iter(shlex.split(line.replace("\\\n", " "))[1:])
        method, url, body = "", "", None
        headers: dict[str, str] = {}
        for word in words:
            if word == "-d":
                body = next(words)
            elif word == "-X":
                method = next(words)
            elif word == "-H":
                name, _, value = next(words).partition(":")
                headers[name] = value.strip()
            elif not word.startswith("-"):
                url = word
        made.append((method or ("GET" if body is None else "POST"), url, headers, body))
    return made


@pytest.fixture(scope="module")
def url(
    tiny_universal: TinyRun, universal_index: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[str]:
    store = tmp_path_factory.mktemp("documented") / "store"
    settings = Settings(checkpoint=tiny_universal.run, index=universal_index, store=store)
    with listening(settings) as address:
        yield address


def of_this_corpus(text: str, index: Path) -> str:
    """The demo's first user, whom this corpus need not hold, as one that it does."""
    return text.replace("u0000001", read(index)[1].user_ids[0].as_py())


@pytest.mark.parametrize("page", ["README.md", "docs/serving.md"])
def test_curl_lines_are_answered(page: str, url: str, universal_index: Path) -> None:
    requests = requests_of(page)
    # each block is read: no line that a reader would copy is left out
    text = (ROOT / page).read_text(encoding="utf-8")
    assert len(requests) == len(re.findall(r"^\s*curl ", text, re.MULTILINE)) > 0
    for method, address, headers, body in requests:
        assert address.startswith("localhost:8000/")
        if body is not None:
            body = of_this_corpus(body, universal_index)
        here = url + address.removeprefix("localhost:8000")
        answer = httpx.request(method, here, headers=headers, content=body, timeout=60)
        assert answer.is_success, (method, address, answer.text)


def test_the_lines_of_the_client_run(url: str) -> None:
    text = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) if "Client" in b)
    service = block.replace("http://localhost:8000", url).replace(', key="…"', "")
    assert service.count(url) == 1 and "…" not in service
    known: dict[str, Any] = {}
    exec(compile(service, "docs/serving.md", "exec"), known)
    assert known["vectors"].shape[0] == 1 and len(known["films"]) == 5
    assert {film.service for film in known["films"]} == {"films"}
    assert known["user"]["events"] == [*known["cook"], {"service": "films", "text": "Ratatouille"}]
