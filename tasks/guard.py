"""The one place that decides on addresses of clients: on the URL, and on where it leads when connected to."""

import contextlib
import ipaddress
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection

from tasks.addresses import is_public
from tasks.alarm import Alarm
from tasks.errors import AddressRefused, InvalidInput, SourceUnreachable, UnsupportedScheme
from tasks.policy import Policy

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
# Called as socket.getaddrinfo(host, port, family, kind).
Resolver = Callable[[str, int, int, int], Sequence[AddressInfo]]

MAX_URL = 8_192
# RFC 1035, 2.3.4.
MAX_HOST = 253
_CONNECT_S = 30.0
_SETTING = "add it to LONGHAND_ALLOWED_ADDRESSES to allow that, or set LONGHAND_ALLOW_PRIVATE_ADDRESSES=true"


@dataclass(frozen=True, slots=True)
class Gate:
    """Opens sockets, to addresses that may be reached and to no others."""

    policy: Policy
    resolve: Resolver
    # What is shut when an answer takes too long: connections, and twins of sockets that TLS has yet to take.
    connections: "weakref.WeakSet[HTTPConnection]" = field(default_factory=weakref.WeakSet)
    twins: list[socket.socket] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def within(self, timeout_s: float) -> Iterator[None]:
        """Shut every connection if the block takes longer."""
        self.over.clear()
        try:
            with Alarm(timeout_s, self.shut):
                yield
        finally:
            for twin in self.twins:
                twin.close()
            self.twins.clear()

    def shut(self) -> None:
        """Break off every connection whose answer has not begun."""
        self.over.set()
        for opened in [*self.twins, *(connection.sock for connection in self.connections)]:
            if opened is not None:
                break_off(opened)

    def look_up(self, host: str, port: int) -> Sequence[AddressInfo]:
        """Where `host` leads, if a connection to each of these addresses may be made.

        Raises AddressRefused and SourceUnreachable.
        """
        _refuse_metadata(host, self.policy)
        try:
            found = self.resolve(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            found = ()
        if not found:
            raise SourceUnreachable(f"the host name {host} could not be resolved")
        if self.policy.allows_host(host):
            return found
        # All of them must be: which one is taken is up to chance, or to an attacker.
        addresses = [ipaddress.ip_address(info[4][0]) for info in found]
        if all(self.policy.allows(address, port) for address in addresses):
            return found
        if all(map(is_public, addresses)):
            raise _unusual_port(host, port, self.policy)
        raise AddressRefused(f"{host} does not lead to a public address; {_SETTING}")

    def connect(self, connection: HTTPConnection) -> socket.socket:
        """A socket to the host of `connection`. Raises AddressRefused and SourceUnreachable."""
        # `_dns_host` keeps the trailing dot that `host` drops and that a look-up needs.
        host = connection._dns_host.strip("[]")
        found = self.look_up(host, connection.port)
        timeout_s = connection.timeout or _CONNECT_S
        deadline_s = time.monotonic() + timeout_s
        reason = ""
        for tried, info in enumerate(found):
            # A dead address gets its share of the time only, so that one of the others is tried at all.
            share_s = (deadline_s - time.monotonic()) / (len(found) - tried)
            try:
                opened = _open(info, max(share_s, 0.001), connection)
            except OSError as error:
                reason = error.strerror or str(error)
            else:
                opened.settimeout(timeout_s)
                self.twins.append(opened.dup())
                self.connections.add(connection)
                if self.over.is_set():
                    self.shut()
                return opened
        raise SourceUnreachable(f"{host} could not be reached: {reason}")


def break_off(opened: socket.socket) -> None:
    """End a connection under whoever waits for it; its other end hears of it at once."""
    with contextlib.suppress(OSError):
        # A host that floods would not see a mere end: nobody makes room any more for what it sends.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        opened.shutdown(socket.SHUT_RDWR)


def _open(info: AddressInfo, timeout_s: float, connection: HTTPConnection) -> socket.socket:
    family, kind, protocol, _, address = info
    opened = socket.socket(family, kind, protocol)
    try:
        for option in connection.socket_options or ():
            opened.setsockopt(*option)
        opened.settimeout(timeout_s)
        opened.connect(address)
    except OSError:
        opened.close()
        raise
    return opened


def check_url(url: str, policy: Policy) -> None:
    """Judge a URL by itself: scheme, host, zone, user info and, where no address could make up for it, port.

    Raises UnsupportedScheme, InvalidInput or AddressRefused.
    """
    if len(url) > MAX_URL:
        # It is kept with every delivery, and told to every server on the way.
        raise InvalidInput(f"the URL is longer than {MAX_URL} characters")
    host, port, auth, scheme = _parts(url)
    if scheme not in ("http", "https"):
        raise UnsupportedScheme("only http and https addresses can be fetched: start it with https://")
    if not host or len(host) > MAX_HOST:
        raise InvalidInput(f"the URL names no host, or one of more than {MAX_HOST} characters")
    if auth is not None:
        raise InvalidInput(f"the URL of {host} holds a user name or password: use a signed URL instead")
    if policy.allows_host(host):
        return
    _refuse_metadata(host, policy)
    if "%" in host:
        raise AddressRefused(f"{host} names a network interface of this machine")
    if port is not None and policy.refuses_port(port):
        raise _unusual_port(host, port, policy)


def _unusual_port(host: str, port: int, policy: Policy) -> AddressRefused:
    allowed = ", ".join(map(str, sorted(policy.ports)))
    return AddressRefused(f"port {port} of {host} is not one of {allowed}; {_SETTING}")


def _refuse_metadata(host: str, policy: Policy) -> None:
    if policy.refuses_host(host):
        raise AddressRefused(f"{host} is where a cloud hands out credentials; {_SETTING}")


def origin(url: str) -> str:
    """Scheme, host and port of a URL that `check_url` has accepted."""
    host, port, _, scheme = _parts(url)
    usual = {"http": 80, "https": 443}.get(scheme)
    return f"{scheme}://{host}" + (f":{port}" if port not in (None, usual) else "")


def receiver_of(account: str, url: str) -> str:
    """Who takes an account's webhooks at a URL: others' failures at the same host are not its own."""
    return f"{account}|{origin(url)}"


def host_of(url: str) -> str:
    """The host of a URL; raises InvalidInput where it cannot be read."""
    return _parts(url)[0]


def _parts(url: str) -> tuple[str, int | None, str | None, str]:
    """Host, port, user info and scheme, by the parser that requests connects with."""
    try:
        parsed = urllib3.util.parse_url(url.lstrip())
        (parsed.host or "").encode("idna")
    except (urllib3.exceptions.LocationParseError, UnicodeError):
        raise InvalidInput("the URL cannot be read: check its host and port") from None
    return parsed.host or "", parsed.port, parsed.auth, parsed.scheme or ""
