"""A source of recordings that answers as its scripts say: it redirects, breaks off, stalls and lies."""

import contextlib
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.guard import AddressInfo
from tasks.settings import Settings

BODY = random.Random(1).randbytes(1_000_000)
SETTINGS = Settings(allow_private_addresses=True, source_timeout_ms=5_000)


class Names:
    """A resolver that answers from a list, one entry for each look-up, and remembers them."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, family: int, kind: int) -> list[AddressInfo]:
        self.asked.append(host)
        found: list[AddressInfo] = []
        for address in self.answers.pop(0):
            found.extend(socket.getaddrinfo(address, port, family, kind, 0, socket.AI_NUMERICHOST))
        return found


@contextlib.contextmanager
def listening(address: str = "127.0.0.1") -> Iterator[socket.socket]:
    """Accepts nothing: connections stay in its backlog, to be counted. "" is every address here."""
    dual = not address and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    with socket.create_server((address, 0), family=family, dualstack_ipv6=dual) as server:
        server.setblocking(False)
        yield server


def connections(server: socket.socket) -> int:
    """How many were made since the last count."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


def port_of(server: socket.socket) -> int:
    port: int = server.getsockname()[1]
    return port


@dataclass
class Request:
    """One request, and the ways to answer it."""

    path: str
    headers: Mapping[str, str]
    connection: socket.socket

    def answer(self, status: int, body: bytes = b"", **headers: str | int) -> None:
        """Send a whole answer; `headers` are written with underscores, Content-Length unless given."""
        fields: dict[str, str | int] = {"Content_Length": len(body), **headers}
        lines = [f"HTTP/1.1 {status} Because", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        self.connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def file(self, body: bytes, *, cut: int | None = None, **headers: str | int) -> None:
        """Serve `body` as a server that knows ranges does, but break off after `cut` bytes."""
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        rest = body[start:]
        if "Range" in self.headers:
            headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        status = 206 if "Range" in self.headers else 200
        self.answer(status, rest[:cut], Content_Length=len(rest), **headers)


Script = Callable[[Request], None]


@dataclass
class Host:
    """Answers the n-th request with the n-th script, and all later ones with the last."""

    server: socket.socket
    scripts: list[Script] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    # Whether it answers one request while it still answers another.
    at_once: bool = False

    @property
    def url(self) -> str:
        host, port = self.server.getsockname()
        return f"{'https' if self.tls else 'http'}://{host}:{port}/folder/talk.mp3?secret=1"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            if self.at_once:
                threading.Thread(target=self.answer, args=(connection,), daemon=True).start()
            else:
                self.answer(connection)

    def answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            self.handle(connection)

    def handle(self, connection: socket.socket) -> None:
        with self.tls.wrap_socket(connection, server_side=True) if self.tls else connection as wrapped:
            head = b""
            while b"\r\n\r\n" not in head:
                more = wrapped.recv(65536)
                if not more:
                    # A client whose time was over before it could ask.
                    return
                head += more
            first, *lines = head.decode().strip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
            self.requests.append(Request(first.split(" ")[1], headers, wrapped))
            script(self.requests[-1])


@contextlib.contextmanager
def running(address: str, tls: ssl.SSLContext | None = None, *, at_once: bool = False) -> Iterator[Host]:
    """A host on a free port of this address."""
    with socket.create_server((address, 0)) as server:
        host = Host(server, tls=tls, at_once=at_once)
        thread = threading.Thread(target=host.serve)
        thread.start()
        try:
            yield host
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)
        assert not thread.is_alive()


def quiet(_done: int, _total: int | None) -> None:
    """Nobody is interested."""


def chunked(request: Request, body: bytes, end: bytes = b"0\r\n\r\n") -> None:
    """Answer without telling the length."""
    parts = [body[start : start + 5000] for start in range(0, len(body), 5000)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end
    request.connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded)


def redirect(status: int, location: str) -> Script:
    """Answer with another place to look."""
    return lambda request: request.answer(status, b"moved", Location=location)
