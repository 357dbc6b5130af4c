"""What other machines can reach has a password that is hard to guess, unless the operator says otherwise."""

import ipaddress
from urllib.parse import parse_qs, unquote, urlsplit

from tasks.errors import ConfigurationError
from tasks.sentinel import Watched
from tasks.settings import Settings

MIN_CHARS = 16
# "aaaaaaaaaaaaaaaa" is long, too.
MIN_DISTINCT = 6
RULE = f"at least {MIN_CHARS} characters, {MIN_DISTINCT} of them different"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on, or is reached at, `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_weak(password: str) -> bool:
    return len(password) < MIN_CHARS or len(set(password)) < MIN_DISTINCT


def refuse_weak_redis(settings: Settings) -> None:
    """Raise ConfigurationError for a Redis on another machine without a password, or with a weak one."""
    parts = urlsplit(settings.redis_url)
    watched = Watched.parse(settings.redis_url)
    if watched:
        # Sentinels on another machine name servers on other machines.
        hosts, password = [name for name, _ in watched.sentinels], watched.password or ""
    else:
        hosts, password = [parts.hostname or "localhost"], unquote(parts.password or "")
    if "password" in parse_qs(parts.query):
        # Celery's transport takes it from nowhere else.
        raise ConfigurationError(
            "REDIS_URL: write the password before the host, redis://:PASSWORD@HOST:PORT/0"
        )
    if settings.allow_weak_passwords or all(map(is_loopback, hosts)) or not is_weak(password):
        return
    host = next(host for host in hosts if not is_loopback(host))
    fault = "a weak password" if password else "no password"
    raise ConfigurationError(
        f"REDIS_URL has {fault} for {host}: set requirepass of Redis to {RULE}, "
        "and write it as redis://:PASSWORD@HOST:PORT/0"
    )


def may_be_anonymous(settings: Settings, host: str) -> bool:
    """Whether an API that listens on `host` may be used without a key, while there is none."""
    return settings.allow_anonymous or is_loopback(host)


def refuse_weak_keys(settings: Settings, host: str, *, stored: bool) -> None:
    """Raise ConfigurationError for an API that listens on `host` for other machines without strong keys.

    `stored`: there are keys in Redis, which are always strong.
    """
    if not settings.api_keys and not stored and not may_be_anonymous(settings, host):
        raise ConfigurationError(
            f"the API listens on {host} and anybody could submit: make a key (longhand keys create NAME), or "
            f"set LONGHAND_API_KEYS to name:key, the key {RULE}, or LONGHAND_ALLOW_ANONYMOUS=true"
        )
    if settings.allow_weak_passwords or is_loopback(host):
        return
    weak = [name for key, name in settings.api_keys.items() if is_weak(key)]
    if weak:
        raise ConfigurationError(f"LONGHAND_API_KEYS has a weak key for {weak[0]}: use {RULE}")


def refuse_weak_login(settings: Settings, host: str) -> None:
    """Raise ConfigurationError for a Flower that listens on `host` for other machines without a login."""
    if settings.allow_weak_passwords or is_loopback(host):
        return
    user, _, password = settings.flower_login.partition(":")
    if not user or is_weak(password):
        raise ConfigurationError(
            f"Flower listens on {host}: set LONGHAND_FLOWER_LOGIN to user:password, the password {RULE}"
        )
