"""Downloads from a real server that redirects, breaks off, resumes, stalls and lies."""

import contextlib
import datetime
import gzip
import ipaddress
import random
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tasks import guard
from tasks.errors import (
    AddressRefused,
    InvalidInput,
    LonghandError,
    NotMedia,
    SourceChanged,
    SourceEmpty,
    SourceRefused,
    SourceTooLarge,
    SourceUnavailable,
    SourceUnreachable,
    UnsupportedScheme,
)
from tasks.fetch import fetch, next_hop, public_name
from tasks.settings import Settings

BODY = random.Random(1).randbytes(1_000_000)


@dataclass
class Request:
    path: str
    headers: Mapping[str, str]
    connection: socket.socket

    def answer(self, status: int, body: bytes = b"", **headers: str | int) -> None:
        """Send a whole answer; `headers` are written with underscores, Content-Length unless given."""
        fields: dict[str, str | int] = {"Content_Length": len(body), **headers}
        lines = [f"HTTP/1.1 {status} Because", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        self.connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def file(self, body: bytes, *, cut: int | None = None, **headers: str | int) -> None:
        """Serve `body` as a server that knows ranges does, but break off after `cut` bytes."""
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        rest = body[start:]
        if "Range" in self.headers:
            headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        status = 206 if "Range" in self.headers else 200
        self.answer(status, rest[:cut], Content_Length=len(rest), **headers)


Script = Callable[[Request], None]


@dataclass
class Host:
    """Answers the n-th request with the n-th script, and all later ones with the last."""

    server: socket.socket
    scripts: list[Script] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        host, port = self.server.getsockname()
        return f"{'https' if self.tls else 'http'}://{host}:{port}/folder/talk.mp3?secret=1"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), connection:
                self.handle(connection)

    def handle(self, connection: socket.socket) -> None:
        with self.tls.wrap_socket(connection, server_side=True) if self.tls else connection as wrapped:
            head = b""
            while b"\r\n\r\n" not in head:
                head += wrapped.recv(65536)
            first, *lines = head.decode().strip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
            self.requests.append(Request(first.split(" ")[1], headers, wrapped))
            script(self.requests[-1])


@contextlib.contextmanager
def running(address: str, tls: ssl.SSLContext | None = None) -> Iterator[Host]:
    with socket.create_server((address, 0)) as server:
        host = Host(server, tls=tls)
        thread = threading.Thread(target=host.serve)
        thread.start()
        try:
            yield host
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def host() -> Iterator[Host]:
    with running("127.0.0.1") as host:
        yield host


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "talk"


SETTINGS = Settings(allow_private_addresses=True, source_timeout_ms=5_000)


def quiet(_done: int, _total: int | None) -> None:
    """Nobody is interested."""


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


def chunked(request: Request, body: bytes, end: bytes = b"0\r\n\r\n") -> None:
    parts = [body[start : start + 5000] for start in range(0, len(body), 5000)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end
    request.connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded)


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


def redirect(status: int, location: str) -> Script:
    return lambda request: request.answer(status, b"moved", Location=location)


def test_redirects_are_followed_up_to_the_limit(host: Host, target: Path) -> None:
    hops = [redirect(301, "/b"), redirect(302, "c?x=1"), redirect(307, host.url), redirect(308, "/d")]
    host.scripts = [*hops, lambda request: request.file(BODY)]
    settings = SETTINGS.model_copy(update={"max_redirects": 4})
    assert fetch(host.url, target, settings, quiet) == len(BODY)
    assert [request.path for request in host.requests][1:3] == ["/b", "/c?x=1"]
    host.requests.clear()
    settings = SETTINGS.model_copy(update={"max_redirects": 3})
    with pytest.raises(SourceRefused, match="more than 3 times"):
        fetch(host.url, target, settings, quiet)
    assert len(host.requests) == 4


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("file:///etc/passwd", UnsupportedScheme),
        ("ftp://127.0.0.1/a", UnsupportedScheme),
        ("http://me:word@127.0.0.1/", InvalidInput),
        ("http://[::1/", SourceRefused),
        ("http://127.0.0.1:99999/", InvalidInput),
    ],
)
def test_a_redirect_passes_the_same_checks(
    host: Host, target: Path, location: str, error: type[LonghandError]
) -> None:
    host.scripts = [redirect(302, location)]
    with pytest.raises(error) as caught:
        fetch(host.url, target, SETTINGS, quiet)
    assert caught.type is error
    assert len(host.requests) == 1


