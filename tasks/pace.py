"""How long a download may take, and how slow it may be."""

from collections.abc import Callable

from tasks.errors import SourceTooSlow
from tasks.settings import Settings

# Monotonic, in seconds.
Clock = Callable[[], float]

# A slow start is no reason to give a host up.
GRACE_S = 60.0


class Pace:
    """One download's, from the moment that it is made."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._least = settings.min_source_bytes_per_s
        self._limit_s = settings.max_source_ms / 1000
        self._clock = clock
        self._started_s = clock()

    def check(self, host: str, done: int) -> float:
        """The seconds that are left, with `done` bytes there. Raises SourceTooSlow."""
        elapsed_s = self._clock() - self._started_s
        if elapsed_s >= self._limit_s:
            raise SourceTooSlow(f"{host} sent {done} bytes in {elapsed_s:.0f} s, and not all: too slow")
        if elapsed_s > GRACE_S and done < elapsed_s * self._least:
            raise SourceTooSlow(f"{host} sends {done / elapsed_s:.0f} bytes a second: too slow")
        return self._limit_s - elapsed_s
