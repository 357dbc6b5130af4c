"""A file that comes in: from its start on, and perhaps from its end, in threads that its reader is not in."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tasks.disk import told_as_full
from tasks.errors import LeaseLost, SourceChanged


class Arrivals:
    """What of a file is there: [0, front), and a tail that came before the middle. All sizes are bytes.

    The file is sparse between the two. Bytes that come twice are compared, never overwritten.
    """

    def __init__(self, path: Path) -> None:
        # Whoever reads or writes names the position: two threads share the descriptor.
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._news = threading.Condition()
        self._front = 0
        self._tail = (0, 0)
        self._over = False
        self._error: BaseException | None = None
        self._stopped = False
        self._stops: list[Callable[[], None]] = []
        # How long the file will be, once that is known.
        self.total: int | None = None
        # Grows whenever its source gives a sign of life.
        self.signs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._news:
            os.close(self._descriptor)
            self._stopped, self._descriptor = True, -1

    @property
    def front(self) -> int:
        """How much is there from the start on."""
        return self._front

    def put(self, position: int, block: bytes) -> None:
        """Write a block, and compare what of it is there already.

        It begins where something that is there ends, or inside of that, or begins the tail. Raises
        SourceChanged where the bytes differ, DiskFull, and LeaseLost where nobody reads any more.
        """
        view = memoryview(block)
        with self._news:
            self.refuse_if_stopped()
            while view:
                known_end, next_known = self._around(position)
                if known_end > position:
                    view, position = self._compare(view[: known_end - position], position, view)
                else:
                    room = len(view) if next_known is None else next_known - position
                    view, position = self._write(view[:room], position, view)
            self._tell()

    def begin_tail(self, position: int) -> None:
        """The next block at `position`, before which the middle is missing, is of the tail."""
        with self._news:
            if position > self._front:
                self._tail = (position, position)

    def read(self, position: int, size: int) -> bytes:
        """Up to `size` bytes from `position` on that are there."""
        with self._news:
            size = min(size, self._around(position)[0] - position)
        return os.pread(self._descriptor, size, position) if size > 0 else b""

    def wait(self, position: int, timeout_s: float) -> int | None:
        """How many bytes there are at `position`, once there are any: 0 at the end, None if none came.

        Raises what the file's source raised.
        """
        with self._news:
            self._news.wait_for(lambda: self._known(position) is not None, timeout_s)
            return self._known(position)

    def wait_for_all(self, timeout_s: float) -> bool:
        """Whether all has come, within this time. Raises what the file's source raised."""
        with self._news:
            self._news.wait_for(lambda: self._over or self._error, timeout_s)
            if self._error:
                raise self._error
            return self._over

    def expect(self, total: int | None) -> None:
        """The file will be so long."""
        with self._news:
            self.total = self.total if total is None else total

    def sign_of_life(self) -> None:
        """Its source is at work, though nothing may have come."""
        self.signs += 1

    def complete(self) -> None:
        """All has come."""
        with self._news:
            self._over = True
            self.total = self._front
            self._tell()

    def fail(self, error: BaseException) -> None:
        """Nothing more will come: whoever waits is told why."""
        with self._news:
            self._error = self._error or error
            self._tell()

    def stop(self) -> None:
        """Nobody reads any more: break off whatever brings it."""
        with self._news:
            self._stopped = True
            stops = tuple(self._stops)
        for stop in stops:
            stop()

    @contextlib.contextmanager
    def stopped_by(self, stop: Callable[[], None]) -> Iterator[None]:
        """Have `stop` called, from another thread, if the block must end early."""
        with self._news:
            self.refuse_if_stopped()
            self._stops.append(stop)
        try:
            yield
        finally:
            with self._news:
                self._stops.remove(stop)

    def refuse_if_stopped(self) -> None:
        """Raise LeaseLost where nobody reads any more."""
        if self._stopped:
            raise LeaseLost

    def _known(self, position: int) -> int | None:
        if self._error:
            raise self._error
        end, _ = self._around(position)
        if end > position:
            return end - position
        return 0 if self._over or (self.total is not None and position >= self.total) else None

    def _around(self, position: int) -> tuple[int, int | None]:
        """Where what is there at `position` ends (at once, if nothing is), and where the next begins."""
        first, last = self._tail
        if position < self._front:
            return self._front, None
        if first <= position < last:
            return last, None
        return position, first if position < first < last else None

    def _compare(self, part: memoryview, position: int, view: memoryview) -> tuple[memoryview, int]:
        if os.pread(self._descriptor, len(part), position) != part:
            raise SourceChanged
        return view[len(part) :], self._have(position, position + len(part))

    def _write(self, part: memoryview, position: int, view: memoryview) -> tuple[memoryview, int]:
        with told_as_full():
            count = os.pwrite(self._descriptor, part, position)
        return view[count:], self._have(position, position + count)

    def _have(self, start: int, end: int) -> int:
        first, last = self._tail
        if start <= self._front:
            self._front = max(self._front, end)
            if first <= self._front:
                self._front = max(self._front, last)
        elif first <= start <= last:
            self._tail = (first, max(last, end))
        return end

    def _tell(self) -> None:
        self.signs += 1
        self._news.notify_all()
