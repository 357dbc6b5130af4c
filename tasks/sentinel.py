"""A Redis that Sentinels watch: `sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT].../DB?master=NAME`.

User and password are those of the data servers; `&sentinel_password=...` is that of the Sentinels.
"""

from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

SCHEME = "sentinel"
PORT = 26379
FORM = "sentinel://[USER:PASSWORD@]HOST:26379,HOST:26379/0?master=NAME"
OPTIONS = frozenset({"master", "sentinel_password"})


@dataclass(frozen=True, slots=True)
class Watched:
    """The Sentinels to ask, and the name of the master to ask them for."""

    sentinels: tuple[tuple[str, int], ...]
    master: str
    database: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self | None:
        """None for a URL of another scheme. Raises ValueError for one that names no Sentinel or no master."""
        parts = urlsplit(url)
        if parts.scheme != SCHEME:
            return None
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = map(unquote, login.partition(":"))
        options = parse_qs(parts.query)
        database = parts.path.removeprefix("/") or "0"
        if not database.isdigit() or set(options) - OPTIONS or "master" not in options or parts.fragment:
            raise ValueError(f"write it as {FORM}")
        return cls(
            tuple(_address(host) for host in hosts.split(",")),
            options["master"][0],
            int(database),
            user or None,
            password or None,
            options.get("sentinel_password", [None])[0],
        )

    @property
    def celery_url(self) -> str:
        """The same as Celery writes it, which takes the master's name and the rest as options."""
        password = "" if self.password is None else f":{quote(self.password, safe='')}"
        login = f"{quote(self.username or '', safe='')}{password}"
        login = f"{login}@" if login else ""
        return ";".join(
            f"{SCHEME}://{login}{f'[{host}]' if ':' in host else host}:{port}/{self.database}"
            for host, port in self.sentinels
        )


def _address(host: str) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    # A wrong port raises ValueError by itself.
    port = parts.port
    if not parts.hostname:
        raise ValueError(f"write it as {FORM}")
    return parts.hostname, port or PORT
