"""The connection to the state's Redis, and the Lua scripts behind every change of it."""

import zlib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.commands.core import Script
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one answer of Redis may take, s, and how often a command is repeated, about once a second."""

    answer_s: float
    repeats: int


# In front of each script, in this order.
SHARED = ("fair.lua", "prelude.lua")

# A worker keeps what it has in hand while Redis is away; an HTTP client is told within seconds.
WORKER_PATIENCE = Patience(10, 600)
CLIENT_PATIENCE = Patience(3, 2)


def connect(url: str, patience: Patience = CLIENT_PATIENCE) -> "Redis":
    """A client that repeats a command while Redis is away.

    Repeating is safe: a script that has run already changes nothing, or what it hands out a second time
    comes back when the first lease is over.
    """
    return Redis.from_url(
        url,
        socket_timeout=patience.answer_s,
        socket_connect_timeout=min(5, patience.answer_s),
        socket_keepalive=True,
        health_check_interval=10,
        retry=Retry(ExponentialWithJitterBackoff(base=0.1, cap=1.0), retries=patience.repeats),
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
    )


def text(value: Any) -> str:
    """Redis answers in bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def pack(body: str) -> bytes:
    """A webhook's body as it is kept: transcripts with words shrink to a tenth."""
    return zlib.compress(body.encode())


def unpack(data: bytes) -> bytes:
    return zlib.decompress(data)


class Scripts:
    """`scripts("claim", ...)` runs `tasks/lua/claim.lua` behind what all share."""

    def __init__(self, client: Redis) -> None:
        folder = resources.files("tasks.lua")
        shared = "".join((folder / name).read_text() for name in SHARED)
        self._scripts: dict[str, Script] = {
            file.name.removesuffix(".lua"): client.register_script(shared + file.read_text())
            for file in folder.iterdir()
            if file.name.endswith(".lua") and file.name not in SHARED
        }

    def __call__(self, name: str, *args: str | bytes | float, client: Any = None) -> Any:
        return self._scripts[name](args=args, client=client)
