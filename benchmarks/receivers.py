"""`python -m benchmarks.receivers`: receivers of webhooks, each at a port of its own, all in one process.

Prints the ports as JSON, by kind. Every request that arrives is a line of JSON in the log: port, arrival
(Unix time, s), status answered, head, body.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

# Below the 10 s after which a delivery is given up.
SLOW_S = 9.0
KINDS = ("healthy", "slow", "dead")


@dataclass(slots=True)
class Receivers:
    """Ports by kind, and what has arrived."""

    ports: dict[str, list[int]]
    log: Path

    def urls(self, kind: str) -> list[str]:
        return [f"http://127.0.0.1:{port}/hook" for port in self.ports[kind]]

    def arrived(self) -> list[dict[str, Any]]:
        """Every request that arrived, in order; a line that is being written is left for the next time."""
        lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


@contextmanager
def receivers(log: Path, *, failing: float = 0.0, **counts: int) -> Iterator[Receivers]:
    """As many receivers of each kind; `failing` is the share of requests answered with 500."""
    log.touch()
    arguments = [f"--{kind}={count}" for kind, count in counts.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.receivers", str(log), f"--failing={failing}", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Receivers(json.loads(process.stdout.readline()), log)
    finally:
        process.kill()
        process.communicate()


async def serve(kind: str, log: TextIO, failing: float) -> int:
    """Start one receiver; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("sockname")[1]
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return
            headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            body = await reader.readexactly(int(headers["content-length"]))
            status = 500 if random.random() < failing else 200
            line = {"port": port, "at": time.time(), "status": status, "head": head, "body": body.decode()}
            log.write(json.dumps(line) + "\n")
            log.flush()
            if kind == "dead":
                # It accepts, and says nothing for ever.
                continue
            if kind == "slow":
                await asyncio.sleep(SLOW_S)
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2**20)
    port: int = server.sockets[0].getsockname()[1]
    return port


async def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.receivers", description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--failing", type=float, default=0.0)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0)
    options = parser.parse_args()
    with options.log.open("a", encoding="utf-8") as log:
        ports = {
            kind: [await serve(kind, log, options.failing) for _ in range(getattr(options, kind))]
            for kind in KINDS
        }
        print(json.dumps(ports), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
