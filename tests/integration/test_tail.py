"""The end of a file before its middle: fetched by itself, under the same guard, and of the same version."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tasks.arrivals import Arrivals
from tasks.cutting import cut
from tasks.errors import AddressRefused, SourceChanged, UnsupportedScheme
from tasks.fetch import Download
from tasks.growing import Bringers, Growing
from tests.hosts import BODY, SETTINGS, Host, Names, Request, quiet, redirect, running
from tests.media import encode

GIB = 2**30
LONG_S = 30
# Nothing is broken off for being late.
PATIENT = SETTINGS.model_copy(update={"source_timeout_ms": 600_000})


def silent() -> None:
    """Nobody is interested."""


class Source:
    """Sends the `first` bytes of `body`, and the rest when `go` is set.

    A range that is asked for is sent, or whatever `on_range` does.
    """

    def __init__(
        self,
        body: bytes,
        first: int,
        etag: str = '"one"',
        on_range: Callable[[Request], object] | None = None,
    ) -> None:
        self.body = body
        self.first = first
        self.headers: dict[str, Any] = {"ETag": etag} if etag else {}
        self.on_range = on_range or (lambda request: request.file(body, **self.headers))
        self.go = threading.Event()

    def __call__(self, request: Request) -> None:
        if "Range" in request.headers:
            self.on_range(request)
            return
        request.answer(200, self.body[: self.first], Content_Length=len(self.body), **self.headers)
        self.go.wait(LONG_S)
        with contextlib.suppress(OSError):
            request.connection.sendall(self.body[self.first :])


@contextlib.contextmanager
def reading(url: str, target: Path) -> Iterator[tuple[Growing, Arrivals]]:
    """Of a download, while it lasts."""
    with Arrivals(target) as arrivals, Bringers(arrivals) as threads:
        download = Download(url, arrivals, PATIENT, quiet)

        def bring() -> None:
            download.run()
            arrivals.complete()

        threads.start(bring)
        yield (
            Growing(
                arrivals, silent, silent, lambda start: threads.start(partial(download.fetch_tail, start))
            ),
            arrivals,
        )


@pytest.fixture
def large() -> bytes:
    return BODY * 4


def test_the_end_is_read_while_the_middle_is_to_come(crowd: Host, target: Path, large: bytes) -> None:
    source = Source(large, 1_000)
    crowd.scripts = [source]
    with reading(crowd.url, target) as (reader, arrivals):
        assert reader.read(10) == large[:10]
        reader.seek(-500_000, 2)
        assert reader.read(100) == large[-500_000:-499_900]
        assert arrivals.front == 1_000
        tail = crowd.requests[1]
        assert tail.headers["Range"] == f"bytes={len(large) - 500_000}-"
        assert tail.headers["If-Range"] == '"one"'
        source.go.set()
        reader.drain()
        reader.seek(0)
        assert reader.read() == large
    assert len(crowd.requests) == 2


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_version_to_ask_for_the_end_is_waited_for(
    crowd: Host, target: Path, large: bytes, etag: str
) -> None:
    source = Source(large, 1_000, etag)
    crowd.scripts = [source]
    with reading(crowd.url, target) as (reader, _):
        threading.Timer(0.5, source.go.set).start()
        reader.read(10)
        reader.seek(-100, 2)
        assert reader.read() == large[-100:]
    assert len(crowd.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: request.answer(200, b"the whole", ETag='"one"', Content_Length=len(BODY) * 4),
        lambda request: request.answer(403),
        lambda request: request.answer(503),
        lambda request: request.answer(200, b"<html>", Content_Type="text/html"),
        lambda request: request.answer(206, BODY[5:], Content_Range=f"bytes 5-9/{len(BODY) * 4}"),
        lambda request: request.answer(206, b"x" * 99),
        lambda request: request.connection.close(),
    ],
)
def test_a_host_that_does_not_send_the_end_is_waited_for(
    crowd: Host, target: Path, large: bytes, answer: object
) -> None:
    assert callable(answer)

    def on_range(request: Request) -> None:
        answer(request)
        source.go.set()

    source = Source(large, 1_000, on_range=on_range)
    crowd.scripts = [source]
    with reading(crowd.url, target) as (reader, _):
        reader.read(10)
        reader.seek(-100, 2)
        assert reader.read() == large[-100:]
        reader.seek(0)
        assert reader.read() == large


def test_an_end_of_another_file_is_not_used(crowd: Host, target: Path, large: bytes) -> None:
    crowd.scripts = [
        Source(large, 1_000, on_range=lambda request: request.answer(200, b"another", ETag='"two"'))
    ]
    with reading(crowd.url, target) as (reader, _):
        reader.read(10)
        reader.seek(-100, 2)
        with pytest.raises(SourceChanged):
            reader.read()


def test_an_end_that_was_of_another_file_is_found_out(crowd: Host, target: Path, large: bytes) -> None:
    other = large[:-50] + bytes(50)
    source = Source(large, 1_000, on_range=lambda request: request.file(other, ETag='"one"'))
    crowd.scripts = [source]
    with reading(crowd.url, target) as (reader, _):
        reader.read(10)
        reader.seek(-100, 2)
        assert reader.read(50) == large[-100:-50]
        source.go.set()
        with pytest.raises(SourceChanged):
            reader.drain()


def test_the_guard_judges_the_way_to_the_end_as_well(crowd: Host, target: Path, large: bytes) -> None:
    crowd.scripts = [Source(large, 1_000, on_range=redirect(302, "ftp://elsewhere.test/"))]
    with reading(crowd.url, target) as (reader, _):
        reader.read(10)
        reader.seek(-100, 2)
        with pytest.raises(UnsupportedScheme):
            reader.read()


def test_whoever_stops_reading_closes_the_connection(crowd: Host, target: Path, large: bytes) -> None:
    closed = threading.Event()

    def script(request: Request) -> None:
        request.answer(200, large[:1_000], Content_Length=len(large))
        request.connection.settimeout(LONG_S)
        with contextlib.suppress(ConnectionResetError):
            assert request.connection.recv(1) == b""
        closed.set()

    crowd.scripts = [script]
    with reading(crowd.url, target) as (reader, _):
        reader.read(10)
    assert closed.wait(LONG_S / 2)


def test_an_mp4_of_ten_gigabytes_is_cut_before_its_middle_has_come(
    crowd: Host, target: Path, tmp_path: Path
) -> None:
    """Its index is at its end; its middle is never sent."""
    small = encode(tmp_path / "talk.m4a", "aac").read_bytes()
    box, end = small.index(b"free\0"), small.index(b"moov") - 4
    assert small[box + 8 : box + 12] == b"mdat"
    total = 10 * GIB
    # The room of the empty box is there for a length of 64 bits.
    start = small[: box - 4] + b"\0\0\0\x01mdat" + (total - len(small) + end - box + 4).to_bytes(8, "big")
    start += small[len(start) : end]
    index = small[end:]
    go = threading.Event()

    def script(request: Request) -> None:
        if "Range" not in request.headers:
            request.answer(200, start + bytes(2**20), Content_Length=total, ETag='"one"')
            go.wait(LONG_S)
            return
        first = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        offset = first - (total - len(index))
        assert offset >= 0
        whole = f"bytes {first}-{total - 1}/{total}"
        request.answer(206, index[offset:], Content_Range=whole, ETag='"one"')

    crowd.scripts = [script]
    with reading(crowd.url, target) as (reader, _):
        cutting = cut(reader, target_ms=2_000, first_ms=(), search_ms=100)
        first = next(iter(cutting))
        assert first.span.start_ms == 0
        assert first.span.end_ms == pytest.approx(2_000, abs=100)
        assert target.stat().st_size == total
        assert target.stat().st_blocks * 512 < 50 * 2**20
        go.set()


def test_every_look_up_of_the_end_is_guarded(crowd: Host, target: Path, large: bytes) -> None:
    """A name that leads elsewhere by then."""
    source = Source(large, 1_000)
    crowd.scripts = [source]
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    policy = PATIENT.model_copy(
        update={"allow_private_addresses": False, "allowed_addresses": ("127.0.0.0/8",)}
    )
    with Arrivals(target) as arrivals, Bringers(arrivals) as threads:
        url = crowd.url.replace("127.0.0.1", "talks.test")
        download = Download(url, arrivals, policy, quiet, resolve=names)
        threads.start(download.run)
        reader = Growing(
            arrivals, silent, silent, lambda start: threads.start(partial(download.fetch_tail, start))
        )
        assert reader.read(10) == large[:10]
        reader.seek(-100, 2)
        with pytest.raises(AddressRefused):
            reader.read(1)
    assert names.asked == ["talks.test", "talks.test"]


@pytest.fixture
def crowd() -> Iterator[Host]:
    """A host that answers several at a time."""
    with running("127.0.0.1", at_once=True) as serving:
        yield serving
