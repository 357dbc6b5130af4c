"""A file to read while it still comes in: what is not there yet is waited for."""

import io
import threading
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from tasks.arrivals import Arrivals

T = TypeVar("T")

LOOK_S = 0.5
JOIN_S = 5.0
# How far after what is there a reader must want to go on for that to be fetched by itself...
_FAR_BYTES = 128 * 1024
# ...and how near to the end: the index of an MP4 of ten hours is about 20 MB.
_TAIL_BYTES = 64 * 2**20


class Bringers:
    """The threads that bring a file in; they end with the block. What one raises, the reader raises."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[], object]) -> None:
        thread = threading.Thread(target=self._run, args=(work,), name="bringer", daemon=True)
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._arrivals.stop()
        for thread in self._threads:
            # One that still connects ends by itself, and writes no more.
            thread.join(JOIN_S)

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 -- whatever it is, it is the reader's
            self._arrivals.fail(error)


class Growing(io.RawIOBase, BinaryIO):
    """What of `arrivals` is there, and the rest once it has come; for one reader, in its own thread.

    Reading raises what the file's source raised.

    `on_read()` is called when the reader goes on, and when the source gives a sign of life meanwhile,
    `on_wait()` when it does not; `fetch_tail(start)`, once, when the reader wants to go on near the end.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        on_read: Callable[[], None],
        on_wait: Callable[[], None],
        fetch_tail: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__()
        self._arrivals = arrivals
        self._on_read = on_read
        self._on_wait = on_wait
        self._fetch_tail = fetch_tail
        self._position = 0
        self._signs = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence)
        self._position = max(0, offset + (self._length() if base is None else base))
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """At least one byte and at most `size`, or all where that is negative; none at the end."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(2**20), b""))
        self._on_read()
        while (ready := self._heed(self._arrivals.wait(self._position, LOOK_S))) is None:
            self._ask_for_tail()
        block = self._arrivals.read(self._position, min(size, ready))
        self._position += len(block)
        return block

    def drain(self) -> None:
        """Wait until all has come, and has been compared with what came before its time."""
        while not self._heed(self._arrivals.wait_for_all(LOOK_S)):
            pass

    def _length(self) -> int:
        """The file's, in bytes, once that is known."""
        while self._arrivals.total is None:
            self._heed(self._arrivals.wait_for_all(LOOK_S))
        return self._arrivals.total

    def _heed(self, found: T) -> T:
        """Pass on what a wait has found, and tell of it where that was nothing (None or False)."""
        if found is None or found is False:
            signs = self._arrivals.signs
            (self._on_wait if self._signs == signs else self._on_read)()
            self._signs = signs
        return found

    def _ask_for_tail(self) -> None:
        total, fetch_tail = self._arrivals.total, self._fetch_tail
        if fetch_tail is None or total is None:
            return
        if self._position - self._arrivals.front >= _FAR_BYTES and total - self._position <= _TAIL_BYTES:
            self._fetch_tail = None
            fetch_tail(self._position)
