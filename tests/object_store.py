"""A link to an S3 server that breaks when it is told to, and the server's check of credentials."""

# pyright: standard

import secrets
import socket
import threading
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


def ask_for_credentials(port: int, asks: bool) -> None:
    """Have the server check the credentials of each request, or of none."""
    url = f"http://127.0.0.1:{port}/moto-api/reset-auth"
    body = b"0" if asks else b"inf"
    request = urllib.request.Request(url, data=body, headers={"content-type": "text/plain"})
    urllib.request.urlopen(request, timeout=10).close()


@dataclass
class Link:
    """A TCP proxy: the first `cuts` answers of over `cut_after` bytes end there, mid-transfer.

    While `down`, as it is from `down_after` bytes on, it accepts and closes. `delay` is slept
    before each piece that it passes on, `sent` counts the bytes that came from the server. With
    `noise` what comes is no answer.
    """

    target: int
    cut_after: int = 1 << 62
    cuts: int = 0
    delay: float = 0.0
    down: bool = False
    noise: bool = False
    down_after: int = 1 << 62
    sent: int = 0
    port: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pump(self, client: socket.socket) -> None:
        """Pass on what both sides of one connection say."""
        if self.down:
            client.close()
            return
        server = socket.create_connection(("127.0.0.1", self.target))
        up = threading.Thread(target=_pass, args=(client, server), daemon=True)
        up.start()
        passed = 0
        try:
            while piece := server.recv(16_384):
                time.sleep(self.delay)
                with self._lock:
                    self.sent += len(piece)
                    piece = secrets.token_bytes(len(piece)) if self.noise else piece
                    self.down = self.down or self.sent > self.down_after
                    cut = self.down or (self.cuts > 0 and passed + len(piece) > self.cut_after)
                    self.cuts -= cut and not self.down
                if cut:
                    client.sendall(piece[: max(0, self.cut_after - passed)])
                    break
                client.sendall(piece)
                passed += len(piece)
        except OSError:
            pass
        for end in (client, server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        up.join()


def _pass(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(65_536):
            target.sendall(piece)
    except OSError:
        pass


@contextmanager
def link_to(port: int) -> Generator[Link]:
    """Run a link to a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        link = Link(port, port=door.getsockname()[1])

        def accept() -> None:
            while True:
                try:
                    client, _ = door.accept()
                except OSError:
                    return
                threading.Thread(target=link.pump, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield link
        door.shutdown(socket.SHUT_RDWR)
