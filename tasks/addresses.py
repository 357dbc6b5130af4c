"""Which IP addresses a URL given by a client may lead to."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

# IANA's special-purpose registry, what it calls global too, since no recording is there; multicast; Azure's
# host. Written out, because `is_global` lets several of them through and changes with Python's patches.
_REFUSED_V4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata is 100.100.100.200
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host: DHCP, DNS, guest agent
        "169.254.0.0/16",  # link-local; most clouds' metadata is 169.254.169.254
        "172.16.0.0/12",
        "192.0.0.0/24",  # IETF protocols; Oracle's metadata is 192.0.0.192
        "192.0.2.0/24",
        "192.31.196.0/24",  # AS112: answers to private reverse look-ups
        "192.52.193.0/24",  # multicast relays (AMT)
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Global unicast (RFC 4291) is 2000::/3: loopback, unique local, link- and site-local, multicast,
# IPv4-compatible and 64:ff9b:1::/48 all lie outside it.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # IETF protocols, Teredo and ORCHID among them
        "2001:db8::/32",
        "2002::/16",  # 6to4, whose relays are gone (RFC 7526)
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether `address` is global unicast, on the public internet.

    An address that carries an IPv4 address (mapped, NAT64) is judged by that one, since that is where its
    packets end up; 6to4, Teredo, IPv4-compatible and zoned addresses are never public.
    """
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _REFUSED_V4)
    if address.scope_id is not None:
        return False
    embedded = _embedded(address)
    if embedded is not None:
        return is_public(embedded)
    return address in _GLOBAL_UNICAST and not any(address in block for block in _REFUSED_V6)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped
