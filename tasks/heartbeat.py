"""Keeps a lease alive while the work under it advances, and brings back the news that it should stop."""

import os
import signal
import threading
import time
from types import TracebackType
from typing import Self

import structlog
from redis.exceptions import RedisError

from tasks.errors import LeaseLost
from tasks.leases import Beat, Lease, Leases
from tasks.settings import Settings

log = structlog.get_logger()


class Heartbeat:
    """A context manager around the work; the work calls `advance()` whenever it got further.

    A kernel that hangs must not renew its lease for ever: `stall_ms` after the last advance this process is
    ended, so that a new child takes its place and the reaper gives its work out again. A Redis that is away
    is no reason to stop: the result is committed when it is back.
    """

    def __init__(self, leases: Leases, lease: Lease, settings: Settings) -> None:
        self._leases = leases
        self._lease = lease
        self._every_s = settings.heartbeat_ms / 1000
        self._stall_s = settings.stall_ms / 1000
        self._advanced_s = time.monotonic()
        self._done_ms = 0
        self._lost = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def expect(self, within_ms: int) -> None:
        """The next step does not advance on its own, and may take this long."""
        self._advanced_s = time.monotonic() + within_ms / 1000

    def advance(self, done_ms: int = 0) -> None:
        """The work got further: of a chunk, `done_ms` of audio are transcribed.

        Raises LeaseLost if it is not ours any more, or not wanted.
        """
        self._advanced_s = time.monotonic()
        self._done_ms = done_ms
        if self._lost.is_set():
            raise LeaseLost

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            if time.monotonic() - self._advanced_s > self._stall_s:
                lease = self._lease
                log.error("stalled", job_id=lease.job_id, stage=lease.stage, unit=lease.unit)
                # Native code that does not return cannot be ended in any other way.
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                if self._leases.beat(self._lease, self._done_ms) is not Beat.RENEWED:
                    self._lost.set()
                    return
            except RedisError as error:
                log.warning("heartbeat_failed", job_id=self._lease.job_id, error=str(error))
