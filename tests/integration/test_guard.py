"""The network guard against real sockets: what it refuses never reaches a listener."""

import contextlib
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tasks.errors import AddressRefused, SourceUnreachable
from tasks.guard import AddressInfo
from tasks.http import guarded_session, send
from tasks.policy import Policy
from tests.certificates import write_certificate

# A reserved block of global unicast: public by every rule, routed nowhere.
PUBLIC = "2d00::1"
OPEN = Policy(allow_private=True)


class Names:
    """A resolver that answers from a list, one entry for each look-up, and counts them."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, family: int, kind: int) -> list[AddressInfo]:
        self.asked.append(host)
        found: list[AddressInfo] = []
        for address in self.answers.pop(0):
            found.extend(socket.getaddrinfo(address, port, family, kind, 0, socket.AI_NUMERICHOST))
        return found


@pytest.fixture(scope="session")
def httpserver_listen_address() -> tuple[str, int]:
    return "127.0.0.1", 0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Accepts nothing by itself: connections made stay in its backlog, to be counted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def connections(server: socket.socket) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


def port_of(server: socket.socket) -> int:
    port: int = server.getsockname()[1]
    return port


LOOPBACK_HOSTS = [
    "127.0.0.1",
    "localhost",
    "LOCALHOST",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "0.0.0.0",
    "0",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
]
OTHER_HOSTS = [
    "10.0.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.192",
    "192.168.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "2852039166",
    "[::]",
    "[::1]",
    "[::127.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[2001::1]",
    "[2002:7f00:1::]",
    "[64:ff9b::a9fe:a9fe]",
    "[fd00:ec2::254]",
    "[fe80::1%25lo]",
    "[fec0::1]",
    "[ff02::1]",
]


@pytest.mark.parametrize("host", LOOPBACK_HOSTS)
def test_no_spelling_of_loopback_is_connected_to(host: str, listener: socket.socket) -> None:
    url = f"http://{host}:{port_of(listener)}/"
    with guarded_session(Policy()) as session, pytest.raises(AddressRefused):
        session.get(url, timeout=5)
    assert connections(listener) == 0
    # The spelling does lead there, so it was the guard that refused.
    with guarded_session(OPEN) as session, pytest.raises(SourceUnreachable):
        send(session, "GET", url, timeout_s=0.2)
    assert connections(listener) == 1


@pytest.mark.parametrize("host", OTHER_HOSTS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_addresses_that_are_not_public_are_refused(scheme: str, host: str) -> None:
    with (
        guarded_session(Policy()) as session,
        pytest.raises((AddressRefused, SourceUnreachable)) as caught,
    ):
        send(session, "GET", f"{scheme}://{host}/", timeout_s=5)
    # A zone may fail to resolve at all, where there is no such interface.
    assert caught.type is AddressRefused or "%" in host


def test_one_private_address_among_public_ones_refuses_the_name(listener: socket.socket) -> None:
    names = Names([PUBLIC, "127.0.0.1"], ["127.0.0.1", PUBLIC])
    with guarded_session(Policy(), names) as session:
        for _ in range(2):
            with pytest.raises(AddressRefused, match=r"recordings\.test"):
                session.get(f"http://recordings.test:{port_of(listener)}/", timeout=5)
    assert connections(listener) == 0


def test_a_rebinding_name_gains_nothing(listener: socket.socket) -> None:
    names = Names([PUBLIC], ["127.0.0.1"])
    port = port_of(listener)
    url = f"http://recordings.test:{port}/"
    with guarded_session(Policy(ports=frozenset({port})), names) as session:
        # Connects to the public address of its own look-up, where nobody is, and does not ask again.
        with pytest.raises(SourceUnreachable, match="could not be reached"):
            session.get(url, timeout=0.3)
        assert names.asked == ["recordings.test"]
        with pytest.raises(AddressRefused):
            session.get(url, timeout=0.3)
    assert names.asked == ["recordings.test"] * 2
    assert connections(listener) == 0


def test_connects_to_the_address_it_looked_up_under_the_name_it_was_given(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_data("ok")
    names = Names(["127.0.0.1"])
    with guarded_session(OPEN, names) as session:
        response = send(session, "GET", f"http://recordings.test.:{httpserver.port}/", timeout_s=5)
    assert response.text == "ok"
    # A final dot keeps the search domains of the machine out of the look-up.
    assert names.asked == ["recordings.test."]
    assert httpserver.log[0][0].host.rstrip(".").startswith("recordings.test")


def test_a_dead_address_leaves_time_for_the_next(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_data("ok")
    with socket.create_server(("127.0.0.2", 0)) as closed:
        dead = port_of(closed)
    names = Names(["127.0.0.2", "127.0.0.1"], ["127.0.0.2"])
    with guarded_session(OPEN, names) as session:
        url = f"http://recordings.test:{httpserver.port}/"
        assert send(session, "GET", url, timeout_s=5).ok
        with pytest.raises(SourceUnreachable, match="refused"):
            send(session, "GET", f"http://other.test:{dead}/", timeout_s=5)


def test_no_proxy_of_the_environment_is_used(
    httpserver: HTTPServer, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    httpserver.expect_request("/").respond_with_data("ok")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port_of(listener)}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with guarded_session(OPEN) as session:
        assert send(session, "GET", httpserver.url_for("/"), timeout_s=5).ok
    assert connections(listener) == 0


def test_redirects_are_handed_back_without_reading_their_body() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def redirect_for_ever() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n")
                while True:
                    connection.sendall(b"x" * 65536)

        thread = threading.Thread(target=redirect_for_ever)
        thread.start()
        url = f"http://127.0.0.1:{port_of(server)}/"
        with (
            guarded_session(OPEN) as session,
            send(session, "GET", url, timeout_s=5, stream=True) as response,
        ):
            assert response.status_code == 302
            assert response.headers["Location"] == "http://127.0.0.1:1/"
        thread.join(10)
        assert not thread.is_alive()


def unresolved(host: str, port: int, family: int, kind: int) -> list[AddressInfo]:
    raise socket.gaierror(socket.EAI_NONAME, f"no {host}:{port} {family} {kind}")


@pytest.mark.parametrize(
    "body", [b"", b"not HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"]
)
def test_failures_name_the_host_and_nothing_else_of_the_url(body: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(body)

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{port_of(server)}/secretpath?secret=query"
        with guarded_session(OPEN) as session, pytest.raises(SourceUnreachable) as caught:
            send(session, "GET", url, timeout_s=5)
        thread.join(10)
    assert "127.0.0.1" in str(caught.value)
    # A log prints the whole traceback, causes included.
    assert "secretpath" not in "".join(traceback.format_exception(caught.value))


def test_a_silent_host_times_out(listener: socket.socket) -> None:
    url = f"http://127.0.0.1:{port_of(listener)}/"
    with (
        guarded_session(OPEN) as session,
        pytest.raises(SourceUnreachable, match=r"127\.0\.0\.1 did not answer within 0\.2 s"),
    ):
        send(session, "GET", url, timeout_s=0.2)


def test_an_unknown_name_is_unreachable() -> None:
    with (
        guarded_session(Policy(), unresolved) as session,
        pytest.raises(SourceUnreachable, match=r"nobody\.test could not be resolved"),
    ):
        send(session, "GET", "http://nobody.test/", timeout_s=5)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with a key and its own certificate for recordings.test."""
    pem = tmp_path_factory.mktemp("tls") / "recordings.pem"
    return write_certificate(pem, "recordings.test", x509.DNSName("recordings.test"))


