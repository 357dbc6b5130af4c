"""Downloads from a real server: whole, within the limit, stopped when told, and no page or secret shown."""

import contextlib
import gzip
import socket
import threading
import traceback
from pathlib import Path

import pytest

from tasks.errors import (
    LonghandError,
    NotMedia,
    SourceEmpty,
    SourceRefused,
    SourceTooLarge,
    SourceUnavailable,
    SourceUnreachable,
)
from tasks.settings import Settings
from tests.downloads import fetch
from tests.hosts import BODY, SETTINGS, Host, Request, Script, chunked, quiet, redirect


def test_a_download_arrives_byte_for_byte_and_reports_its_progress(host: Host, target: Path) -> None:
    host.scripts = [lambda request: request.file(BODY)]
    seen: list[tuple[int, int | None]] = []

    def on_bytes(done: int, total: int | None) -> None:
        assert target.stat().st_size == done, "what is reported can be read"
        seen.append((done, total))

    assert fetch(host.url, target, SETTINGS, on_bytes) == len(BODY)
    assert target.read_bytes() == BODY
    assert seen == sorted(seen, key=lambda pair: pair[0])
    assert seen[-1] == (len(BODY), len(BODY))
    assert host.requests[0].headers["Accept-Encoding"] == "identity"
    assert host.requests[0].path == "/folder/talk.mp3?secret=1"


def test_an_older_attempt_leaves_nothing_behind(host: Host, target: Path) -> None:
    target.write_bytes(b"older" * 1_000_000)
    host.scripts = [lambda request: request.file(BODY)]
    fetch(host.url, target, SETTINGS, quiet)
    assert target.read_bytes() == BODY


def test_a_length_that_is_not_told_is_unknown(host: Host, target: Path) -> None:
    host.scripts = [lambda request: chunked(request, BODY)]
    totals: set[int | None] = set()

    def on_bytes(done: int, total: int | None) -> None:
        assert target.stat().st_size == done, "the smallest block can be read as well"
        totals.add(total)

    assert fetch(host.url, target, SETTINGS, on_bytes) == len(BODY)
    assert target.read_bytes() == BODY
    assert totals == {None}


def test_an_encoding_nobody_asked_for_is_undone(host: Host, target: Path) -> None:
    packed = gzip.compress(BODY)
    host.scripts = [lambda request: request.answer(200, packed, Content_Encoding="gzip")]
    totals: set[int | None] = set()
    assert fetch(host.url, target, SETTINGS, lambda _done, total: totals.add(total)) == len(BODY)
    assert target.read_bytes() == BODY
    assert totals == {None}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (304, SourceRefused),
        (400, SourceRefused),
        (401, SourceRefused),
        (403, SourceRefused),
        (404, SourceRefused),
        (410, SourceRefused),
        (416, SourceRefused),
        (429, SourceUnavailable),
        (500, SourceUnavailable),
        (503, SourceUnavailable),
    ],
)
def test_an_error_status_is_named(host: Host, target: Path, status: int, error: type[LonghandError]) -> None:
    host.scripts = [lambda request: request.answer(status, b"sorry")]
    with pytest.raises(error, match=str(status)):
        fetch(host.url, target, SETTINGS, quiet)
    assert len(host.requests) == 1
    assert target.read_bytes() == b""


def small(limit: int) -> Settings:
    return SETTINGS.model_copy(update={"max_source_bytes": limit})


def test_a_length_above_the_limit_is_not_read(host: Host, target: Path) -> None:
    host.scripts = [lambda request: request.file(BODY)]
    with pytest.raises(SourceTooLarge):
        fetch(host.url, target, small(len(BODY) - 1), quiet)
    assert target.read_bytes() == b""
    assert fetch(host.url, target, small(len(BODY)), quiet) == len(BODY)


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_body_above_the_limit_is_cut_short(host: Host, target: Path, encoding: str) -> None:
    stopped = threading.Event()

    def endless(request: Request) -> None:
        part = gzip.compress(bytes(1_000_000)) if encoding == "gzip" else BODY
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n\r\n"
        request.connection.sendall(head.encode())
        try:
            while True:
                request.connection.sendall(part)
        except OSError:
            stopped.set()
            raise

    host.scripts = [endless]
    with pytest.raises(SourceTooLarge):
        fetch(host.url, target, small(2_000_000), quiet)
    assert stopped.wait(10)
    assert target.stat().st_size <= 2_000_000


def test_an_empty_file_is_an_error(host: Host, target: Path) -> None:
    host.scripts = [lambda request: request.answer(200)]
    with pytest.raises(SourceEmpty):
        fetch(host.url, target, SETTINGS, quiet)
    assert len(host.requests) == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", BODY),
        ("Text/HTML; charset=utf-8", b"please log in"),
        ("application/xhtml+xml", b"<x/>"),
        ("audio/mpeg", b"<!DOCTYPE html><title>Log in</title>"),
        ("application/octet-stream", b"\xef\xbb\xbf \r\n<HTML lang='he'><body>"),
        ("audio/mpeg", b"<!-- saved -->\n<!doctype HTML>"),
        ("audio/mpeg", b'<?xml version="1.0"?>\n<html xmlns="x">'),
    ],
)
def test_a_web_page_is_called_one(host: Host, target: Path, kind: str, body: bytes) -> None:
    host.scripts = [lambda request: request.answer(200, body, Content_Type=kind)]
    with pytest.raises(NotMedia, match="web page"):
        fetch(host.url, target, SETTINGS, quiet)
    assert len(host.requests) == 1


def test_an_unanswered_request_fails_within_the_timeout(target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = SETTINGS.model_copy(update={"source_timeout_ms": 200})
        with pytest.raises(SourceUnreachable, match=r"0\.2 s"):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/", target, settings, quiet)


class Canceled(Exception):
    pass


def test_the_receiver_of_progress_can_stop_the_download(host: Host, target: Path) -> None:
    stopped = threading.Event()

    def trickle(request: Request) -> None:
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nabc")
        # One byte more than nothing is enough for `on_bytes`; the rest would never come.
        request.connection.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert request.connection.recv(1) == b""
        stopped.set()

    def cancel(done: int, total: int | None) -> None:
        assert (done, total) == (3, 100_000_000)
        raise Canceled

    host.scripts = [trickle]
    with pytest.raises(Canceled):
        fetch(host.url, target, SETTINGS, cancel)
    assert stopped.wait(5), "the socket is closed"
    assert len(host.requests) == 1


@pytest.mark.parametrize(
    "script",
    [
        lambda request: request.answer(404),
        lambda request: request.answer(503),
        lambda request: request.answer(200, b"abc", Content_Length=9),
        lambda request: request.answer(200),
        lambda request: request.answer(200, b"<html>"),
        lambda request: request.answer(200, BODY, Content_Encoding="gzip"),
        lambda request: request.connection.close(),
        redirect(302, "http://other:secret@127.0.0.1/?secret=2"),
        redirect(302, "/folder/?secret=2"),
    ],
)
def test_no_failure_tells_more_of_the_url_than_its_host(
    host: Host, target: Path, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    host.scripts = [script]
    with caplog.at_level(0), pytest.raises(LonghandError) as caught:
        fetch(host.url, target, SETTINGS, quiet)
    assert "127.0.0.1" in str(caught.value)
    printed = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "secret=" not in printed
    assert "/folder" not in printed
