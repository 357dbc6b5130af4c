"""Cheap HTTP callers: prebuilt requests on keep-alive connections, so that the server is what is measured."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

TIMEOUT_S = 30.0


def request(method: str, url: str, body: bytes = b"") -> bytes:
    """The bytes of one request on a connection that stays."""
    parts = urlsplit(url)
    head = f"{method} {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection, with one request on it at a time; it reads what uvicorn writes."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end or self._answer is None:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) >= length and not self._answer.done():
            self._data.clear()
            self._answer.set_result((int(head[9:12]), bytes(body)))

    async def call(self, data: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to one request."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        async with asyncio.timeout(TIMEOUT_S):
            return await self._answer

    def close(self) -> None:
        if self._transport:
            self._transport.close()


@dataclass(slots=True)
class Calls:
    """What came of some calls: latencies of the good ones in ms, bodies, and statuses other than 200."""

    latencies_ms: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    began_s: float = field(default_factory=time.perf_counter)
    ended_s: float = 0.0

    def add(self, since_s: float, answer: tuple[int, bytes]) -> None:
        self.ended_s = time.perf_counter()
        status, body = answer
        if status != 200:
            self.failed.append(status)
            return
        self.latencies_ms.append(1000 * (self.ended_s - since_s))
        self.bodies.append(body)

    def figures(self) -> dict[str, float]:
        """p50, p99 and the longest, in ms; calls a second; how many failed."""
        ordered = sorted(self.latencies_ms) or [0.0]
        return {
            "p50_ms": round(ordered[len(ordered) // 2], 2),
            "p99_ms": round(ordered[int(len(ordered) * 0.99)], 2),
            "max_ms": round(ordered[-1], 2),
            "per_s": round(len(self.latencies_ms) / (self.ended_s - self.began_s), 1),
            "failed": len(self.failed),
        }


async def connected(url: str, count: int) -> list[Connection]:
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    host, port = parts.hostname or "", parts.port or 80
    made = [await loop.create_connection(Connection, host, port) for _ in range(count)]
    return [connection for _, connection in made]


async def closed_loop(url: str, data: bytes, *, callers: int, count: int) -> Calls:
    """`count` calls by callers who each wait for their answer before they call again."""
    calls, left = Calls(), iter(range(count))
    connections = await connected(url, callers)

    async def caller(connection: Connection) -> None:
        for _ in left:
            since_s = time.perf_counter()
            calls.add(since_s, await connection.call(data))

    await asyncio.gather(*map(caller, connections))
    for connection in connections:
        connection.close()
    return calls


async def open_loop(
    url: str, next_request: Callable[[], bytes], *, per_s: float, count: int, most: int = 64
) -> Calls:
    """Calls that are due at a steady rate, whatever became of the earlier ones.

    Latency counts from when a call was due, so that a server that stalls is charged with all who waited; of
    `most` connections one that is free is used.
    """
    connections = await connected(url, most)
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in connections:
        free.put_nowait(connection)
    calls, running = Calls(), set[asyncio.Task[None]]()

    async def call(due_s: float) -> None:
        connection = await free.get()
        calls.add(due_s, await connection.call(next_request()))
        free.put_nowait(connection)

    for due_s in _due(calls.began_s, per_s, count):
        wait_s = due_s - time.perf_counter()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        running.add(asyncio.create_task(call(due_s)))
    await asyncio.gather(*running)
    for connection in connections:
        connection.close()
    return calls


def _due(began_s: float, per_s: float, count: int) -> Iterator[float]:
    for number in range(count):
        yield began_s + number / per_s
