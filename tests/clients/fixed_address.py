"""The stack at the platform's own address, for clients that have it fixed: TLS, with our own certificate."""

import asyncio
import contextlib
import queue
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from tests.certificates import write_certificate

HOST = "api.runpod.ai"


@dataclass(frozen=True, slots=True)
class FixedAddress:
    """Where it listens on loopback, and the certificate to trust."""

    port: int
    certificate: Path


@contextlib.contextmanager
def fixed_address(folder: Path, api_port: int) -> Iterator[FixedAddress]:
    """Pass TLS connections on to the API's port."""
    certificate = write_certificate(folder / "ca.pem", HOST, x509.DNSName(HOST))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    ports: queue.Queue[int] = queue.Queue()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", api_port)
        await asyncio.gather(_copy(reader, to_writer), _copy(to_reader, writer))

    async def serve() -> None:
        server = await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=context)
        ports.put(server.sockets[0].getsockname()[1])
        await ended.wait()
        server.close()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield FixedAddress(ports.get(timeout=10), certificate)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except (OSError, ssl.SSLError):
        pass
    finally:
        writer.close()
