"""HTTP to addresses that clients name: every connection is decided on the addresses it resolves to itself."""

import contextlib
import ipaddress
import logging
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from tasks.addresses import is_public
from tasks.errors import AddressRefused, InvalidInput, SourceUnreachable, UnsupportedScheme

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
# Called as socket.getaddrinfo(host, port, family, kind).
Resolver = Callable[[str, int, int, int], Sequence[AddressInfo]]

_PORTS = frozenset({80, 443, 8080, 8443})
_CONNECT_S = 30.0
_SHORT_BYTES = 16 * 1024
_SETTING = "set LONGHAND_ALLOW_PRIVATE_ADDRESSES=true to allow that"

# urllib3's log lines name whole URLs, and query strings must never reach a log.
logging.getLogger("urllib3").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class _Gate:
    """Opens sockets, to addresses that may be reached and to no others."""

    allow_private: bool
    resolve: Resolver
    # What is shut when an answer takes too long: connections, and twins of sockets that TLS has yet to take.
    connections: "weakref.WeakSet[HTTPConnection]" = field(default_factory=weakref.WeakSet)
    twins: list[socket.socket] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def within(self, timeout_s: float) -> Iterator[None]:
        """Shut every connection if the block takes longer: the time-out of a socket is for one wait only."""
        self.over.clear()
        timer = threading.Timer(timeout_s, self._shut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            for twin in self.twins:
                twin.close()
            self.twins.clear()

    def _shut(self) -> None:
        self.over.set()
        for opened in [*self.twins, *(connection.sock for connection in self.connections)]:
            if opened is not None:
                with contextlib.suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)

    def look_up(self, host: str, port: int) -> Sequence[AddressInfo]:
        try:
            found = self.resolve(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            found = ()
        if not found:
            raise SourceUnreachable(f"the host name {host} could not be resolved")
        if self.allow_private:
            return found
        # All of them must be: which one is taken is up to chance, or to an attacker.
        if not all(is_public(ipaddress.ip_address(info[4][0])) for info in found):
            raise AddressRefused(f"{host} does not lead to a public address; {_SETTING}")
        return found

    def connect(self, connection: HTTPConnection) -> socket.socket:
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
                    self._shut()
                return opened
        raise SourceUnreachable(f"{host} could not be reached: {reason}")


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


def _pools(gate: _Gate) -> dict[str, type[HTTPConnectionPool]]:
    """Pool classes by scheme; TLS goes on top of the gate's socket, under the name in the URL."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return gate.connect(self)

    class Tls(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return gate.connect(self)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = Tls

    return {"http": PlainPool, "https": TlsPool}


class _Adapter(HTTPAdapter):
    def __init__(self, gate: _Gate) -> None:
        super().__init__()
        self.poolmanager.pool_classes_by_scheme = _pools(gate)


class GuardedSession(requests.Session):
    """Made by guarded_session()."""

    def __init__(self, gate: _Gate) -> None:
        super().__init__()
        self.gate = gate
        self.trust_env = False
        self.mount("http://", _Adapter(gate))
        self.mount("https://", _Adapter(gate))

    def request_within(self, timeout_s: float, method: str, url: str, **kwargs: Any) -> requests.Response:
        """One request, `timeout_s` for everything up to the end of the answer's head."""
        with self.gate.within(timeout_s):
            response = self.request(method, url, timeout=timeout_s, allow_redirects=False, **kwargs)
            # http.client takes the end of a connection for the end of the head.
            if self.gate.over.is_set():
                response.close()
                raise requests.exceptions.Timeout
            return response

    def get_redirect_target(self, resp: requests.Response) -> None:
        """See no redirects: requests reads the body of one into memory, however long, even unfollowed."""


def guarded_session(*, allow_private: bool, resolve: Resolver = socket.getaddrinfo) -> GuardedSession:
    """A session that connects to public addresses only, unless `allow_private`.

    Each new connection resolves its host once, refuses it if any of the addresses is not public, and connects
    to one of exactly these. No proxy, no netrc, no redirect. Raises AddressRefused and SourceUnreachable.
    """
    return GuardedSession(_Gate(allow_private, resolve))


def check_url(url: str, *, allow_private: bool) -> None:
    """Judge a URL by itself: scheme, host, user info and, unless `allow_private`, port.

    Raises UnsupportedScheme, InvalidInput or AddressRefused.
    """
    host, port, auth, scheme = _parts(url)
    if scheme not in ("http", "https"):
        raise UnsupportedScheme("only http and https addresses can be fetched: start it with https://")
    if not host:
        raise InvalidInput("the URL names no host")
    if auth is not None:
        raise InvalidInput(f"the URL of {host} holds a user name or password: use a signed URL instead")
    if not allow_private and port is not None and port not in _PORTS:
        allowed = ", ".join(map(str, sorted(_PORTS)))
        raise AddressRefused(f"port {port} of {host} is not one of {allowed}; {_SETTING}")


def origin(url: str) -> str:
    """Scheme, host and port of a URL that `check_url` has accepted."""
    host, port, _, scheme = _parts(url)
    usual = {"http": 80, "https": 443}.get(scheme)
    return f"{scheme}://{host}" + (f":{port}" if port not in (None, usual) else "")


def _parts(url: str) -> tuple[str, int | None, str | None, str]:
    """Host, port, user info and scheme, by the parser that requests connects with."""
    try:
        parsed = urllib3.util.parse_url(url.lstrip())
        (parsed.host or "").encode("idna")
    except (urllib3.exceptions.LocationParseError, UnicodeError):
        raise InvalidInput("the URL cannot be read: check its host and port") from None
    return parsed.host or "", parsed.port, parsed.auth, parsed.scheme or ""


def send(
    session: GuardedSession,
    method: str,
    url: str,
    *,
    allow_private: bool,
    timeout_s: float,
    **kwargs: Any,
) -> requests.Response:
    """Check the URL, send one request and return its answer, whatever its status; redirects are not followed.

    `timeout_s` bounds all of it up to the end of the answer's head, and then each wait for bytes. Raises
    what `check_url` raises, AddressRefused and SourceUnreachable; their messages name the host and never the
    rest of the URL.
    """
    check_url(url, allow_private=allow_private)
    host = _parts(url)[0]
    # `from None` throughout: the exceptions of requests quote the URL, and a traceback would print them.
    try:
        return session.request_within(timeout_s, method, url, **kwargs)
    except requests.exceptions.InvalidURL:
        raise InvalidInput(f"the URL of {host} cannot be read") from None
    except requests.exceptions.Timeout:
        raise SourceUnreachable(f"{host} did not answer within {timeout_s:g} s") from None
    except requests.exceptions.SSLError as error:
        raise SourceUnreachable(f"no secure connection to {host}: {_tls_reason(error)}") from None
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError):
        if session.gate.over.is_set():
            raise SourceUnreachable(f"{host} did not answer within {timeout_s:g} s") from None
        raise SourceUnreachable(f"{host} broke the connection off, or does not speak HTTP") from None


def let_go(session: GuardedSession, response: requests.Response, timeout_s: float) -> None:
    """Read the rest of a short answer, so that its connection can be used again; hang up on any other."""
    with response:
        length = response.raw.length_remaining
        if length is not None and length <= _SHORT_BYTES:
            with contextlib.suppress(urllib3.exceptions.HTTPError, OSError), session.gate.within(timeout_s):
                response.raw.read(decode_content=False)


def _tls_reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        cause = cause.__context__
    return "the TLS handshake failed"