def test_tls_keeps_the_name_for_sni_and_for_the_certificate(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    asked: list[str | None] = []

    def remember(_socket: Any, name: str | None, _context: Any) -> None:
        asked.append(name)

    context.sni_callback = remember
    with HTTPServer(host="127.0.0.1", ssl_context=context) as server:
        server.expect_request("/").respond_with_data("ok")
        names = Names(["127.0.0.1"], ["127.0.0.1"])
        with guarded_session(OPEN, names) as session:

            def get(host: str) -> str:
                url = f"https://{host}:{server.port}/?secret=1"
                return send(session, "GET", url, timeout_s=5, verify=str(certificate)).text

            assert get("recordings.test") == "ok"
            with pytest.raises(SourceUnreachable, match=r"other\.test.*[Hh]ostname mismatch") as caught:
                get("other.test")
    assert asked == ["recordings.test", "other.test"]
    assert "secret=" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: "])
def test_a_head_that_drips_is_given_up_in_time(before: bytes) -> None:
    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(before)
            while not over.wait(0.05):
                connection.sendall(b"x")

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a"
        with guarded_session(OPEN) as session:
            started_s = time.monotonic()
            with pytest.raises(SourceUnreachable, match=r"did not answer within 0\.5 s"):
                send(session, "GET", url, timeout_s=0.5, stream=True)
            assert time.monotonic() - started_s < 3
        over.set()
        thread.join()


def test_a_kept_connection_is_ended_too(httpserver: HTTPServer) -> None:
    httpserver.expect_ordered_request("/quick").respond_with_data("x")
    release = threading.Event()

    def slow(_request: Request) -> Response:
        release.wait(10)
        return Response("late")

    httpserver.expect_ordered_request("/slow").respond_with_handler(slow)
    with guarded_session(OPEN) as session:
        send(session, "GET", httpserver.url_for("/quick"), timeout_s=5)
        with pytest.raises(SourceUnreachable):
            send(session, "GET", httpserver.url_for("/slow"), timeout_s=0.3)
    release.set()
