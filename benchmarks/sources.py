"""A server that sends a recording at a steady rate, and remembers which byte was sent when."""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from demo.server import listening

EVERY_S = 0.01
BLOCK = 1 << 18


@dataclass(slots=True)
class Source:
    """A recording, how fast it is sent (0: as fast as it is read), and what was sent until when."""

    path: Path
    bytes_per_s: float = 0
    url: str = ""
    _ends: list[int] = field(default_factory=list)
    _at_s: list[float] = field(default_factory=list)

    def sent_s(self, offset: int) -> float:
        """When, by `time.monotonic`, so many bytes had been sent."""
        return self._at_s[bisect_left(self._ends, offset)]

    def send(self, write: Callable[[bytes], object]) -> None:
        """All of it; what was sent before is forgotten."""
        self._ends.clear()
        self._at_s.clear()
        began_s, done = time.monotonic(), 0
        with self.path.open("rb") as file:
            while block := file.read(max(1, int(self.bytes_per_s * EVERY_S)) if self.bytes_per_s else BLOCK):
                if self.bytes_per_s:
                    time.sleep(max(0.0, began_s + done / self.bytes_per_s - time.monotonic()))
                write(block)
                done += len(block)
                self._ends.append(done)
                self._at_s.append(time.monotonic())


@contextmanager
def sending(source: Source) -> Iterator[Source]:
    """Serve on a free port of loopback, without ranges; `source.url` says where."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "audio/mpeg")
            self.send_header("Content-Length", str(source.path.stat().st_size))
            self.end_headers()
            with suppress(OSError):
                source.send(self.wfile.write)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with listening(Page) as url:
        source.url = f"{url}/{source.path.name}"
        yield source
