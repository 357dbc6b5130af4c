"""A whole download, for tests of the way that one takes."""

import socket
import time
from pathlib import Path

from tasks.arrivals import Arrivals
from tasks.fetch import Download, OnBytes
from tasks.guard import Resolver
from tasks.pace import Clock
from tasks.settings import Settings


def fetch(
    url: str,
    target: Path,
    settings: Settings,
    on_bytes: OnBytes,
    *,
    endpoint: str = "",
    clock: Clock = time.monotonic,
    resolve: Resolver = socket.getaddrinfo,
) -> int:
    """Download `url` into the file `target`; arguments, result and errors as of Download."""
    with Arrivals(target) as into:
        return Download(url, into, settings, on_bytes, endpoint=endpoint, clock=clock, resolve=resolve).run()
