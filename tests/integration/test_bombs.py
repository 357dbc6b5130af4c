"""Answers that are huge when unpacked, or never end: cut off, without the memory for them."""

import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
from backports import zstd

from tests.hosts import Host, Request, Script

ROOT = Path(__file__).parents[2]
MIB = 2**20
LIMIT = 32 * MIB
# One fetch of some bytes first: what the libraries need themselves does not count.
FETCH = """
import json, re, sys
from pathlib import Path
from tasks.errors import LonghandError
from tasks.settings import Settings
from tests.downloads import fetch

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

url, target, limit = sys.argv[1:]
settings = Settings(
    allow_private_addresses=True, max_source_bytes=int(limit), source_timeout_ms=1000, max_source_ms=4000
)
fetch(url, Path(target), settings, lambda *_: None)
before = peak()
try:
    code = fetch(url, Path(target), settings, lambda *_: None)
except LonghandError as error:
    code = error.code
print(json.dumps([code, peak() - before]))
"""


def deflated(size: int, bits: int) -> bytes:
    """So many zeros: what one MiB of them makes, again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    start = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + again * (size // MIB - 1)


def gzipped_thrice() -> bytes:
    inner = gzip.compress(deflated(10_240 * MIB, 31), 9)
    return gzip.compress(inner, 9)


def brotlied() -> bytes:
    packer = brotli.Compressor(quality=5)
    packed = [packer.process(bytes(MIB)) for _ in range(1024)]
    return b"".join([*packed, packer.finish()])


BOMBS: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: deflated(10_240 * MIB, 31),
    "deflate": lambda: deflated(10_240 * MIB, 15),
    "Deflate": lambda: deflated(10_240 * MIB, -15),
    "gzip, gzip, gzip": gzipped_thrice,
    "gzip, deflate": lambda: zlib.compress(deflated(10_240 * MIB, 31), 9),
    "br": brotlied,
    "zstd": lambda: zstd.compress(bytes(1024 * MIB)),
    # Many frames, each of which is announced to be large.
    "zstd, br": lambda: brotli.compress(zstd.compress(bytes(256 * MIB)) * 40, quality=5),
}


def fetched(host: Host, target: Path, script: Script) -> tuple[str, int]:
    """The code that a download in a process of its own ends with, and by how many bytes its memory grew."""
    host.scripts = [lambda request: request.answer(200, b"RIFF" * 9), script]
    ran = subprocess.run(
        [sys.executable, "-c", FETCH, host.url, str(target), str(LIMIT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    code, grown = json.loads(ran.stdout)
    return code, grown


@pytest.mark.parametrize("encoding", BOMBS)
def test_a_bomb_needs_no_memory(host: Host, target: Path, encoding: str) -> None:
    body = BOMBS[encoding]()
    assert len(body) < LIMIT

    def explode(request: Request) -> None:
        request.answer(200, body, Content_Encoding=encoding)

    code, grown = fetched(host, target, explode)
    assert code == "source_too_large"
    assert grown < 1.5 * LIMIT
    assert target.stat().st_size <= LIMIT


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LINE = b"x" * 60_000
# What begins an answer, and what then comes again and again.
FLOODS = {
    "a status line": (b"HTTP/1.1 200 ", LINE),
    "headers": (OK, b"X: " + LINE + b"\r\n"),
    "one header": (OK + b"X: ", LINE),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a chunk's extension": (CHUNKED + b"1;", LINE),
    "chunks of extensions": (CHUNKED, b"1;" + LINE + b"\r\nx\r\n"),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"X: " + LINE + b"\r\n"),
    "a gzip name": (OK + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x08\0\0\0\0\0\x03", LINE),
    "empty deflate blocks": (OK + b"Content-Encoding: deflate\r\n\r\n\x78\x9c", b"\0\0\0\xff\xff" * 9000),
    "empty zstd frames": (OK + b"Content-Encoding: zstd\r\n\r\n", zstd.compress(b"") * 1000),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_is_cut_off_without_memory_for_it(host: Host, target: Path, flood: str) -> None:
    start, part = FLOODS[flood]

    def send(request: Request) -> None:
        request.connection.sendall(start)
        while True:
            request.connection.sendall(part)

    code, grown = fetched(host, target, send)
    # It breaks HTTP, or takes longer than the host has for an answer or its next bytes, or for all of it.
    assert code in {"source_unreachable", "source_too_slow"}
    assert grown < 1.5 * LIMIT
