"""What a setting may be, and how it is written in the environment: every kind of value but Pydantic's own."""

import base64
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from tasks.endpoints import endpoints_of
from tasks.policy import Allowed
from tasks.sentinel import Watched
from tasks.weights import weights_of

SECRET_PREFIX = "whsec_"  # noqa: S105  what a secret begins with


def _split(value: object) -> object:
    """`a,b` from the environment becomes `["a", "b"]`."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _keys(value: object) -> object:
    """`name:key,name:key` becomes `{key: name}`; a key may hold any character but a comma."""
    if not isinstance(value, str):
        return value
    keys: dict[str, str] = {}
    for entry in value.split(","):
        if not entry.strip():
            continue
        name, colon, key = entry.strip().partition(":")
        if not (name and colon and key):
            raise ValueError("write it as name:key,name:key")
        if key in keys:
            raise ValueError(f"the same key is given twice, to {keys[key]} and {name}")
        keys[key] = name
    return keys


def _endpoints(entries: tuple[str, ...]) -> tuple[str, ...]:
    endpoints_of(entries)
    return entries


def _weights(entries: tuple[str, ...]) -> tuple[str, ...]:
    weights_of(entries)
    return entries


def _allowed(entries: tuple[str, ...]) -> tuple[str, ...]:
    for entry in entries:
        Allowed.parse(entry)
    return entries


def signing_key(secret: str) -> bytes:
    """The key of a webhook secret: base64 after `whsec_`, else the text itself.

    Raises ValueError for base64 that is none: read leniently, it would sign with another key.
    """
    encoded = secret.removeprefix(SECRET_PREFIX)
    if encoded == secret:
        return secret.encode()
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ValueError(f"after {SECRET_PREFIX} there must be a key in base64")
    return key


def _secret(value: str) -> str:
    signing_key(value)
    return value


def _redis_url(value: str) -> str:
    if not Watched.parse(value) and not re.match(r"^rediss?://[^/?#]+(/\d*)?(\?[^#]*)?$", value):
        raise ValueError("write it as redis://, rediss:// or sentinel://, with the number of a database")
    return value


def _login(value: str) -> str:
    """Flower takes a comma for the end of a login, and the password would be what stands before it."""
    user, _, password = value.partition(":")
    if value and (not user or not password or "," in value):
        raise ValueError("write it as user:password, without a comma")
    return value


Milliseconds = Annotated[int, Field(ge=0)]
PositiveMilliseconds = Annotated[int, Field(ge=1)]
ChunkLengths = Annotated[tuple[Annotated[int, Field(ge=1_000)], ...], BeforeValidator(_split)]
CircuitList = Annotated[tuple[PositiveMilliseconds, ...], BeforeValidator(_split), Field(min_length=1)]
SecretList = Annotated[tuple[Annotated[str, AfterValidator(_secret)], ...], BeforeValidator(_split)]
AccountSecrets = Annotated[dict[Annotated[str, AfterValidator(_secret)], str], BeforeValidator(_keys)]
MillisecondsList = Annotated[tuple[Milliseconds, ...], BeforeValidator(_split)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Ports = Annotated[
    tuple[Annotated[int, Field(ge=1, le=65_535)], ...], Field(min_length=1), BeforeValidator(_split)
]
AllowedAddresses = Annotated[tuple[str, ...], AfterValidator(_allowed), BeforeValidator(_split)]
RateLimits = Annotated[
    tuple[Annotated[str, Field(pattern=r"^(run|runsync|status|cancel|purge-queue)=\d{1,9}$")], ...],
    BeforeValidator(_split),
]
Endpoints = Annotated[tuple[str, ...], AfterValidator(_endpoints), BeforeValidator(_split)]
AccountWeights = Annotated[tuple[str, ...], AfterValidator(_weights), BeforeValidator(_split)]
ApiKeys = Annotated[dict[str, str], BeforeValidator(_keys)]
Secret = Annotated[str, AfterValidator(_secret)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
Login = Annotated[str, AfterValidator(_login)]
