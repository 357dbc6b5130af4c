"""The network guard against real sockets: what it refuses never reaches a listener."""

import contextlib
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tasks.errors import AddressRefused, SourceUnreachable
from tasks.http import guarded_session, send
from tasks.policy import Policy
from tests.certificates import write_certificate
from tests.guard_table import PUBLIC
from tests.hosts import Names, connections, listening, port_of

OPEN = Policy(allow_private=True)


@pytest.fixture(scope="session")
def httpserver_listen_address() -> tuple[str, int]:
    return "127.0.0.1", 0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with listening() as server:
        yield server


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
