"""API keys in Redis: made by `longhand keys`, named, revocable, kept as SHA-256; how often a name calls."""

import contextlib
import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from tasks.scripts import Scripts, text

KEYS = "lh:keys"
# Beside the keys, so that writing down a use cannot bring back a key that is being revoked.
USED = "lh:keys:used"
# A use is written down no more often than this.
USED_EVERY_MS = 60_000
PREFIX = "lh_"
WINDOW_MS = 10_000


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept; `id` is the beginning of its hash. The key itself is told once, never kept.

    `used_ms` is right to about a minute.
    """

    id: str
    name: str
    created_ms: int
    revoked_ms: int | None = None
    used_ms: int | None = None


class Keys:
    """The keys of this Redis. Every method may raise redis.exceptions.RedisError."""

    def __init__(self, client: Redis) -> None:
        self._redis: Any = client
        self._scripts = Scripts(client)

    def create(self, name: str) -> str:
        """A new key of 256 random bits, whose jobs are accounted to `name`."""
        key = PREFIX + secrets.token_urlsafe(32)
        self._redis.hset(KEYS, _hash(key), json.dumps({"name": name, "created_ms": self._now_ms()}))
        return key

    def revoke(self, key_id: str) -> bool:
        """End the key of this id; False if there is none, or it was ended before.

        It stays in the list, so that the last of them does not leave the API open to all.
        """
        for digest, row in self._redis.hscan_iter(KEYS, match=f"{key_id}*"):
            fields = json.loads(row)
            if "revoked_ms" in fields or len(key_id) != len(_id(text(digest))):
                continue
            self._redis.hset(KEYS, digest, json.dumps({**fields, "revoked_ms": self._now_ms()}))
            return True
        return False

    def all(self) -> list[ApiKey]:
        """Every key there is or was, the oldest first."""
        used = self._redis.hgetall(USED)
        keys = [
            ApiKey(
                _id(text(digest)), **json.loads(row), used_ms=int(used[digest]) if digest in used else None
            )
            for digest, row in self._redis.hgetall(KEYS).items()
        ]
        return sorted(keys, key=lambda key: key.created_ms)

    def name_of(self, key: str) -> str | None:
        """Whose key it is; None if there is no such key, or it is revoked. Writes down that it was used."""
        digest = _hash(key)
        row = self._redis.hget(KEYS, digest)
        fields: dict[str, Any] = json.loads(row) if row else {"revoked_ms": 0}
        if "revoked_ms" in fields:
            return None
        now_ms, used = self._now_ms(), self._redis.hget(USED, digest)
        if now_ms - int(used or 0) >= USED_EVERY_MS:
            # A Redis that is full is still read.
            with contextlib.suppress(ResponseError):
                self._redis.hset(USED, digest, now_ms)
        return str(fields["name"])

    def exist(self) -> bool:
        """Whether a key was ever made here."""
        return bool(self._redis.exists(KEYS))

    def wait_ms(self, name: str, operation: str, limit: int) -> int:
        """Count one call of `name`; 0, or how long to wait if it is above `limit` in 10 s."""
        return int(self._scripts("rate", name, operation, limit, WINDOW_MS))

    def _now_ms(self) -> int:
        seconds, micros = self._redis.time()
        return int(seconds * 1000 + micros // 1000)


def _hash(key: str) -> str:
    # Of 256 random bits there is no dictionary: a plain hash is enough.
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _id(digest: str) -> str:
    return digest[:12]
