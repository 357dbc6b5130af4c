"""Hosts that send slowly, or nothing, or what is no byte of the recording: given up, and told why."""

import select
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.errors import DiskFull, SourceTooSlow, SourceUnreachable
from tests.downloads import fetch
from tests.hosts import BODY, SETTINGS, Host, Request, Script, quiet, redirect

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HASTY = SETTINGS.model_copy(update={"source_timeout_ms": 500})


def drip(start: bytes, drop: bytes = b"x") -> Script:
    """Send `start`, then a drop every 50 ms, so that no single wait is long, until nobody listens."""

    def script(request: Request) -> None:
        request.connection.sendall(start)
        while not select.select([request.connection], [], [], 0.05)[0]:
            request.connection.sendall(drop)

    return script


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"", b"x"),
        (b"HTTP/1.1 200 ", b"x"),
        (OK + b"X: ", b"x"),
        (OK, b"X: x\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        # From here on, http.client's reader waits for the end of a line: no byte of the body ever comes.
        (CHUNKED + b"1;", b"x"),
        (CHUNKED, b"0"),
        (CHUNKED + b"3\r\nabc\r\n0\r\nX: ", b"x"),
        (OK + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x08\0\0\0\0\0\x03", b"x"),
    ],
)
def test_a_drip_of_no_recording_is_over_in_time(host: Host, target: Path, start: bytes, drop: bytes) -> None:
    # The file's version is known to be none: what fails after its start is tried once more, from the start.
    host.scripts = [drip(start, drop)]
    with pytest.raises(SourceUnreachable, match=r"127\.0\.0\.1"):
        fetch(host.url, target, HASTY, quiet)
    assert target.stat().st_size <= 3


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def jump(self, seconds: float) -> Callable[[int, int | None], None]:
        """What a download reports to: every report takes so long."""

        def on_bytes(_done: int, _total: int | None) -> None:
            self.now_s += seconds

        return on_bytes


def test_a_body_that_drips_is_too_slow(host: Host, target: Path) -> None:
    host.scripts = [drip(OK + b"\r\n")]
    clock = Clock()
    with pytest.raises(SourceTooSlow, match="bytes a second"):
        fetch(host.url, target, SETTINGS, clock.jump(1), clock=clock)
    # The grace, and then the first report.
    assert clock.now_s == 61
    assert len(host.requests) == 1


def test_a_slow_start_may_be_made_up_for(host: Host, target: Path) -> None:
    host.scripts = [lambda request: request.file(BODY)]
    clock = Clock()
    reports: list[int] = []

    def on_bytes(done: int, _total: int | None) -> None:
        clock.now_s = max(clock.now_s, 59.0) + 0.001
        reports.append(done)

    assert fetch(host.url, target, SETTINGS, on_bytes, clock=clock) == len(BODY)


def test_a_download_has_an_end_however_fast_it_is(host: Host, target: Path) -> None:
    def for_ever(request: Request) -> None:
        request.connection.sendall(OK + b"\r\n")
        while True:
            request.connection.sendall(BODY)

    host.scripts = [for_ever]
    clock = Clock()
    settings = SETTINGS.model_copy(update={"max_source_ms": 30_000})
    with pytest.raises(SourceTooSlow, match="in 30 s, and not all"):
        fetch(host.url, target, settings, clock.jump(1), clock=clock)


def test_redirects_and_resumptions_count(host: Host, target: Path) -> None:
    clock = Clock()
    settings = SETTINGS.model_copy(update={"max_source_ms": 30_000})

    def late(script: Script) -> Script:
        def script_(request: Request) -> None:
            clock.now_s += 10
            script(request)

        return script_

    def broken(request: Request) -> None:
        request.file(BODY, cut=1000, ETag='"one"')

    host.scripts = [late(redirect(302, "/b")), late(broken), late(broken), late(broken)]
    with pytest.raises(SourceTooSlow):
        fetch(host.url, target, settings, quiet, clock=clock)
    assert len(host.requests) == 3


def test_one_byte_and_then_nothing(host: Host, target: Path) -> None:
    def stall(request: Request) -> None:
        request.connection.sendall(OK + b"Content-Length: 9\r\n\r\na")
        select.select([request.connection], [], [], 10)

    host.scripts = [stall]
    with pytest.raises(SourceUnreachable, match="after 1 bytes"):
        fetch(host.url, target, HASTY, quiet)
    assert len(host.requests) == 2


def test_a_full_disk_is_called_one(host: Host) -> None:
    host.scripts = [lambda request: request.file(BODY)]
    with pytest.raises(DiskFull):
        fetch(host.url, Path("/dev/full"), SETTINGS, quiet)
