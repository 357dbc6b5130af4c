"""Wakes requests that wait for a job: one subscription of the process, however many wait."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator

from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from tasks.scripts import connect_async
from tasks.store import WAKE_CHANNEL

# So long without a message, the server is asked whether it is there; so long without an answer, it is not.
QUIET_S = 5


class Wakeups:
    """`async with wakeups.of(job_id) as woken: await woken(timeout_s)`."""

    def __init__(self, url: str) -> None:
        self._redis = connect_async(url)
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)

    async def listen(self) -> None:
        """Runs for the life of the process. A missed message costs a waiter its timeout, never an event."""
        while True:
            try:
                async with self._redis.pubsub() as subscription:
                    await subscription.subscribe(WAKE_CHANNEL)
                    await self._follow(subscription)
            except (RedisError, OSError):
                await asyncio.sleep(1)

    async def _follow(self, subscription: PubSub) -> None:
        """Returns when the server does not answer any more: a link that is half open never says so."""
        asked = False
        while True:
            # The answer to a ping is a message, too.
            message = await subscription.get_message(timeout=QUIET_S)
            if message and message["type"] == "message":
                for event in self._waiting.get(message["data"].decode(), ()):
                    event.set()
            if message is None and asked:
                return
            asked = message is None
            if asked:
                await subscription.ping()

    async def close(self) -> None:
        await self._redis.aclose()

    @contextlib.asynccontextmanager
    async def of(self, job_id: str) -> AsyncIterator["Woken"]:
        """Register before looking at the job, so that no change falls between looking and waiting."""
        event = asyncio.Event()
        self._waiting[job_id].add(event)
        try:
            yield Woken(event)
        finally:
            self._waiting[job_id].discard(event)
            if not self._waiting[job_id]:
                del self._waiting[job_id]


class Woken:
    """Waits for the job's next change."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def __call__(self, timeout_s: float) -> None:
        """Return at the next change since the last call, or after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), timeout_s)
        self._event.clear()
