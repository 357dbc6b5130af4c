"""HTTP to addresses that clients name: every connection is decided on the addresses it resolves to itself."""

import ipaddress
import logging
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
_SETTING = "set LONGHAND_ALLOW_PRIVATE_ADDRESSES=true to allow that"

# urllib3's log lines name whole URLs, and query strings must never reach a log.
logging.getLogger("urllib3").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class _Gate:
    """Opens sockets, to addresses that may be reached and to no others."""

    allow_private: bool
    resolve: Resolver

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


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """See no redirects: requests reads the body of one into memory, however long, even unfollowed."""


def guarded_session(*, allow_private: bool, resolve: Resolver = socket.getaddrinfo) -> requests.Session:
    """A session that connects to public addresses only, unless `allow_private`.

    Each new connection resolves its host once, refuses it if any of the addresses is not public, and connects
    to one of exactly these. No proxy, no netrc, no redirect. Raises AddressRefused and SourceUnreachable.
    """
    session = _Session()
    session.trust_env = False
    adapter = _Adapter(_Gate(allow_private, resolve))
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


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


def _parts(url: str) -> tuple[str, int | None, str | None, str]:
    """Host, port, user info and scheme, by the parser that requests connects with."""
    try:
        parsed = urllib3.util.parse_url(url.lstrip())
        (parsed.host or "").encode("idna")
    except (urllib3.exceptions.LocationParseError, UnicodeError):
        raise InvalidInput("the URL cannot be read: check its host and port") from None
    return parsed.host or "", parsed.port, parsed.auth, parsed.scheme or ""


def send(
    session: requests.Session, method: str, url: str, *, allow_private: bool, timeout_s: float, **kwargs: Any
) -> requests.Response:
    """Check the URL, send one request and return its answer, whatever its status; redirects are not followed.

    `timeout_s` bounds the connection, and then each wait for bytes. Raises what `check_url` raises,
    AddressRefused and SourceUnreachable; their messages name the host and never the rest of the URL.
    """
    check_url(url, allow_private=allow_private)
    host = _parts(url)[0]
    # `from None` throughout: the exceptions of requests quote the URL, and a traceback would print them.
    try:
        return session.request(method, url, timeout=timeout_s, allow_redirects=False, **kwargs)
    except requests.exceptions.InvalidURL:
        raise InvalidInput(f"the URL of {host} cannot be read") from None
    except requests.exceptions.Timeout:
        raise SourceUnreachable(f"{host} did not answer within {timeout_s:g} s") from None
    except requests.exceptions.SSLError as error:
        raise SourceUnreachable(f"no secure connection to {host}: {_tls_reason(error)}") from None
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError):
        raise SourceUnreachable(f"{host} broke the connection off, or does not speak HTTP") from None


def _tls_reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        cause = cause.__context__
    return "the TLS handshake failed"
