"""Whether a process that transcribes is fit to go on: not if its GPU is lost, or it fails again and again.

It ends itself, so that a clean one takes its place; what it had in hand is given back before.
"""

from types import TracebackType
from typing import Self

from redis.exceptions import RedisError

from tasks.errors import DeviceLost, EngineFailed, LonghandError

# So many failures in a row are not the fault of what it was given.
MAX_FAILURES = 5
# Exit status of a process that ends itself for this: no sign of poison.
UNFIT = 75
SAYS_NOTHING = (LonghandError, RedisError, SystemExit)


class Fitness:
    """A context manager around each attempt's work: counts what fails in a row.

    A job that cannot be done as its client wants it, a lost lease, a blob store or a Redis that is away, and
    being told to end (SystemExit) say nothing of the process.
    """

    def __init__(self) -> None:
        self.failures = 0
        self._lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lost = self._lost or isinstance(error, DeviceLost)
        if error is None:
            self.failures = 0
        elif isinstance(error, EngineFailed) or not isinstance(error, SAYS_NOTHING):
            self.failures += 1

    @property
    def ends(self) -> str:
        """Why this process should end; empty: it should not."""
        if self._lost:
            return "device lost"
        return f"{self.failures} failures in a row" if self.failures >= MAX_FAILURES else ""
