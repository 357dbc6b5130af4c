"""A worker's parent says in Redis what its processes should be able to do, for as long as it gives them work.

A thread says it, but only while Celery's own loop goes round: a parent may hang there, and keep its threads.
"""

import threading
from collections.abc import Callable
from typing import Any

import structlog
from billiard import active_children
from celery.worker.consumer import Consumer
from redis.exceptions import RedisError

from tasks.presence import Presence, Report

log = structlog.get_logger()

LOOK_S = 0.5
# s, from any beginning.
Clock = Callable[[], float]


class Reporter:
    """What one worker should be able to do: `slots` by its role's and its own concurrency."""

    def __init__(
        self, presence: Presence, role: str, worker: str, slots: int, *, every_s: float, clock: Clock
    ) -> None:
        self._presence = presence
        self._role = role
        self._worker = worker
        self._slots = slots
        self._every_s = every_s
        self._pool: Any = None
        self._clock = clock
        # When Celery's loop last went round.
        self._pulse_s = 0.0
        self._seen: set[int] = set()
        self._started = False
        self._ending = False
        # The last report, and when the next one is due though nothing has changed.
        self._said: Report | None = None
        self._due_s = 0.0

    def is_ready(self, sender: Consumer, **_: object) -> None:
        """Celery takes work, and knows of each of its processes. In the thread of its loop."""
        self._pulse()
        # It stays when Celery connects anew.
        sender.timer.call_repeatedly(LOOK_S, self._pulse)
        self._pool = sender.pool

    def told_to_end(self, **_: object) -> None:
        """From now on nothing is expected of this worker: its processes finish and end, one by one."""
        self._ending = True

    def _pulse(self) -> None:
        self._pulse_s = self._clock()

    def run(self, stop: threading.Event) -> None:
        """Look every LOOK_S until told to stop; survive a Redis that is away."""
        while not stop.is_set():
            try:
                self.look()
            except RedisError as error:
                log.warning("worker_not_reported", error=str(error))
            stop.wait(LOOK_S)

    def look(self) -> None:
        """Report, if there is news or the last time was long ago, and Celery's loop does not hang."""
        now_s = self._clock()
        self._started = self._started or self._has_started()
        report = Report(0 if self._ending else self._slots, self._started)
        if not self._hangs(now_s) and (report != self._said or now_s >= self._due_s):
            self._presence.report(self._role, self._worker, report)
            self._said, self._due_s = report, now_s + self._every_s

    def _hangs(self, now_s: float) -> bool:
        """Whether Celery's loop does not go round, though it began and was not told to end."""
        if self._pool is None or self._ending:
            return False
        return now_s - self._pulse_s > max(self._every_s, 2 * LOOK_S)

    def _has_started(self) -> bool:
        """Whether each process has been up, whatever came of it, or one has died before it was."""
        pids = {child.pid for child in active_children() if child.pid}
        died = self._seen - pids
        self._seen |= pids
        # Celery's own list of those that have not said yet that they are up; threads have none.
        waiting = getattr(getattr(self._pool, "_pool", None), "_waiting_to_start", ())
        return bool(died) or (self._pool is not None and not waiting)