def test_every_hop_is_decided_on_its_own_address(
    host: Host, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The rule is replaced, since nothing public can be reached from a test; all that applies it is real.
    monkeypatch.setattr(guard, "is_public", lambda address: address == ipaddress.ip_address("127.0.0.1"))
    with running("127.0.0.2") as private:
        monkeypatch.setattr(guard, "_PORTS", {port(host), port(private)})
        host.scripts = [redirect(302, private.url)]
        private.scripts = [lambda request: request.file(BODY)]
        with pytest.raises(AddressRefused, match=r"127\.0\.0\.2"):
            fetch(host.url, target, Settings(), quiet)
        assert (len(host.requests), len(private.requests)) == (1, 0)
        assert fetch(host.url, target, SETTINGS, quiet) == len(BODY)


def port(host: Host) -> int:
    number: int = host.server.getsockname()[1]
    return number


def test_private_addresses_are_refused_without_a_connection(
    host: Host, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.scripts = [lambda request: request.file(BODY)]
    with pytest.raises(AddressRefused, match="port"):
        fetch(host.url, target, Settings(), quiet)
    monkeypatch.setattr(guard, "_PORTS", {port(host)})
    for name in ("127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"):
        with pytest.raises(AddressRefused, match="public"):
            fetch(f"http://{name}:{port(host)}/", target, Settings(), quiet)
    assert host.requests == []


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context with a certificate for 127.0.0.1 that requests is made to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "host.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    monkeypatch.setattr(requests.adapters, "DEFAULT_CA_BUNDLE_PATH", str(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def test_https_is_not_left_for_http(host: Host, target: Path, tls: ssl.SSLContext) -> None:
    host.scripts = [lambda request: request.file(BODY)]
    with running("127.0.0.1", tls) as secure:
        secure.scripts = [redirect(302, "/again"), redirect(302, host.url)]
        with pytest.raises(AddressRefused, match="from https to http"):
            fetch(secure.url, target, SETTINGS, quiet)
        assert (len(secure.requests), len(host.requests)) == (2, 0)
        secure.scripts = [lambda request: request.file(BODY)]
        assert fetch(secure.url, target, SETTINGS, quiet) == len(BODY)


@pytest.mark.parametrize(
    ("url", "location", "expected"),
    [
        ("http://a.test/b/c", "d", "http://a.test/b/d"),
        ("http://a.test/b/c", "//b.test/d?e", "http://b.test/d?e"),
        ("http://a.test/b", "https://b.test/", "https://b.test/"),
        ("https://a.test/", "/×©".encode().decode("latin-1"), "https://a.test/×©"),
    ],
)
def test_next_hop(url: str, location: str, expected: str) -> None:
    assert next_hop(url, location) == expected


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


def test_a_broken_transfer_is_resumed_where_it_stopped(host: Host, target: Path) -> None:
    host.scripts = [
        lambda request: request.file(BODY, cut=300_000, ETag='"one"'),
        lambda request: request.file(BODY, cut=200_000, ETag='"one"'),
        lambda request: request.file(BODY, ETag='"one"'),
    ]
    seen: list[int] = []
    assert fetch(host.url, target, SETTINGS, lambda done, _total: seen.append(done)) == len(BODY)
    assert target.read_bytes() == BODY
    assert seen == sorted(set(seen))
    ranges = [request.headers.get("Range") for request in host.requests]
    assert ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert [request.headers.get("If-Range") for request in host.requests] == [None, '"one"', '"one"']


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


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


def test_an_unanswered_request_fails_within_the_timeout(target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = SETTINGS.model_copy(update={"source_timeout_ms": 200})
        with pytest.raises(SourceUnreachable, match=r"0\.2 s"):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/", target, settings, quiet)


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


OTHER = random.Random(2).randbytes(len(BODY))


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


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://a.test/b/c.mp3?token=1#x", "https://a.test/c.mp3"),
        ("https://me:word@A.test:8443/c.mp3", "https://a.test/c.mp3"),
        ("http://a.test", "http://a.test/"),
        ("http://[2001:db8::1]/c", "http://[2001:db8::1]/c"),
        ("http://a.test:port/?token=1", "(unreadable URL)"),
        ("data:audio/wav;base64,AAAA", "(unreadable URL)"),
        ("nonsense", "(unreadable URL)"),
    ],
)
def test_public_name(url: str, name: str) -> None:
    assert public_name(url) == name
