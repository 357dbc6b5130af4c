"""The endpoints of an API: names under which it is reached, each with defaults of its own for its jobs."""

import functools
import re
from dataclasses import dataclass, replace
from typing import Literal

DEFAULT = "longhand"
Dialect = Literal["v1", "v2"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_OPTIONS = "model, priority (low or normal), retention (seconds), dialect (v1 or v2) and poison (on or off)"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a job gets that does not say otherwise itself. `retention_ms` None: as everywhere."""

    name: str
    model: str = ""
    low_priority: bool = False
    retention_ms: int | None = None
    dialect: Dialect = "v2"
    poison: bool = False

    @classmethod
    def parse(cls, entry: str) -> "Endpoint":
        """Read `name` or `name:option=value;option=value`. Raises ValueError, which quotes the entry."""
        name, _, options = entry.partition(":")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{entry!r}: a name has up to 64 letters, digits, - and _")
        endpoint = cls(name)
        for option in filter(None, options.split(";")):
            try:
                endpoint = endpoint._with(*(part.strip() for part in option.partition("=")[::2]))
            except ValueError:
                raise ValueError(f"{entry!r}: {option!r} is none of its options: {_OPTIONS}") from None
        return endpoint

    def _with(self, option: str, value: str) -> "Endpoint":
        if option == "model" and value:
            return replace(self, model=value)
        if option == "priority" and value in ("low", "normal"):
            return replace(self, low_priority=value == "low")
        if option == "retention" and value.isdecimal() and int(value) > 0:
            return replace(self, retention_ms=1000 * int(value))
        if option == "dialect" and value in ("v1", "v2"):
            return replace(self, dialect="v1" if value == "v1" else "v2")
        if option == "poison" and value in ("on", "off"):
            return replace(self, poison=value == "on")
        raise ValueError(option)


@functools.cache
def endpoints_of(entries: tuple[str, ...]) -> dict[str, Endpoint]:
    """By name; the default one is always there. Raises ValueError for a wrong entry or a name given twice."""
    found: dict[str, Endpoint] = {}
    for endpoint in map(Endpoint.parse, entries):
        if endpoint.name in found:
            raise ValueError(f"the endpoint {endpoint.name} is given twice")
        found[endpoint.name] = endpoint
    return {DEFAULT: Endpoint(DEFAULT), **found}
