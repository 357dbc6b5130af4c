"""Keeps a lease alive while the work under it advances, and brings back the news that it should stop."""

import os
import queue
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Self

import structlog
from redis.exceptions import RedisError

from tasks.errors import LeaseLost
from tasks.leases import Beat, Lease, Leases, Windows
from tasks.settings import Settings

log = structlog.get_logger()

# To a worker's child: look at once whether the work is still wanted.
NUDGE = signal.SIGUSR2
# How long the work waits for Redis to know which windows come next, s.
TELL_S = 1.0

_at_work: set["Heartbeat"] = set()


class Heartbeat:
    """A context manager around the work; the work calls `advance()` whenever it got further.

    A kernel that hangs must not renew its lease for ever: `stall_ms` after the last advance this process is
    ended, so that a new child takes its place and its work is given out again. One that hangs while it holds
    Python's lock keeps this from running, too; the worker's parent ends such a process (children.py). A Redis
    that is away is no reason to stop: the result is committed when it is back.
    """

    def __init__(self, leases: Leases, lease: Lease, settings: Settings) -> None:
        self._leases = leases
        self._lease = lease
        self._every_s = settings.heartbeat_ms / 1000
        self._stall_s = settings.stall_ms / 1000
        self._advanced_s = time.monotonic()
        self._done_ms = 0
        self._windows: Windows | None = None
        self._lost = threading.Event()
        self._over = False
        # Who asks for a beat now, and waits for it. Unlike an Event, it may be used in a signal's handler.
        self._nudges: queue.SimpleQueue[threading.Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        _at_work.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _at_work.discard(self)
        self._over = True
        self.nudge()

    def nudge(self) -> None:
        """Beat at once."""
        self._nudges.put(None)

    def expect(self, within_ms: int) -> None:
        """The next step does not advance on its own, and may take this long."""
        self._advanced_s = time.monotonic() + within_ms / 1000

    def advance(self, done_ms: int = 0, windows: Windows | None = None) -> None:
        """The work got further: of a chunk, `done_ms` of audio are transcribed, and `windows` come next.

        Redis knows of these before they begin, if it answers: they may be this process's last.
        Raises LeaseLost if it is not ours any more, or not wanted.
        """
        self._advanced_s = time.monotonic()
        self._done_ms = done_ms
        if windows != self._windows and not self._lost.is_set():
            self._windows = windows
            told = threading.Event()
            self._nudges.put(told)
            told.wait(TELL_S)
        self.check()

    def check(self) -> None:
        """The work waits, and got no further. Raises LeaseLost as advance() does."""
        if self._lost.is_set():
            raise LeaseLost

    def _run(self) -> None:
        while True:
            told = self._wait()
            if self._over:
                return
            if time.monotonic() - self._advanced_s > self._stall_s:
                lease = self._lease
                log.error("stalled", job_id=lease.job_id, stage=lease.stage, unit=lease.unit)
                # Native code that does not return cannot be ended in any other way.
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                if self._leases.beat(self._lease, self._done_ms, self._windows) is not Beat.RENEWED:
                    self._lost.set()
            except RedisError as error:
                log.warning("heartbeat_failed", job_id=self._lease.job_id, error=str(error))
            if told:
                told.set()
            if self._lost.is_set():
                return

    def _wait(self) -> threading.Event | None:
        """Until the next beat is due, or somebody asks for one."""
        try:
            return self._nudges.get(timeout=self._every_s)
        except queue.Empty:
            return None


def listen() -> None:
    """Beat at once when the worker's parent asks for it; to be called in a child's first thread."""

    def nudged(_number: int, _frame: FrameType | None) -> None:
        for heartbeat in tuple(_at_work):
            heartbeat.nudge()

    signal.signal(NUDGE, nudged)
    # Native code that waits for something goes on waiting.
    signal.siginterrupt(NUDGE, False)
