"""Where clients come in: passes connections on to the stack, and keeps what was asked and answered.

With a certificate it is the platform's own address, for clients that have that fixed. While the API starts
again it tries until it is there, as a proxy in front of it would.
"""

import asyncio
import contextlib
import queue
import re
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from tests.certificates import write_certificate

HOST = "api.runpod.ai"
PATIENCE_S = 30
_REQUEST = re.compile(rb"(GET|POST) (\S+) HTTP/1\.1\r\n")
_RESPONSE = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass(slots=True)
class Call:
    """One request, at a time of the monotonic clock; `status` 0 until there is an answer."""

    method: str
    path: str
    at_s: float
    status: int = 0


@dataclass(slots=True)
class Door:
    """Where it listens on loopback; the certificate to trust, if it speaks TLS; the calls, in order."""

    api_port: int
    certificate: Path | None = None
    port: int = 0
    calls: list[Call] = field(default_factory=list)

    def of(self, operation: str, job_id: str = "") -> list[Call]:
        """The calls of one operation, on one job or on any."""
        return [call for call in self.calls if f"/{operation}" in call.path and job_id in call.path]


@contextlib.contextmanager
def tls_door(folder: Path, api_port: int) -> Iterator[Door]:
    """The platform's address, with a certificate of our own."""
    certificate = write_certificate(folder / "ca.pem", HOST, x509.DNSName(HOST))
    with opened(Door(api_port, certificate)) as door:
        yield door


@contextlib.contextmanager
def opened(door: Door) -> Iterator[Door]:
    """The door, listening at a free port."""
    ports: queue.Queue[int] = queue.Queue()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if door.certificate else None
    if context and door.certificate:
        context.load_cert_chain(door.certificate)

    async def come_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _Conversation(door).carry(reader, writer)

    async def serve() -> None:
        server = await asyncio.start_server(come_in, "127.0.0.1", 0, ssl=context)
        ports.put(server.sockets[0].getsockname()[1])
        await ended.wait()
        server.close()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        door.port = ports.get(timeout=10)
        yield door
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()


class _Conversation:
    """One connection. Clients take turns with the server, so that a turn's first bytes are its first line."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._open: Call | None = None

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, to_there = await self._reach()
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._copy(reader, to_there), self._copy(there, writer, back=True))

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        deadline_s = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", self._door.api_port)
            except OSError:
                if asyncio.get_running_loop().time() > deadline_s:
                    raise
                await asyncio.sleep(0.1)

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool = False
    ) -> None:
        try:
            while data := await reader.read(65_536):
                self._heard(data, back=back)
                writer.write(data)
                await writer.drain()
        except (OSError, ssl.SSLError):
            pass
        finally:
            writer.close()

    def _heard(self, data: bytes, *, back: bool) -> None:
        if back and self._open and (line := _RESPONSE.match(data)):
            self._open.status = int(line[1])
            self._open = None
        elif not back and not self._open and (line := _REQUEST.match(data)):
            self._open = Call(line[1].decode(), line[2].decode(), time.monotonic())
            self._door.calls.append(self._open)
