"""Rings doorbells beside the requests that ask for it: once for all who asked meanwhile."""

import threading
from collections.abc import Callable

import structlog
from redis.exceptions import RedisError

log = structlog.get_logger()

# Between two rings. The first is at once, so this is no wait where little happens.
PAUSE_S = 0.02
CLOSE_S = 5.0


class Ringer:
    """`ringer()` returns at once, and `ring` is called, from its beginning, some time after.

    A ring that fails, or is lost with this process, is no error: the reaper rings again.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._asked = threading.Event()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self) -> None:
        self._asked.set()
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="ringer", daemon=True)
                    self._thread.start()

    def close(self) -> None:
        """Ring for all who have asked so far, then end. A Redis that is away holds it up for some seconds."""
        self._over.set()
        if self._thread:
            self._asked.set()
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while True:
            self._asked.wait()
            # Cleared before the look: who asks during it is rung for by the next.
            self._asked.clear()
            try:
                self._ring()
            except RedisError as error:
                log.warning("doorbell_failed", error=str(error))
            if self._over.wait(PAUSE_S) and not self._asked.is_set():
                return
