"""A link to a Redis that can become half open: bytes are swallowed, and nobody is told."""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SELECT = re.compile(rb"SELECT\r\n\$\d+\r\n(\d+)\r\n")


@dataclass(slots=True, eq=False)
class Connection:
    """One client's, and which database it uses: -1 until it has said so."""

    client: socket.socket
    server: socket.socket
    database: int = -1
    swallows: threading.Event = field(default_factory=threading.Event)

    def pump(self, source: socket.socket, target: socket.socket, *, from_client: bool) -> None:
        """Pass on what comes until either side closes."""
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if from_client and (chosen := SELECT.search(data)):
                    self.database = int(chosen[1])
                if not self.swallows.is_set():
                    target.sendall(data)
        self.close()

    def close(self) -> None:
        for one in (self.client, self.server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@dataclass(slots=True)
class Link:
    """Listens in front of a Redis on loopback."""

    port: int
    _target: int
    _connections: list[Connection] = field(default_factory=list)

    def halve(self, database: int) -> int:
        """Swallow what the present connections to a database carry, for ever; how many there are."""
        chosen = [one for one in self._connections if one.database == database and one.client.fileno() >= 0]
        for one in chosen:
            one.swallows.set()
        return len(chosen)

    def serve(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                break
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            one = Connection(client, server)
            self._connections.append(one)
            for source, target in ((client, server), (server, client)):
                threading.Thread(
                    target=one.pump,
                    args=(source, target),
                    kwargs={"from_client": source is client},
                    daemon=True,
                ).start()
        for one in self._connections:
            one.close()
            one.client.close()
            one.server.close()


@contextmanager
def link(target: int) -> Iterator[Link]:
    """A link to the server at this port; the database of number 0 is never named, so use others."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = Link(listening.getsockname()[1], target)
        thread = threading.Thread(target=one.serve, args=(listening,))
        thread.start()
        try:
            yield one
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
