"""The download: from a URL to a file that only ever grows, so that a reader may follow it."""

import re
import socket
import time
from collections.abc import Callable

import requests

from tasks.answers import Version, follow, pour, refuse_status, start_of_range
from tasks.arrivals import Arrivals
from tasks.errors import (
    NotMedia,
    SourceChanged,
    SourceEmpty,
    SourceRefused,
    SourceTooLarge,
    SourceUnavailable,
    SourceUnreachable,
)
from tasks.guard import Resolver
from tasks.http import GuardedSession, guarded_session
from tasks.pace import Clock, Pace
from tasks.settings import Settings

OnBytes = Callable[[int, int | None], None]

# Seconds before each attempt. What a short outage outlasts is for the stage's own retry.
_PAUSES_S = (0.0, 0.0, 0.5, 2.0)
_HEAD_BYTES = 512
_IDENTITY = {"Accept-Encoding": "identity"}
_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<(?:!--.*?--|\?.*?\?)>\s*)*<(?:!doctype\s+html|html)\b", re.I | re.S
)


class Download:
    """One recording's transfer for a job of `endpoint`, over as many attempts as it takes (four at most).

    `on_bytes(done, total)` is called after each block, redirect and broken attempt, when `done` bytes are in
    the file (`total` is None while unknown); what it raises stops the download and passes through. A transfer
    that breaks off is resumed, or sent again once and compared with what is there.
    """

    def __init__(
        self,
        url: str,
        into: Arrivals,
        settings: Settings,
        on_bytes: OnBytes,
        *,
        endpoint: str = "",
        clock: Clock = time.monotonic,
        resolve: Resolver = socket.getaddrinfo,
    ) -> None:
        self.url = url
        self.host = ""
        self.pace = Pace(settings, clock)
        self.into = into
        self.settings = settings
        self.on_bytes = on_bytes
        self.endpoint = endpoint
        self.resolve = resolve
        self.size = 0
        self.total: int | None = None
        self.version: Version | None = None
        self.ranges = True
        self.restarts = 0

    def run(self) -> int:
        """Bring the file in, from its start to its end; returns its size in bytes.

        Raises AddressRefused, UnsupportedScheme, InvalidInput, NotMedia, DiskFull, the Source* errors, and
        LeaseLost where it was stopped.
        """
        with self._session() as session, self.into.stopped_by(session.gate.shut):
            for attempt, pause_s in enumerate(_PAUSES_S, start=1):
                time.sleep(pause_s)
                self.into.refuse_if_stopped()
                try:
                    self._attempt(session)
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

    def fetch_tail(self, start: int) -> None:
        """Bring in what is at `start` and after it before the middle has come, if the host will send that.

        From another thread than run(), which compares what it gets there in the end. Raises AddressRefused,
        DiskFull, and SourceChanged where the host has another file by now.
        """
        version, total = self.version, self.total
        if not (version and version.validator and version.resumable and total):
            return
        headers = _IDENTITY | {"Range": f"bytes={start}-", "If-Range": version.validator}
        try:
            with (
                self._session() as session,
                self.into.stopped_by(session.gate.shut),
                self._answer(session, headers)[0] as response,
            ):
                if self._is_tail(response, version, start):
                    self._take_tail(response, start)
        except (SourceUnreachable, SourceUnavailable, SourceRefused):
            # The middle will come, and then this.
            return

    def _is_tail(self, response: requests.Response, version: Version, start: int) -> bool:
        found = Version.of(response)
        # A page instead of the file, such as for a link that has expired, says nothing of the file.
        if response.status_code in (200, 206) and not _is_page(response) and version.differs(found):
            raise SourceChanged
        return response.status_code == 206 and found.resumable and start_of_range(response) == start

    def _take_tail(self, response: requests.Response, start: int) -> None:
        position = start

        def write(block: bytes) -> None:
            nonlocal position
            if position + len(block) > (self.total or 0):
                raise SourceChanged
            self.into.put(position, block)
            position += len(block)

        self.into.begin_tail(start)
        pour(response, self.into, self._patience_s, write)

    def _session(self) -> GuardedSession:
        return guarded_session(self.settings.policy(self.endpoint), self.resolve)

    def _answer(self, session: GuardedSession, headers: dict[str, str]) -> tuple[requests.Response, str]:
        return follow(
            session,
            self.url,
            headers,
            max_redirects=self.settings.max_redirects,
            patience_s=self._patience_s,
            # Slow answers in a row would pass for a stalled process, which ends itself.
            on_hop=lambda: self.on_bytes(self.size, self.total),
        )

    def _attempt(self, session: GuardedSession) -> None:
        headers = dict(_IDENTITY)
        if self.size and self.ranges and self.version:
            headers |= {"Range": f"bytes={self.size}-", "If-Range": self.version.validator}
        response, self.host = self._answer(session, headers)
        with response:
            end = self._copy(response, self._start(response))
        if self.total is not None and end < self.total:
            raise SourceUnreachable(self._broken_off())
        if end < self.size:
            raise SourceChanged

    def _start(self, response: requests.Response) -> int:
        """Judge an answer by its head; returns the offset in the file that its body starts at, in bytes."""
        self._check_status(response.status_code)
        if _is_page(response):
            raise NotMedia(self._web_page())
        version = Version.of(response)
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
        self.into.expect(self.total)
        return start

    def _check_status(self, status: int) -> None:
        if status == 416 and self.size:
            self.ranges = False
            raise SourceUnreachable(f"{self.host} answered with status 416 to a resumed transfer")
        refuse_status(self.host, status)

    def _offset(self, response: requests.Response) -> int:
        if response.status_code != 206:
            return 0
        start = start_of_range(response)
        # Less than what is there is no harm: the overlap is compared.
        if start is not None and start <= self.size:
            return start
        self.ranges = False
        raise SourceUnreachable(f"{self.host} sent another part of the file than the one asked for")

    def _copy(self, response: requests.Response, start: int) -> int:
        """Move the body into the file from offset `start` on; returns where it ended."""
        position = start

        def write(block: bytes) -> None:
            nonlocal position
            self._write(position, block)
            position += len(block)

        if not pour(response, self.into, self._patience_s, write):
            raise SourceUnreachable(self._broken_off())
        return position

    def _patience_s(self) -> float:
        """How long the next bytes may take. Raises SourceTooSlow."""
        return min(self.settings.source_timeout_ms / 1000, self.pace.check(self.host, self.size))

    def _write(self, position: int, block: bytes) -> None:
        end = position + len(block)
        if end > self._limit:
            raise SourceTooLarge(self._too_large())
        if position < _HEAD_BYTES and _HTML_START.match(self._head(position, block)):
            raise NotMedia(self._web_page())
        self.into.put(position, block)
        self.size = max(self.size, end)
        self.on_bytes(self.size, self.total)

    def _head(self, position: int, block: bytes) -> bytes:
        """The file's first bytes, with a block that is about to be written."""
        return (self.into.read(0, position) + block)[:_HEAD_BYTES]

    @property
    def _limit(self) -> int:
        return self.settings.max_source_bytes

    def _broken_off(self) -> str:
        return f"{self.host} broke the transfer off after {self.size} bytes"

    def _too_large(self) -> str:
        return f"the file at {self.host} is larger than the {self._limit} bytes accepted here"

    def _web_page(self) -> str:
        return f"{self.host} sent a web page instead of a recording: pass the address of the file itself"


def _is_page(response: requests.Response) -> bool:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower() in _HTML_TYPES
