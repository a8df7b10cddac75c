"""The explorer page at `/`: files of this package, sent as they are."""

from pathlib import Path

from fastapi import APIRouter, Response

from serving.auth import READ
from serving.problems import REFUSALS, Problem

FOLDER = Path(__file__).parent.parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
FILES = {
    file.name: (file.read_bytes(), f"{KINDS[file.suffix]}; charset=utf-8")
    for file in sorted(FOLDER.iterdir())
    if file.suffix in KINDS
}
HEADERS = {
    # its own files alone, no inline script and no inline style: what is not here cannot run
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}

router = APIRouter(include_in_schema=False, responses=REFUSALS, dependencies=[READ])


@router.get("/")
async def page() -> Response:
    """Return the page."""
    return _sent("index.html")


@router.get("/page/{name}")
async def asset(name: str) -> Response:
    """Return a script or the style sheet of the page."""
    if name not in FILES or name == "index.html":
        raise Problem(404, "unknown-path", "the page has no such file")
    return _sent(name)


def _sent(name: str) -> Response:
    body, kind = FILES[name]
    return Response(body, headers={**HEADERS, "content-type": kind})
