"""Which addresses count as public: a table of known traps, and the standard library as a second opinion."""

import ipaddress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.addresses import is_public

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]

REFUSED = [
    "0.0.0.0",
    "0.255.255.255",
    "10.0.0.1",
    "100.64.0.0",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.1.1",
    "192.175.48.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "::ffff:0:8.8.8.8",
    "64:ff9b::169.254.169.254",
    "64:ff9b::127.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:0:808:808::f7f7:f7f7",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "2002:a9fe:a9fe::1",
    "2002:c0a8:101::1",
    "2620:4f:8000::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700:4700::1111%1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]

v4 = st.ip_addresses(v=4).map(lambda address: IPv4Address(int(address)))
v6 = st.ip_addresses(v=6).map(lambda address: IPv6Address(int(address)))


@pytest.mark.parametrize("text", PUBLIC)
def test_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@given(v4)
def test_no_ipv4_passes_that_the_standard_library_calls_special(address: IPv4Address) -> None:
    special = not address.is_global or address.is_multicast or address.is_reserved
    assert not (special and is_public(address))


@given(v6)
def test_no_ipv6_passes_that_the_standard_library_calls_special(address: IPv6Address) -> None:
    special = address.is_multicast or address.is_site_local or address.is_link_local or address.is_loopback
    if address.ipv4_mapped is None and address not in ipaddress.IPv6Network("64:ff9b::/96"):
        special |= not address.is_global or address.is_reserved
    assert not (special and is_public(address))


@given(v4)
def test_an_embedded_ipv4_address_decides(address: IPv4Address) -> None:
    inner = int(address)
    mapped = IPv6Address((0xFFFF << 32) | inner)
    nat64 = IPv6Address((0x64FF9B << 96) | inner)
    expected = is_public(address)
    assert (is_public(mapped), is_public(nat64)) == (expected,) * 2


@given(v4, st.integers(0, 2**64 - 1))
def test_tunnels_and_compatible_forms_are_refused_whatever_they_carry(
    address: IPv4Address, rest: int
) -> None:
    assert not is_public(IPv6Address((0x2002 << 112) | (int(address) << 80) | rest))
    assert not is_public(IPv6Address(int(address)))
    assert not is_public(IPv6Address((0x20010000 << 96) | (int(address) << 64) | rest))
    assert not is_public(IPv6Address((0x20010000 << 96) | (rest << 32) | (int(address) ^ 0xFFFFFFFF)))


@given(v6, st.text("abc019", min_size=1, max_size=8))
def test_a_zone_is_refused(address: IPv6Address, zone: str) -> None:
    assert not is_public(IPv6Address(f"{address}%{zone}"))
