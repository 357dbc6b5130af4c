"""Whether Redis has memory left for another job, asked at most once a second."""

import threading
from collections.abc import Callable
from typing import Any

from redis import Redis
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

# Monotonic, in seconds.
Clock = Callable[[], float]

ASKED_EVERY_S = 1.0


class Memory:
    """What the Redis behind `client` uses of its maxmemory."""

    def __init__(self, client: Redis, most_percent: int, clock: Clock) -> None:
        self._redis: Any = client
        self._most_percent = most_percent
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_s = float("-inf")
        self._scarce = False

    def scarce(self) -> bool:
        """Whether more than `most_percent` are in use. May raise redis.exceptions.RedisError."""
        with self._lock:
            now_s = self._clock()
            if self._most_percent and now_s - self._asked_s >= ASKED_EVERY_S:
                self._scarce = self._look()
                self._asked_s = now_s
            return self._scarce

    def _look(self) -> bool:
        try:
            memory = self._redis.info("memory")
        except ResponseError:
            return False  # INFO is forbidden here; a full Redis refuses what it has no room for
        # Without a maxmemory nobody knows how much there is.
        most = int(memory.get("maxmemory", 0))
        return bool(most) and 100 * int(memory["used_memory"]) > self._most_percent * most


def is_full(error: RedisError) -> bool:
    """Whether a command was refused for want of memory; servers before 7.0 wrap that of a script."""
    return isinstance(error, OutOfMemoryError) or (isinstance(error, ResponseError) and "-OOM " in str(error))
