"""A time-out over several waits: the one that a socket has begins anew with every byte."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Alarm:
    """Calls `ring` from a thread of its own, once, `timeout_s` after the block began or was last extended."""

    def __init__(self, timeout_s: float, ring: Callable[[], None]) -> None:
        self.rung = False
        self._ring = ring
        self._until_s = time.monotonic() + timeout_s
        self._left = threading.Event()

    def extend(self, timeout_s: float) -> None:
        """Let it be `timeout_s` from now. Costs no more than a look at the clock."""
        self._until_s = time.monotonic() + timeout_s

    def ring_now(self) -> None:
        """Do not wait any longer."""
        self.rung = True
        self._ring()

    def __enter__(self) -> Self:
        threading.Thread(target=self._wait, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()

    def _wait(self) -> None:
        while (left_s := self._until_s - time.monotonic()) > 0:
            if self._left.wait(left_s):
                return
        self.ring_now()
