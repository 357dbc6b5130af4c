"""Several hosts on one machine: network namespaces on one switch, whose cables can be cut.

A thread enters a host, and whatever it opens or starts there stays there: sockets, servers, processes.
Nothing is added to the own network of the machine.
"""

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLONE_NEWNET = 0x40000000


def ip(*arguments: str) -> None:
    """Run iproute2's ip. Raises RuntimeError with its words."""
    ran = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20, check=False)
    if ran.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {ran.stderr.strip()}")


@dataclass(slots=True)
class Network:
    """Hosts by name, numbered from 10.77.0.1 in the order they were given."""

    names: tuple[str, ...]
    prefix: str = field(default_factory=lambda: f"lh{secrets.token_hex(2)}")
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def address(self, name: str) -> str:
        return f"10.77.0.{self.names.index(name) + 1}"

    def up(self) -> None:
        """Make the switch and the hosts, each with one cable."""
        switch = self._namespace("sw")
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "br0", "type", "bridge")
        ip("-n", switch, "link", "set", "br0", "up")
        for name in self.names:
            host = self._namespace(name)
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
            cable = ("eth0", "type", "veth", "peer", "name", f"v-{name}", "netns", switch)
            ip("-n", host, "link", "add", *cable)
            ip("-n", host, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            ip("-n", switch, "link", "set", f"v-{name}", "master", "br0")
            ip("-n", switch, "link", "set", f"v-{name}", "up")

    def down(self) -> None:
        """End what was started, and take all down."""
        for process in self.processes:
            # With all that it started itself.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for name in (*self.names, "sw"):
            with contextlib.suppress(RuntimeError):  # up() may have failed half-way
                ip("netns", "del", self._namespace(name))

    def cut(self, name: str) -> None:
        """Pull a host's cable, at the switch: the host keeps its address, and what it sends is lost."""
        ip("-n", self._namespace("sw"), "link", "set", f"v-{name}", "down")

    def heal(self, name: str) -> None:
        ip("-n", self._namespace("sw"), "link", "set", f"v-{name}", "up")

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Let this thread, and what it starts, be on a host."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self._namespace(name)}", os.O_RDONLY)
        try:
            _enter(there)
            yield
        finally:
            _enter(home)
            os.close(there)
            os.close(home)

    def start(self, host: str, *command: str, log: Path, **environment: str) -> None:
        """Start a command on a host, with nothing in its environment but what is given."""
        with self.inside(host), log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], **environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.processes.append(process)

    def _namespace(self, name: str) -> str:
        return f"{self.prefix}-{name}"


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def skip_where_impossible() -> None:
    """Skip, and say why, where hosts cannot be made: what goes wrong later is a failure."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not shutil.which("ip"):
        pytest.skip("network namespaces need ip, of iproute2")
    probe = f"lh{secrets.token_hex(2)}-probe"
    try:
        ip("netns", "add", probe)
        ip("-n", probe, "link", "add", "br0", "type", "bridge")
        ip("-n", probe, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    except RuntimeError as error:
        pytest.skip(f"no network namespaces here: {error}")
    finally:
        with contextlib.suppress(RuntimeError):  # it may never have been made
            ip("netns", "del", probe)


@contextlib.contextmanager
def network(*names: str) -> Iterator[Network]:
    """Hosts of these names, where they can be made."""
    skip_where_impossible()
    made = Network(names)
    try:
        made.up()
        yield made
    finally:
        made.down()
