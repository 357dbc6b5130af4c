"""Room on a disk: promised to a download before its bytes come, and waited for where there is none."""

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from tasks.errors import DiskFull, SourceTooLarge

T = TypeVar("T")

# What is promised at a time to a download of unknown length.
AHEAD_BYTES = 16 * 1024**2
LOOK_S = 1.0
PROMISE = "promise"


@contextlib.contextmanager
def told_as_full() -> Iterator[None]:
    """A disk, or a quota, without room is DiskFull; any other OSError passes."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull from error
        raise


def patiently(work: Callable[[], T], wait_ms: int, on_wait: Callable[[], None]) -> T:
    """Do the work, again each second while the disk is full; after `wait_ms` DiskFull passes through."""
    deadline_s = time.monotonic() + wait_ms / 1000
    while True:
        try:
            return work()
        except DiskFull:
            if time.monotonic() >= deadline_s:
                raise
        on_wait()
        time.sleep(LOOK_S)


class Room:
    """What is promised to one file in a scratch folder, beside those of the other folders there.

    The promise is a file, which goes with the folder, even where its process was killed.
    """

    def __init__(self, target: Path, keep: int) -> None:
        """`keep`: bytes of the disk that are nobody's."""
        self._target = target
        self._keep = keep
        self._promised = self._needed = 0

    def grow(self, done: int, total: int | None) -> None:
        """The file has `done` bytes and will have `total`, if that is known.

        Raises DiskFull, and SourceTooLarge where the whole disk does not suffice.
        """
        if (total if total is not None else done + AHEAD_BYTES // 2) <= self._promised:
            return
        if max(done, total or 0) + self._keep > shutil.disk_usage(self._target.parent).total:
            raise SourceTooLarge("the recording does not fit on this worker's disk")
        self._needed = max(self._needed, done + AHEAD_BYTES if total is None else total)
        self.take()

    def take(self) -> None:
        """Have room for all that grow() asked for. Raises DiskFull."""
        if self._needed <= self._promised:
            return
        root = self._target.parent.parent
        with _locked(root):
            free = shutil.disk_usage(root).free - sum(map(_owed, root.iterdir())) + _owed(self._target.parent)
            if self._needed - _size(self._target) + self._keep > free:
                raise DiskFull
            with told_as_full():
                (self._target.parent / PROMISE).write_text(str(self._needed))
        self._promised = self._needed

    def give_up(self) -> None:
        """Let others have the file's room, and what is promised; the next take() asks for it again."""
        for path in (self._target, self._target.parent / PROMISE):
            path.unlink(missing_ok=True)
        self._promised = 0


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One at a time, on this host; what dies lets go."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _owed(folder: Path) -> int:
    """Bytes that a folder's file is still to get."""
    try:
        promised = int((folder / PROMISE).read_text())
        return max(0, promised - sum(_size(path) for path in folder.iterdir()))
    except (OSError, ValueError):
        return 0  # nothing is, or the folder has just gone


def _size(path: Path) -> int:
    """What a file takes of the disk; of a sparse one that is less than its length."""
    try:
        found = path.stat()
    except OSError:
        return 0
    return min(found.st_size, 512 * found.st_blocks)
