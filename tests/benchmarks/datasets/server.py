"""A server of files on this machine that can break off, change its files and refuse ranges."""

import hashlib
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Files:
    """What is served.

    `breaks` are the bytes after which the next answers end, one after another; `stall` those after
    which every answer waits until it is None again; `shift` the bytes that the answer to a range is
    off by. `asked` is what came in: (method, file, its Range or ""); `headers` what came with the
    last.
    """

    files: dict[str, bytes]
    url: str = ""
    breaks: list[int] = field(default_factory=list[int])
    refuse: dict[str, int] = field(default_factory=dict[str, int])
    stall: int | None = None
    ranges: bool = True
    shift: int = 0
    etag: bool = True
    asked: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def gets(self) -> list[tuple[str, str]]:
        return [(name, span) for method, name, span in self.asked if method == "GET"]


@contextmanager
def serve(files: dict[str, bytes]) -> Generator[Files]:
    served = Files(files)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            name, span = self.path.lstrip("/"), self.headers.get("Range", "")
            served.asked.append((self.command, name, span))
            served.headers = dict(self.headers)
            if name in served.refuse or name not in served.files:
                self.send_error(served.refuse.get(name, 404))
                return
            content = served.files[name]
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            same = self.headers.get("If-Range") == tag
            start = int(span[len("bytes=") : -1]) if span and served.ranges and same else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start + served.shift}-/{len(content)}")
            if served.etag:
                self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if body:
                end = start + served.breaks.pop(0) if served.breaks else None
                self.wfile.write(content[start : served.stall or end])
                while served.stall is not None:
                    time.sleep(0.02)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
