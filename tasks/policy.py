"""What clients may have connected to: the public internet on a few ports, and what the operator adds."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import urllib3

from tasks.addresses import is_public

Network = IPv4Network | IPv6Network
PORTS = (80, 443, 8080, 8443)

# Where clouds hand out credentials. Their addresses are refused as well; the names are for where that is not
# enough: an allowed network holds the address, or a cloud's resolver answers with another one.
METADATA_NAMES = frozenset(
    {
        "api.metadata.cloud.ibm.com",
        "instance-data",
        "instance-data.ec2.internal",
        "metadata",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.packet.net",
        "metadata.platformequinix.com",
        "metadata.tencentyun.com",
    }
)
_ENDPOINT = re.compile(r"[A-Za-z0-9_-]+")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?")
# What a resolver may take for an IPv4 address, although it does not look like one (0x7f.1, 127.1).
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Allowed:
    """One entry of LONGHAND_ALLOWED_ADDRESSES: a network, or a name, for one endpoint or (with "") for all.

    A name is in lower case and ASCII; `*.suffix` stands for every name below the suffix.
    """

    endpoint: str
    target: Network | str

    @classmethod
    def parse(cls, entry: str) -> "Allowed":
        """Raises ValueError, with the entry in its message."""
        endpoint, equals, target = entry.rpartition("=")
        if equals and not _ENDPOINT.fullmatch(endpoint):
            raise ValueError(f"{entry!r}: before the = there must be the id of an endpoint")
        try:
            return cls(endpoint, _network(target) or _name(target))
        except ValueError as error:
            raise ValueError(f"{entry!r}: {error}") from None


def _network(target: str) -> Network | None:
    try:
        return ip_network(target)
    except ValueError:
        if "/" not in target and ":" not in target:
            return None
        raise


def _name(target: str) -> str:
    star, suffix = ("*.", target[2:]) if target.startswith("*.") else ("", target)
    try:
        parsed = urllib3.util.parse_url(f"http://{suffix}")
    except urllib3.exceptions.LocationParseError:
        parsed = urllib3.util.Url()
    # The rest of a URL is no part of a name.
    host = _plain(parsed.host or "") if parsed == urllib3.util.Url("http", host=parsed.host) else ""
    labels = host.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels) or _NUMBER.fullmatch(labels[-1]):
        raise ValueError("not a host name, a *.suffix, an address or a network such as 10.0.0.0/8")
    return star + host


def _plain(host: str) -> str:
    return host.lower().removesuffix(".")


@dataclass(frozen=True, slots=True)
class Policy:
    """What the clients of one endpoint may have connected to.

    A public address may be on one of `ports` only; what `hosts` and `networks` allow may be on any port.
    `allow_private` lifts everything.
    """

    allow_private: bool = False
    ports: frozenset[int] = frozenset(PORTS)
    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, *, allow_private: bool, ports: tuple[int, ...], allowed: tuple[Allowed, ...]) -> "Policy":
        targets = [entry.target for entry in allowed]
        hosts = frozenset(target for target in targets if isinstance(target, str))
        networks = tuple(target for target in targets if not isinstance(target, str))
        return cls(allow_private, frozenset(ports), hosts, networks)

    def allows_host(self, host: str) -> bool:
        """Whether `host` may be reached wherever it leads."""
        return self.allow_private or _listed(_plain(host), self.hosts)

    def refuses_host(self, host: str) -> bool:
        """Whether `host` may not be reached wherever it leads."""
        return _plain(host) in METADATA_NAMES and not self.allows_host(host)

    def refuses_port(self, port: int) -> bool:
        """Whether `port` may not be reached at any address that is not allowed by its host."""
        # Requests takes port 0 for the usual one, which then may be a port of `ports`.
        return port not in self.ports and (port == 0 or not self.networks)

    def allows(self, address: IPv4Address | IPv6Address, port: int) -> bool:
        """Whether a connection may be made to this address, which an allowed host did not lead to."""
        if self.allow_private or self._in_networks(address):
            return True
        return is_public(address) and port in self.ports

    def _in_networks(self, address: IPv4Address | IPv6Address) -> bool:
        # A mapped address is the IPv4 address to the kernel; in other forms another machine unpacks it.
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return any((mapped or address) in network for network in self.networks)


def _listed(host: str, names: frozenset[str]) -> bool:
    labels = host.split(".")
    suffixes = ("*." + ".".join(labels[start:]) for start in range(1, len(labels)))
    return host in names or any(suffix in names for suffix in suffixes)
