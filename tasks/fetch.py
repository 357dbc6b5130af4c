"""The download: from a URL to a file that only ever grows, so that a reader may follow it."""

import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin

import requests
import urllib3

from tasks.disk import told_as_full
from tasks.errors import (
    AddressRefused,
    NotMedia,
    SourceChanged,
    SourceEmpty,
    SourceRefused,
    SourceTooLarge,
    SourceUnavailable,
    SourceUnreachable,
)
from tasks.guard import Resolver
from tasks.http import GuardedSession, guarded_session, reading, send
from tasks.pace import Clock, Pace
from tasks.settings import Settings

OnBytes = Callable[[int, int | None], None]

# Seconds before each attempt. What a short outage outlasts is for the stage's own retry.
_PAUSES_S = (0.0, 0.0, 0.5, 2.0)
_BLOCK_BYTES = 256 * 1024
_HEAD_BYTES = 512
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<(?:!--.*?--|\?.*?\?)>\s*)*<(?:!doctype\s+html|html)\b", re.I | re.S
)
# RFC 9110, 14.4.
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def fetch(
    url: str,
    target: Path,
    settings: Settings,
    on_bytes: OnBytes,
    *,
    endpoint: str = "",
    clock: Clock = time.monotonic,
    resolve: Resolver = socket.getaddrinfo,
) -> int:
    """Download `url` into `target` for a job of `endpoint`; returns the size in bytes.

    `on_bytes(done, total)` is called after each block, redirect and broken attempt, when `done` bytes are in
    the file (`total` is None while unknown); what it raises stops the download and passes through. A transfer
    that breaks off is resumed, or sent again once and compared with what is there. Raises AddressRefused,
    UnsupportedScheme, InvalidInput, NotMedia, DiskFull and the Source* errors.
    """
    pace = Pace(settings, clock)
    with guarded_session(settings.policy(endpoint), resolve) as session, target.open("w+b") as file:
        return _Download(url, session, file, settings=settings, on_bytes=on_bytes, pace=pace).run()


def next_hop(url: str, location: str) -> str:
    """Where a redirect from `url` leads; raises AddressRefused where it would leave https."""
    try:
        # Headers arrive decoded as latin-1; servers send UTF-8.
        target = urljoin(url, location.encode("latin-1").decode())
    except ValueError:
        raise SourceRefused(f"{_host(url)} redirects to an address that cannot be read") from None
    if url.lower().startswith("https:") and target.lower().startswith("http:"):
        raise AddressRefused(f"{_host(url)} redirects from https to http, which is not followed")
    return target


def _host(url: str) -> str:
    return urllib3.util.parse_url(url).host or ""


@dataclass(frozen=True, slots=True)
class _Version:
    """What an answer says about the file behind it; "" and None where it says nothing."""

    etag: str
    last_modified: str
    total: int | None
    resumable: bool

    @classmethod
    def of(cls, response: requests.Response) -> "_Version":
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

    def differs(self, other: "_Version") -> bool:
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


