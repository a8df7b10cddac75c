"""Two hosts on one machine: network namespaces and a virtual link, which root and `ip` can make."""

import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

PORT = 29_511
ETC = Path("/etc/netns")


@dataclass(frozen=True)
class Host:
    """A network namespace with a host name of its own, its address and its end of the link."""

    name: str
    address: str
    device: str

    def start(self, *command: str, said: Path) -> subprocess.Popen[bytes]:
        """Start a Python command here; what it prints goes into the file `said`."""
        env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": self.device}
        with said.open("wb") as file:
            return subprocess.Popen(
                [
                    *("ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c"),
                    *('hostname "$0" && exec "$@"', self.name, sys.executable, *command),
                ],
                cwd=ROOT,
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> int:
        """Kill every process here at once, as a power cut does; return how many there were."""
        pids = _ip("netns", "pids", self.name).split()
        for pid in pids:
            subprocess.run(["kill", "-9", pid], check=False, capture_output=True)
        return len(pids)

    def vanish(self) -> None:
        """Take the link down: nothing more is sent, and no connection is closed."""
        _ip("-n", self.name, "link", "set", self.device, "down")

    def come_back(self) -> None:
        """Take the link up again, after the processes here were killed."""
        self.kill()
        _ip("-n", self.name, "link", "set", self.device, "up")

    def set(self, name: str, value: int) -> None:
        """Set a kernel parameter of this host's network."""
        _ip("netns", "exec", self.name, "sysctl", "-qw", f"{name}={value}")


@contextmanager
def two_hosts() -> Generator[tuple[Host, Host]]:
    """Make both hosts and take them away again."""
    tag = f"{os.getpid()}"
    hosts = (
        Host(f"clue-a-{tag}", "10.77.0.1", "veth-a"),
        Host(f"clue-b-{tag}", "10.77.0.2", "veth-b"),
    )
    try:
        names = "".join(f"{host.address} {host.name}\n" for host in hosts)
        for host in hosts:
            _ip("netns", "add", host.name)
            own = ETC / host.name  # `ip netns exec` mounts it over /etc
            own.mkdir(parents=True)
            (own / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        a, b = hosts
        ends = ("name", a.device, "netns", a.name), ("name", b.device, "netns", b.name)
        _ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for host in hosts:
            _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", host.device)
            for device in (host.device, "lo"):
                _ip("-n", host.name, "link", "set", device, "up")
        yield hosts
    finally:
        for host in hosts:
            host.kill()
            subprocess.run(["ip", "netns", "del", host.name], check=False, capture_output=True)
            shutil.rmtree(ETC / host.name, ignore_errors=True)


def can_make_hosts() -> bool:
    """Return whether this machine lets us make a network namespace."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    name = f"clue-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    return made.returncode == 0


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
    return done.stdout
