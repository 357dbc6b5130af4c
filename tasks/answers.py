"""What a recording's host answers: where it leads on, which version of the file it is of, and its body."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin

import requests
import urllib3

from tasks.arrivals import Arrivals
from tasks.errors import AddressRefused, SourceRefused, SourceUnavailable
from tasks.http import GuardedSession, reading, send

BLOCK_BYTES = 256 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# RFC 9110, 14.4.
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def host_name(url: str) -> str:
    """The host of a URL, for messages: "" where there is none."""
    return urllib3.util.parse_url(url).host or ""


def next_hop(url: str, location: str) -> str:
    """Where a redirect from `url` leads; raises AddressRefused where it would leave https."""
    try:
        # Headers arrive decoded as latin-1; servers send UTF-8.
        target = urljoin(url, location.encode("latin-1").decode())
    except ValueError:
        raise SourceRefused(f"{host_name(url)} redirects to an address that cannot be read") from None
    if url.lower().startswith("https:") and target.lower().startswith("http:"):
        raise AddressRefused(f"{host_name(url)} redirects from https to http, which is not followed")
    return target


def follow(
    session: GuardedSession,
    url: str,
    headers: Mapping[str, str],
    *,
    max_redirects: int,
    patience_s: Callable[[], float],
    on_hop: Callable[[], None],
) -> tuple[requests.Response, str]:
    """Follow the redirects of `url` to an answer with a body, and that host; every hop passes the guard."""
    hop = url
    for _ in range(max_redirects + 1):
        response = send(session, "GET", hop, timeout_s=patience_s(), headers=headers, stream=True)
        location = response.headers.get("Location")
        if response.status_code not in _REDIRECTS or location is None:
            return response, host_name(hop)
        response.close()
        on_hop()
        hop = next_hop(hop, location)
    raise SourceRefused(f"{host_name(url)} redirects more than {max_redirects} times")


def refuse_status(host: str, status: int) -> None:
    """Raise SourceUnavailable or SourceRefused for the status of an answer without the file."""
    if status == 429 or status >= 500:
        raise SourceUnavailable(f"{host} answered with status {status}")
    if not 200 <= status < 300:
        raise SourceRefused(f"{host} answered with status {status}: check the URL and its access")


def start_of_range(response: requests.Response) -> int | None:
    """Where the body of an answer with status 206 begins in the file, bytes; None where it does not say."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def pour(
    response: requests.Response,
    into: Arrivals,
    patience_s: Callable[[], float],
    write: Callable[[bytes], None],
) -> bool:
    """Give the body to `write` as it comes; whether it came to its end, unbroken and in time.

    Whoever stops `into` breaks it off.
    """
    if response.raw.isclosed():
        return True
    with reading(response, patience_s()) as alarm, into.stopped_by(alarm.ring_now):
        try:
            # read1 gives what has arrived: `write` must be able to stop the download of a slow host.
            while block := response.raw.read1(BLOCK_BYTES, decode_content=True):
                write(block)
                alarm.extend(patience_s())
        except urllib3.exceptions.HTTPError:
            return False
    return not alarm.rung


@dataclass(frozen=True, slots=True)
class Version:
    """What an answer says about the file behind it; "" and None where it says nothing."""

    etag: str
    last_modified: str
    total: int | None
    resumable: bool

    @classmethod
    def of(cls, response: requests.Response) -> "Version":
        """The version that an answer with a body is of."""
        headers = response.headers
        # A server that encodes although identity was asked for counts in bytes that never reach the file.
        identity = headers.get("Content-Encoding", "identity").lower() == "identity"
        return cls(
            etag=headers.get("ETag", ""),
            last_modified=headers.get("Last-Modified", ""),
            total=_total(response) if identity else None,
            resumable=identity,
        )

    @property
    def validator(self) -> str:
        """For If-Range, which takes no weak ETag (RFC 9110, 13.1.5)."""
        return self.etag if self.etag.startswith('"') else self.last_modified

    def differs(self, other: "Version") -> bool:
        """Whether the other is known to be of another file."""
        if None not in (self.total, other.total) and self.total != other.total:
            return True
        if self.etag and other.etag:
            return self.etag.removeprefix("W/") != other.etag.removeprefix("W/")
        return bool(self.last_modified and other.last_modified and self.last_modified != other.last_modified)


def _total(response: requests.Response) -> int | None:
    if response.status_code == 206:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        return int(found[2]) if found and found[2] != "*" else None
    remaining: int | None = response.raw.length_remaining
    return remaining
