"""kombu's Redis transports, mended: a worker survives that its broker was away while it had work in hand.

kombu 5.7 closes a lost channel while tasks of it run. To acknowledge them, or to put them back, it then asks
the closed channel for a connection, dies of an AttributeError, and Celery's parent process hangs in its end.
"""

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ConnectionError as RedisConnectionError


class Closable:
    """Of a channel: once it is closed it says so, in a way that Celery takes for a lost connection."""

    def _connparams(self, asynchronous: bool = False) -> Any:
        connection = getattr(self, "connection", None)
        if connection is None or connection.client is None:
            raise RedisConnectionError("this channel was closed when the broker was lost")
        return super()._connparams(asynchronous)  # type: ignore[misc]


class Channel(Closable, redis.Channel):
    """Of a server that is named."""


class SentinelChannel(Closable, redis.SentinelChannel):
    """Of a server that Sentinels name."""


class Transport(redis.Transport):
    """redis:// and rediss://"""

    Channel = Channel


class SentinelTransport(redis.SentinelTransport):
    """sentinel://"""

    Channel = SentinelChannel


def mend() -> None:
    """Let kombu use these, in this process."""
    TRANSPORT_ALIASES.update(
        {
            "redis": "tasks.broker:Transport",
            "rediss": "tasks.broker:Transport",
            "sentinel": "tasks.broker:SentinelTransport",
        }
    )