class _Download:
    """One recording's transfer, over as many attempts as it takes (four at most)."""

    def __init__(
        self,
        url: str,
        session: GuardedSession,
        file: BinaryIO,
        *,
        settings: Settings,
        on_bytes: OnBytes,
        pace: Pace,
    ) -> None:
        self.url = url
        self.host = ""
        self.pace = pace
        self.session = session
        self.file = file
        self.settings = settings
        self.on_bytes = on_bytes
        self.size = 0
        self.total: int | None = None
        self.version: _Version | None = None
        self.ranges = True
        self.restarts = 0

    def run(self) -> int:
        for attempt, pause_s in enumerate(_PAUSES_S, start=1):
            time.sleep(pause_s)
            try:
                self._attempt()
                break
            except (SourceUnreachable, SourceUnavailable):
                # Before the first answer there is nothing to save by trying again here.
                hopeless = self.version is None or (self.restarts > 0 and not self.ranges)
                if hopeless or attempt == len(_PAUSES_S):
                    raise
                self.on_bytes(self.size, self.total)
        if not self.size:
            raise SourceEmpty(f"the file that {self.host} sent is empty")
        return self.size

    def _attempt(self) -> None:
        headers = {"Accept-Encoding": "identity"}
        if self.size and self.ranges and self.version:
            headers |= {"Range": f"bytes={self.size}-", "If-Range": self.version.validator}
        with self._open(headers) as response:
            end = self._copy(response, self._start(response))
        if self.total is not None and end < self.total:
            raise SourceUnreachable(self._broken_off())
        if end < self.size:
            raise SourceChanged

    def _open(self, headers: dict[str, str]) -> requests.Response:
        """Follow the redirects to an answer with a body; every hop passes the guard."""
        url = self.url
        for _ in range(self.settings.max_redirects + 1):
            response = send(
                self.session,
                "GET",
                url,
                timeout_s=self._patience_s(),
                headers=headers,
                stream=True,
            )
            self.host = _host(url)
            location = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or location is None:
                return response
            response.close()
            # Slow answers in a row would pass for a stalled process, which ends itself.
            self.on_bytes(self.size, self.total)
            url = next_hop(url, location)
        raise SourceRefused(f"{_host(self.url)} redirects more than {self.settings.max_redirects} times")

    def _start(self, response: requests.Response) -> int:
        """Judge an answer by its head; returns the offset in the file that its body starts at, in bytes."""
        self._check_status(response.status_code)
        if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() in _HTML_TYPES:
            raise NotMedia(self._web_page())
        version = _Version.of(response)
        if self.version is None:
            self.version = version
            self.ranges = version.resumable and bool(version.validator)
        elif self.version.differs(version):
            raise SourceChanged
        self.total = self.total if version.total is None else version.total
        start = self._offset(response)
        if start == 0 and self.size:
            self.ranges = False
            self.restarts += 1
        if max(self.total or 0, start + (response.raw.length_remaining or 0)) > self._limit:
            raise SourceTooLarge(self._too_large())
        return start

    def _check_status(self, status: int) -> None:
        if status == 429 or status >= 500:
            raise SourceUnavailable(f"{self.host} answered with status {status}")
        if status == 416 and self.size:
            self.ranges = False
            raise SourceUnreachable(f"{self.host} answered with status 416 to a resumed transfer")
        if not 200 <= status < 300:
            raise SourceRefused(f"{self.host} answered with status {status}: check the URL and its access")

    def _offset(self, response: requests.Response) -> int:
        if response.status_code != 206:
            return 0
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        start = int(found[1]) if found else -1
        # Less than what is there is no harm: the overlap is compared.
        if 0 <= start <= self.size:
            return start
        self.ranges = False
        raise SourceUnreachable(f"{self.host} sent another part of the file than the one asked for")

    def _copy(self, response: requests.Response, start: int) -> int:
        """Move the body into the file from offset `start` on; returns where it ended."""
        if response.raw.isclosed():
            return start
        position = start
        with reading(response, self._patience_s()) as alarm:
            try:
                # read1 gives what has arrived: `on_bytes` must be able to stop the download of a slow host.
                while block := response.raw.read1(_BLOCK_BYTES, decode_content=True):
                    self._write(position, block)
                    position += len(block)
                    alarm.extend(self._patience_s())
            except urllib3.exceptions.HTTPError as error:
                raise SourceUnreachable(self._broken_off()) from error
            if alarm.rung:
                raise SourceUnreachable(self._broken_off())
        return position

    def _patience_s(self) -> float:
        """How long the next bytes may take. Raises SourceTooSlow."""
        return min(self.settings.source_timeout_ms / 1000, self.pace.check(self.host, self.size))

    def _write(self, position: int, block: bytes) -> None:
        overlap = block[: self.size - position]
        if overlap:
            self.file.seek(position)
            if self.file.read(len(overlap)) != overlap:
                raise SourceChanged
        fresh = block[len(overlap) :]
        if self.size + len(fresh) > self._limit:
            raise SourceTooLarge(self._too_large())
        self.file.seek(self.size)
        with told_as_full():
            self.file.write(fresh)
            self.file.flush()
        self.size += len(fresh)
        if position < _HEAD_BYTES:
            self.file.seek(0)
            if _HTML_START.match(self.file.read(_HEAD_BYTES)):
                raise NotMedia(self._web_page())
        self.on_bytes(self.size, self.total)

    @property
    def _limit(self) -> int:
        return self.settings.max_source_bytes

    def _broken_off(self) -> str:
        return f"{self.host} broke the transfer off after {self.size} bytes"

    def _too_large(self) -> str:
        return f"the file at {self.host} is larger than the {self._limit} bytes accepted here"

    def _web_page(self) -> str:
        return f"{self.host} sent a web page instead of a recording: pass the address of the file itself"
