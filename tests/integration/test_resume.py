"""Downloads that break off, stall or change: resumed where they stopped, and never two files joined."""

import random
import threading
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import SourceChanged, SourceUnreachable
from tests.downloads import fetch
from tests.hosts import BODY, SETTINGS, Host, Request, Script, chunked, quiet

DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
OTHER = random.Random(2).randbytes(len(BODY))


def test_a_broken_transfer_is_resumed_where_it_stopped(host: Host, target: Path) -> None:
    host.scripts = [
        lambda request: request.file(BODY, cut=300_000, ETag='"one"'),
        lambda request: request.file(BODY, cut=200_000, ETag='"one"'),
        lambda request: request.file(BODY, ETag='"one"'),
    ]
    seen: list[int] = []
    assert fetch(host.url, target, SETTINGS, lambda done, _total: seen.append(done)) == len(BODY)
    assert target.read_bytes() == BODY
    assert seen == sorted(seen)
    # Broken attempts are reported as well: the process has not stalled.
    assert [seen.count(size) for size in (300_000, 500_000)] == [2, 2]
    ranges = [request.headers.get("Range") for request in host.requests]
    assert ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert [request.headers.get("If-Range") for request in host.requests] == [None, '"one"', '"one"']


@pytest.mark.parametrize("etag", [{}, {"ETag": 'W/"weak"'}])
def test_a_date_guards_the_resumption_where_no_strong_tag_does(
    host: Host, target: Path, etag: dict[str, Any]
) -> None:
    host.scripts = [
        lambda request: request.file(BODY, cut=9, Last_Modified=DATE, **etag),
        lambda request: request.file(BODY, Last_Modified=DATE, **etag),
    ]
    assert fetch(host.url, target, SETTINGS, quiet) == len(BODY)
    assert target.read_bytes() == BODY
    assert host.requests[1].headers["If-Range"] == DATE


def test_a_stalled_transfer_is_resumed(host: Host, target: Path) -> None:
    over = threading.Event()

    def stall(request: Request) -> None:
        request.file(BODY, cut=1000, ETag='"one"')
        # Not before the client has given up: the connection stays open.
        request.connection.settimeout(10)
        assert request.connection.recv(1) == b""
        over.set()

    host.scripts = [stall, lambda request: request.file(BODY, ETag='"one"')]
    settings = SETTINGS.model_copy(update={"source_timeout_ms": 300})
    assert fetch(host.url, target, settings, quiet) == len(BODY)
    assert over.is_set()
    assert host.requests[1].headers["Range"] == "bytes=1000-"


@pytest.mark.parametrize(
    "headers",
    [{}, {"ETag": 'W/"weak"'}, {"ETag": '"one"'}, {"ETag": '"one"', "Accept_Ranges": "none"}],
)
def test_a_host_without_ranges_is_asked_for_the_whole_once_more(
    host: Host, target: Path, headers: dict[str, str]
) -> None:
    def broken(request: Request) -> None:
        request.answer(200, BODY[:300_000], Content_Length=len(BODY), **headers)

    host.scripts = [broken, lambda request: request.answer(200, BODY, **headers)]
    sizes: list[int] = []
    assert fetch(host.url, target, SETTINGS, lambda done, _total: sizes.append(done)) == len(BODY)
    assert target.read_bytes() == BODY
    assert sizes == sorted(sizes), "a reader that follows never sees the file shrink"
    host.requests.clear()
    host.scripts = [broken]
    with pytest.raises(SourceUnreachable, match="300000 bytes"):
        fetch(host.url, target, SETTINGS, quiet)
    assert len(host.requests) == 2


@pytest.mark.parametrize(
    "script",
    [
        lambda request: request.answer(416, Content_Range="bytes */9"),
        lambda request: request.answer(206, BODY[500_000:], Content_Range="bytes 500000-999999/1000000"),
        lambda request: request.answer(206, BODY[300_000:]),
    ],
)
def test_a_wrong_answer_to_a_range_leads_to_a_restart(host: Host, target: Path, script: Script) -> None:
    host.scripts = [
        lambda request: request.file(BODY, cut=300_000, ETag='"one"'),
        script,
        lambda request: request.file(BODY, ETag='"one"'),
    ]
    assert fetch(host.url, target, SETTINGS, quiet) == len(BODY)
    assert target.read_bytes() == BODY
    assert "Range" not in host.requests[2].headers


def test_shorter_ranges_than_asked_for_are_put_together(host: Host, target: Path) -> None:
    def part(start: int, end: int) -> Script:
        content_range = f"bytes {start}-{end - 1}/{len(BODY)}"
        return lambda request: request.answer(206, BODY[start:end], Content_Range=content_range, ETag='"one"')

    def broken(request: Request) -> None:
        head = b'HTTP/1.1 200 OK\r\nETag: "one"\r\nTransfer-Encoding: chunked\r\n\r\n'
        request.connection.sendall(head + b"3e8\r\n" + BODY[:500])

    # The total comes only with the second answer, and the third overlaps.
    host.scripts = [broken, part(500, 900_000), part(800_000, len(BODY))]
    assert fetch(host.url, target, SETTINGS, quiet) == len(BODY)
    assert target.read_bytes() == BODY


def test_four_attempts_are_enough(host: Host, target: Path) -> None:
    host.scripts = [lambda request: request.file(BODY, cut=1000, ETag='"one"')]
    with pytest.raises(SourceUnreachable, match=r"127\.0\.0\.1 .*4000 bytes"):
        fetch(host.url, target, SETTINGS, quiet)
    assert len(host.requests) == 4


def test_a_temporary_status_does_not_end_a_transfer_that_has_begun(host: Host, target: Path) -> None:
    host.scripts = [
        lambda request: request.file(BODY, cut=1000, ETag='"one"'),
        lambda request: request.answer(503),
        lambda request: request.file(BODY, ETag='"one"'),
    ]
    assert fetch(host.url, target, SETTINGS, quiet) == len(BODY)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize(
    ("first", "second", "other"),
    [
        ({"ETag": '"one"'}, {"ETag": '"two"'}, BODY),
        ({"Last_Modified": DATE}, {"Last_Modified": "Thu, 22 Oct 2015 07:28:00 GMT"}, BODY),
        ({}, {}, BODY + b"more"),
        ({}, {}, OTHER),
        ({"ETag": '"one"'}, {}, OTHER),
    ],
)
@pytest.mark.parametrize("ranges", [True, False])
def test_another_file_is_never_joined_to_the_first(
    *, host: Host, target: Path, ranges: bool, first: dict[str, Any], second: dict[str, Any], other: bytes
) -> None:
    def changed(request: Request) -> None:
        if ranges and second:
            request.file(other, **second)
        else:
            request.answer(200, other, **second)

    host.scripts = [lambda request: request.file(BODY, cut=300_000, **first), changed]
    with pytest.raises(SourceChanged):
        fetch(host.url, target, SETTINGS, quiet)
    assert target.read_bytes() == BODY[:300_000]


def test_a_file_that_became_shorter_has_changed(host: Host, target: Path) -> None:
    host.scripts = [
        lambda request: chunked(request, BODY[:300_000], end=b""),
        lambda request: chunked(request, BODY[:200_000]),
    ]
    with pytest.raises(SourceChanged):
        fetch(host.url, target, SETTINGS, quiet)
