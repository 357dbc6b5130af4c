"""Whether a Redis can be trusted with jobs: its version, its eviction policy, its append-only file."""

import re
from typing import Any

from redis import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from tasks.errors import ConfigurationError
from tasks.exposure import refuse_weak_redis
from tasks.scripts import text
from tasks.settings import Settings

OLDEST = "6.2"


def check_redis(client: Redis, settings: Settings) -> tuple[list[str], bool]:
    """Warnings about a Redis, and whether it keeps (or may keep) what it is told on disk.

    Raises ConfigurationError where it could lose an accepted job.
    """
    refuse_weak_redis(settings)
    # redis-py types its answers as sync-or-async unions.
    redis: Any = client
    try:
        redis.ping()
    except AuthenticationError as error:
        raise ConfigurationError(
            f"Redis refuses the password of REDIS_URL, or wants one (redis://:PASSWORD@HOST): {error}"
        ) from error
    except RedisError as error:
        # The first word of redis-py, which servers before 6.0 do not know.
        if "unknown command" in str(error) and "HELLO" in str(error):
            refuse_old("5 or older")
        raise ConfigurationError(f"Redis cannot be used: {error}") from error
    try:
        refuse_old(text(redis.info("server")["redis_version"]))
        policy = text(redis.config_get("maxmemory-policy").get("maxmemory-policy", ""))
        on_disk = text(redis.config_get("appendonly").get("appendonly", ""))
    except ResponseError:
        warning = (
            f"Redis forbids INFO or CONFIG GET: make sure that it is {OLDEST} or newer and runs with "
            "noeviction and appendonly yes"
        )
        return [warning], True
    if policy != "noeviction":
        raise ConfigurationError(
            f"Redis has maxmemory-policy {policy}, which deletes queued jobs silently: set noeviction"
        )
    if on_disk != "yes":
        return ["Redis keeps no append-only file: a restart of it loses jobs. Set appendonly yes"], False
    return [], True


def refuse_old(version: str) -> None:
    """Raise ConfigurationError for a server without the commands that our scripts use."""
    found, oldest = (tuple(map(int, re.findall(r"\d+", text)[:2])) for text in (version, OLDEST))
    if found < oldest:
        raise ConfigurationError(
            f"Redis {version} is too old: use {OLDEST} or newer; 7.2 or newer also has accepted jobs on disk"
        )
