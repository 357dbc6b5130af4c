"""The table of tests/guard_table.py against real sockets: no case reaches anything, in any of three ways."""

import contextlib
import ipaddress
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.schemas import parse_input
from tasks.errors import AddressRefused, LonghandError, SourceUnreachable
from tasks.guard import Resolver
from tasks.http import guarded_session, send
from tasks.policy import Policy
from tasks.settings import Settings
from tests.downloads import fetch
from tests.guard_table import PUBLIC, URLS, Case
from tests.hosts import BODY, Host, Names, Request, connections, listening, port_of, quiet, redirect, running

# An address of this machine that the tests' settings allow: what leads the guard astray is there.
ALLOWED = "127.0.0.9"
SPELLINGS = {"loopback", "short", "integer", "hex", "octal", "mixed", "unspecified", "mapped"}
# Every address that this process connects to, as the interpreter itself reports it.
_connects: list[str] = []


def _remember(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect":
        return
    _connects.append(arguments[1][0])
    if Barred.active:
        Barred.active.addresses.add(arguments[1][0])
        raise ConnectionRefusedError("barred by the test")


sys.addaudithook(_remember)


@pytest.fixture
def connected() -> list[str]:
    """The addresses connected to since the test began."""
    _connects.clear()
    return _connects


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with listening("") as server:
        yield server


@pytest.fixture(scope="module")
def astray() -> Iterator[Host]:
    with running(ALLOWED) as host:
        yield host


class Attempt:
    """A case with the listener's port in its URL, and with that port allowed: it is not what refuses."""

    def __init__(self, case: Case, listener: socket.socket) -> None:
        port = port_of(listener)
        self.url = case.url.replace("{port}", str(port))
        self.settings = Settings(
            allowed_ports=(80, 443, port), allowed_addresses=(ALLOWED,), source_timeout_ms=300
        )
        self.resolve: Resolver = Names(*case.answers) if case.answers else socket.getaddrinfo


def label(case: Case) -> str:
    return f"{case.kind}: {case.url}".encode("unicode_escape").decode()


def redirectable(case: Case) -> bool:
    """Whether a Location can say it: not what is relative there, and no line ends."""
    with contextlib.suppress(ValueError):
        return min(case.url, default="\n") >= " " and urljoin("http://a.test/", case.url) == case.url
    return False


def shown(case: Case) -> bool:
    """Whether the URL alone is enough to refuse it."""
    return bool(case.url) and case.code in ("unsupported_scheme", "invalid_input")


def spelled(case: Case) -> bool:
    """Whether it is another way to write an address of the listener."""
    return case.kind in SPELLINGS and "{port}" in case.url


everything = pytest.mark.parametrize("case", URLS, ids=label)
redirects = pytest.mark.parametrize("case", [case for case in URLS if redirectable(case)], ids=label)


def assert_nothing_reached(listener: socket.socket, connected: list[str], *others: str) -> None:
    assert connections(listener) == 0
    # The listener sees what is of this machine; the interpreter, what was tried beyond it.
    assert set(connected) <= {PUBLIC, *others}


@everything
def test_as_a_recording(case: Case, listener: socket.socket, target: Path, connected: list[str]) -> None:
    tried = Attempt(case, listener)
    with pytest.raises(LonghandError) as caught:
        fetch(tried.url, target, tried.settings, quiet, resolve=tried.resolve)
    assert caught.value.code == case.code
    assert_nothing_reached(listener, connected)
    assert target.read_bytes() == b""


@redirects
def test_as_the_target_of_a_redirect(
    case: Case, listener: socket.socket, astray: Host, target: Path, connected: list[str]
) -> None:
    tried = Attempt(case, listener)
    astray.requests.clear()
    astray.scripts = [redirect(302, tried.url)]

    def resolve(host: str, port: int, family: int, kind: int) -> Any:
        return (socket.getaddrinfo if host == ALLOWED else tried.resolve)(host, port, family, kind)

    with pytest.raises(LonghandError) as caught:
        fetch(astray.url, target, tried.settings, quiet, resolve=resolve)
    assert caught.value.code == case.code
    assert_nothing_reached(listener, connected, ALLOWED)
    assert len(astray.requests) == 1


@everything
def test_as_a_webhook(case: Case, listener: socket.socket, connected: list[str]) -> None:
    tried = Attempt(case, listener)
    with (
        guarded_session(tried.settings.policy(""), tried.resolve) as session,
        pytest.raises(LonghandError) as caught,
    ):
        send(session, "POST", tried.url, timeout_s=0.3, data=b"{}")
    assert caught.value.code == case.code
    assert_nothing_reached(listener, connected)


@pytest.mark.parametrize("field", ["url", "webhook_url"])
@pytest.mark.parametrize("case", [case for case in URLS if shown(case)], ids=label)
def test_what_the_url_itself_shows_is_refused_at_the_door(case: Case, field: str) -> None:
    with pytest.raises(LonghandError) as caught:
        parse_input({"url": "https://recordings.test/a", field: case.url.replace("{port}", "80")}, Settings())
    assert caught.value.code == case.code


def test_the_table_is_as_long_as_promised() -> None:
    assert len(set(URLS)) == len(URLS) >= 80


@pytest.mark.parametrize("case", [case for case in URLS if spelled(case)], ids=label)
def test_the_spellings_do_lead_to_the_listener(case: Case, listener: socket.socket) -> None:
    # So it is the guard that refuses them, and not the resolver or the kernel.
    tried = Attempt(case, listener)
    with (
        guarded_session(Policy(allow_private=True), tried.resolve) as session,
        pytest.raises(SourceUnreachable, match="did not answer"),
    ):
        send(session, "GET", tried.url, timeout_s=0.1)
    assert connections(listener) == 1


def rebound(astray: Host, *addresses: str) -> tuple[str, Names]:
    """A name's URL on the host's port, and the addresses it leads to, look-up by look-up."""
    names = Names(*([address] for address in addresses))
    return f"http://recordings.test:{port_of(astray.server)}/a", names


@pytest.mark.parametrize("private", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_a_name_that_rebinds_between_two_hops(
    private: str, astray: Host, target: Path, connected: list[str]
) -> None:
    url, names = rebound(astray, ALLOWED, private)
    astray.scripts = [redirect(302, url)]
    with pytest.raises(AddressRefused):
        fetch(url, target, Settings(allowed_addresses=(ALLOWED,)), quiet, resolve=names)
    assert set(connected) == {ALLOWED}
    assert names.asked == ["recordings.test"] * 2


def test_a_name_that_rebinds_before_a_resumption(astray: Host, target: Path, connected: list[str]) -> None:
    url, names = rebound(astray, ALLOWED, "127.0.0.1")

    def broken(request: Request) -> None:
        request.file(BODY, cut=1000, ETag='"one"')

    astray.scripts = [broken]
    with pytest.raises(AddressRefused):
        fetch(url, target, Settings(allowed_addresses=(ALLOWED,)), quiet, resolve=names)
    assert set(connected) == {ALLOWED}
    assert target.stat().st_size == 1000


@pytest.mark.parametrize("hops", [1, 2])
def test_a_loop_of_redirects_ends(hops: int, astray: Host, target: Path) -> None:
    astray.requests.clear()
    astray.scripts = [redirect(302, f"/{number % hops}") for number in range(20)]
    with pytest.raises(LonghandError) as caught:
        fetch(astray.url, target, Settings(allowed_addresses=(ALLOWED,), max_redirects=3), quiet)
    assert caught.value.code == "source_refused"
    assert len(astray.requests) == 4


class Barred:
    """Sees every address that is about to be connected to, and has the interpreter refuse it."""

    active: "Barred | None" = None

    def __init__(self) -> None:
        self.addresses: set[str] = set()

    def __enter__(self) -> Self:
        Barred.active = self
        return self

    def __exit__(self, *_: object) -> None:
        Barred.active = None


def global_unicast(text: str) -> bool:
    """By the standard library, and what it has not heard of; written without a look at tasks/addresses.py."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv4Address):
        relays = ipaddress.ip_network("192.88.99.0/24")
        special = address.is_multicast or address.is_reserved or address in relays
        return address.is_global and not special and text != "168.63.129.16"
    if address.ipv4_mapped or address in ipaddress.ip_network("64:ff9b::/96"):
        return global_unicast(str(ipaddress.IPv4Address(address.packed[-4:])))
    return (
        address.is_global
        and address in ipaddress.ip_network("2000::/3")
        and not (address.sixtofour or address.teredo)
    )


v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6)
carried = st.builds(
    lambda inner, prefix: ipaddress.IPv6Address(int(ipaddress.ip_address(prefix)) | int(inner)),
    v4,
    st.sampled_from(["::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::"]),
)
anything = st.lists(st.one_of(v4, v6, carried), min_size=1, max_size=4)


@given(anything, st.sampled_from(["http", "https"]))
def test_nothing_outside_global_unicast_is_ever_connected_to(answer: list[Any], scheme: str) -> None:
    with (
        Barred() as barred,
        guarded_session(Policy(), Names(list(map(str, answer)))) as session,
        pytest.raises((AddressRefused, SourceUnreachable)) as caught,
    ):
        send(session, "GET", f"{scheme}://recordings.test/", timeout_s=5)
    for address in barred.addresses:
        assert global_unicast(address)
    # All or none: which one of a name's addresses is taken is up to chance, or to an attacker.
    if caught.type is AddressRefused:
        assert not barred.addresses
    else:
        assert {ipaddress.ip_address(address) for address in barred.addresses} == set(answer)
