"""The curl lines of README.md and docs/serving.md, sent to a service of a universal model."""

import re
import shlex
from pathlib import Path

import httpx
import pytest

from serving.generation import read
from tests.conftest import TinyRun
from tests.serving.test_server import running

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


@pytest.mark.parametrize("page", ["README.md", "docs/serving.md"])
def test_curl_lines_are_answered(page: str, tiny_universal: TinyRun, universal_index: Path) -> None:
    requests = requests_of(page)
    assert requests
    known = read(universal_index)[1].user_ids[0].as_py()
    with running(tiny_universal.run, universal_index) as server:
        for method, url, headers, body in requests:
            assert url.startswith("localhost:8000/")
            if body is not None:  # the demo's first user, whom this corpus need not hold
                body = body.replace("u0000001", known)
            here = server.url + url.removeprefix("localhost:8000")
            answer = httpx.request(method, here, headers=headers, content=body, timeout=60)
            assert answer.is_success, (method, url, answer.text)
