"""HTTP to addresses that clients name: requests, on sockets that the guard opens, within a time."""

import contextlib
import functools
import logging
import os
import socket
import ssl
from collections.abc import Iterator
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from tasks.alarm import Alarm
from tasks.errors import InvalidInput, SourceUnreachable
from tasks.guard import Gate, Resolver, break_off, check_url, host_of
from tasks.policy import Policy

_SHORT_BYTES = 16 * 1024

# urllib3's log lines name whole URLs, and query strings must never reach a log.
logging.getLogger("urllib3").setLevel(logging.ERROR)


def _pools(gate: Gate) -> dict[str, type[HTTPConnectionPool]]:
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
    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.poolmanager.pool_classes_by_scheme = _pools(gate)


class GuardedSession(requests.Session):
    """Made by guarded_session()."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate
        self.trust_env = False
        # What one job's server sets is not for the next job's.
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
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


def guarded_session(policy: Policy, resolve: Resolver = socket.getaddrinfo) -> GuardedSession:
    """A session that connects only to what `policy` allows; never share one between policies.

    Each new connection resolves its host once, refuses it if any of the addresses is refused, and connects
    to one of exactly these. No proxy, no netrc, no redirect. Raises AddressRefused and SourceUnreachable.
    """
    return GuardedSession(Gate(policy, resolve))


@contextlib.contextmanager
def reading(response: requests.Response, timeout_s: float) -> Iterator[Alarm]:
    """Break the connection off unless the block extends the time: a host may drip, or send what never ends.

    Whoever reads must look at `rung`: an end of the connection may pass for the end of the body.
    """
    with (
        socket.socket(fileno=os.dup(response.raw.fileno())) as twin,
        Alarm(timeout_s, functools.partial(break_off, twin)) as alarm,
    ):
        yield alarm


def send(
    session: GuardedSession,
    method: str,
    url: str,
    *,
    timeout_s: float,
    **kwargs: Any,
) -> requests.Response:
    """Check the URL, send one request and return its answer, whatever its status; redirects are not followed.

    `timeout_s` bounds all of it up to the end of the answer's head, and then each wait for bytes. Raises
    what `check_url` raises, AddressRefused and SourceUnreachable; their messages name the host and never the
    rest of the URL.
    """
    check_url(url, session.gate.policy)
    host = host_of(url)
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


def let_go(response: requests.Response, timeout_s: float) -> None:
    """Read the rest of a short answer, so that its connection can be used again; hang up on any other."""
    with response:
        length = response.raw.length_remaining
        if length == 0:
            response.raw.read()
        elif length is not None and length <= _SHORT_BYTES:
            with contextlib.suppress(urllib3.exceptions.HTTPError), reading(response, timeout_s):
                response.raw.read(decode_content=False)


def _tls_reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        cause = cause.__context__
    return "the TLS handshake failed"
