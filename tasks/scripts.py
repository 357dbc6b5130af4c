"""The connection to the state's Redis, and the Lua scripts behind every change of it."""

import bz2
import threading
import zlib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.commands.core import Script
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import Sentinel

from tasks.sentinel import Watched

# Bodies of more bytes than this take the slower and smaller form.
LARGE = 100_000


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one answer of Redis may take, s, and how often a command is repeated, about once a second."""

    answer_s: float
    repeats: int
    # Repeat also what Redis has no memory for, until it has.
    for_memory: bool = False


# In front of each script, in this order.
SHARED = ("fair.lua", "prelude.lua")

# A worker keeps what it has in hand while Redis is away; an HTTP client is told within seconds.
WORKER_PATIENCE = Patience(10, 600, for_memory=True)
CLIENT_PATIENCE = Patience(3, 1)
# Of a Sentinel: the next one is asked instead.
SENTINEL_ANSWER_S = 1
_in_hand = threading.local()


class OutermostRetry(Retry):
    """Repeats a command or, outside of one, a connection.

    redis-py repeats each ping and each connection inside a command that it repeats: a Redis that hangs would
    be waited for nine times as long as was meant, or ninety thousand times.
    """

    def call_with_retry(self, do: Any, fail: Any, *args: Any, **options: Any) -> Any:
        if not getattr(_in_hand, "repeats", False):
            _in_hand.repeats = True
            try:
                return super().call_with_retry(do, fail, *args, **options)
            finally:
                _in_hand.repeats = False
        try:
            return do()
        except self._supported_errors as error:
            fail(*((error, 1) if options.get("with_failure_count") else (error,)))
            raise


class WholeConnect:
    """Repeats all of connecting: to a server that hangs, the first half succeeds."""

    def connect(self) -> None:
        own: Any = self
        own.retry.call_with_retry(super().connect, lambda _error: own.disconnect())  # type: ignore[misc]


def connect(url: str, patience: Patience = CLIENT_PATIENCE) -> "Redis":
    """A client that repeats a command while Redis is away, or, for a worker, is full.

    Repeating is safe: a script that has run already changes nothing, or what it hands out a second time
    comes back when the first lease is over.
    """
    options: dict[str, Any] = {
        "socket_timeout": patience.answer_s,
        "socket_connect_timeout": min(5, patience.answer_s),
        "socket_keepalive": True,
        "health_check_interval": 10,
        "retry": OutermostRetry(ExponentialWithJitterBackoff(base=0.1, cap=1.0), retries=patience.repeats),
        "retry_on_error": [
            *(RedisConnectionError, RedisTimeoutError),
            *([OutOfMemoryError] if patience.for_memory else []),
        ],
    }
    watched = Watched.parse(url)
    if watched is None:
        client = Redis.from_url(url, **options)
        pool: Any = client.connection_pool
        pool.connection_class = type("Connection", (WholeConnect, pool.connection_class), {})
        return client
    make: Any = Sentinel
    sentinels = make(watched.sentinels, sentinel_kwargs=sentinel_options(watched))
    # The connections keep the Sentinels, and ask them anew for each connection.
    master: Redis = sentinels.master_for(watched.master, **_of_server(watched), **options)
    return master


def connect_async(url: str) -> AsyncRedis:
    """A client to listen with, which waits for an answer for as long as it takes and repeats nothing."""
    options: dict[str, Any] = {"socket_connect_timeout": 5, "socket_keepalive": True}
    watched = Watched.parse(url)
    if watched is None:
        return AsyncRedis.from_url(url, **options)
    own = sentinel_options(watched) | {"retry": AsyncRetry(NoBackoff(), 0)}
    make: Any = AsyncSentinel
    sentinels = make(watched.sentinels, sentinel_kwargs=own)
    master: AsyncRedis = sentinels.master_for(watched.master, **_of_server(watched), **options)
    return master


def _of_server(watched: Watched) -> dict[str, Any]:
    return {"db": watched.database, "username": watched.username, "password": watched.password}


def sentinel_options(watched: Watched) -> dict[str, Any]:
    """How to ask a Sentinel: one that is gone, or hangs, costs a second."""
    return {
        "socket_timeout": SENTINEL_ANSWER_S,
        "socket_connect_timeout": SENTINEL_ANSWER_S,
        "password": watched.sentinel_password,
        "retry": Retry(NoBackoff(), 0),
    }


def text(value: Any) -> str:
    """Redis answers in bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def pack(body: str) -> bytes:
    """A webhook's body as it is kept: transcripts with words shrink to a tenth, by bzip2 to a third less."""
    data = body.encode()
    return bz2.compress(data) if len(data) > LARGE else zlib.compress(data)


def unpack(data: bytes) -> bytes:
    return bz2.decompress(data) if data.startswith(b"BZh") else zlib.decompress(data)


class Scripts:
    """`scripts("claim", ...)` runs `tasks/lua/claim.lua` behind what all share."""

    def __init__(self, client: Redis) -> None:
        # redis-py types its answers as sync-or-async unions.
        self._client: Any = client
        self._loaded: set[str] = set()
        folder = resources.files("tasks.lua")
        shared = "".join((folder / name).read_text() for name in SHARED)
        self._scripts: dict[str, Script] = {
            file.name.removesuffix(".lua"): client.register_script(shared + file.read_text())
            for file in folder.iterdir()
            if file.name.endswith(".lua") and file.name not in SHARED
        }

    def queue(self, pipe: Any, name: str, *args: str | bytes | float) -> None:
        """Put a script into a pipeline. Where the server has forgotten it, the answer is a NoScriptError.

        Then load() it and repeat. redis-py's own way asks the server at every pipeline what it knows.
        """
        if name not in self._loaded:
            self.load(name)
        pipe.execute_command("EVALSHA", self._scripts[name].sha, 0, *args)

    def queue_whole(self, pipe: Any, name: str, *args: str | bytes | float) -> None:
        """Put a script into a pipeline with all its text, which no server has to know."""
        pipe.execute_command("EVAL", self._scripts[name].script, 0, *args)

    def load(self, name: str) -> None:
        """Make a script known to the server."""
        self._client.script_load(self._scripts[name].script)
        self._loaded.add(name)

    def __call__(self, name: str, *args: str | bytes | float, client: Any = None) -> Any:
        return self._scripts[name](args=args, client=client)
