"""What the operator allows beside the public internet: who may reach which host, network and port."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import AddressRefused, ConfigurationError
from tasks.guard import check_url
from tasks.policy import METADATA_NAMES, Policy
from tasks.settings import Settings


def policy(allowed: str, endpoint: str = "", **fields: str) -> Policy:
    variables = {"LONGHAND_ALLOWED_ADDRESSES": allowed} | {
        f"LONGHAND_{name.upper()}": value for name, value in fields.items()
    }
    return Settings.from_env(variables).policy(endpoint)


@pytest.mark.parametrize(
    "entry",
    [
        "10.0.0.1/8",  # which of the two is meant?
        "10.0.0.0/33",
        "10.0.0",  # a mistyped address must not become a name that nothing has
        "10.0.0.256",
        "0x7f.1",
        "2130706433",
        "fe80::1%eth0/64",
        "[::1]",
        "http://nas.test",
        "nas.test:9000",
        "nas..test",
        "nas.test/a",
        "me@nas.test",
        "nas.test?a",
        "na s.test",
        "*",
        "*.",
        "*nas.test",
        "nas.*.test",
        "=10.0.0.0/8",
        "an endpoint=nas.test",
        "e=",
        "e=f=nas.test",
    ],
)
def test_a_wrong_entry_is_named(entry: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        policy(f"fine.test, {entry}")
    assert str(caught.value).startswith("LONGHAND_ALLOWED_ADDRESSES: ")
    assert repr(entry) in str(caught.value)


@pytest.mark.parametrize(
    ("allowed", "host", "expected"),
    [
        ("nas.test", "nas.test", True),
        ("nas.test", "NAS.test.", True),
        ("NAS.Test.", "nas.test", True),
        ("nas.test", "a.nas.test", False),
        ("nas.test", "nas.test.example", False),
        ("*.nas.test", "a.nas.test", True),
        ("*.nas.test", "a.b.nas.test", True),
        ("*.nas.test", "nas.test", False),
        ("*.nas.test", "bnas.test", False),
        ("nas", "nas", True),
        ("הקלטות.test", "xn--8dbcip8cva.test", True),
        ("10.0.0.0/8", "nas.test", False),
        ("", "nas.test", False),
    ],
)
def test_hosts(allowed: str, host: str, *, expected: bool) -> None:
    assert policy(allowed).allows_host(host) is expected


@pytest.mark.parametrize(
    ("allowed", "address", "expected"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),  # the same address to the kernel
        ("10.0.0.0/8", "64:ff9b::10.1.2.3", False),  # another machine's 10/8
        ("10.0.0.0/8", "2002:a01:203::", False),
        ("fd00:1::/32", "fd00:1::5", True),
        ("fd00:1::/32", "fd00:2::5", False),
        ("8.8.8.0/24", "8.8.8.8", True),
        ("nas.test", "10.0.0.1", False),
    ],
)
def test_networks_are_free_of_the_port_limit(allowed: str, address: str, *, expected: bool) -> None:
    assert policy(allowed).allows(ip_address(address), 9000) is expected


@pytest.mark.parametrize("endpoint", ["", "a", "b"])
def test_an_entry_of_an_endpoint_holds_for_its_jobs_only(endpoint: str) -> None:
    found = policy("all.test, a=a.test, a=10.0.0.0/8", endpoint)
    assert found.allows_host("all.test")
    assert found.allows_host("a.test") is (endpoint == "a")
    assert found.allows(ip_address("10.0.0.1"), 80) is (endpoint == "a")


def test_ports_are_of_public_addresses() -> None:
    found = policy("", allowed_ports="80,9000")
    assert found.allows(ip_address("8.8.8.8"), 9000)
    assert not found.allows(ip_address("8.8.8.8"), 443)
    assert not found.allows(ip_address("10.0.0.1"), 80)
    check_url("http://recordings.test:9000/", found)
    with pytest.raises(AddressRefused, match=r"port 8080 of recordings\.test is not one of 80, 9000"):
        check_url("http://recordings.test:8080/", found)


@pytest.mark.parametrize("ports", ["", "0", "65536", "http"])
def test_wrong_ports_are_told(ports: str) -> None:
    with pytest.raises(ConfigurationError, match="LONGHAND_ALLOWED_PORTS: "):
        policy("", allowed_ports=ports)


def test_an_odd_port_waits_for_the_address_where_a_network_is_allowed() -> None:
    check_url("http://nas.test:9000/", policy("10.0.0.0/8"))
    check_url("http://nas.test:9000/", policy("nas.test"))
    with pytest.raises(AddressRefused):
        check_url("http://nas.test:9000/", policy("other.test"))


@pytest.mark.parametrize("name", sorted(METADATA_NAMES))
def test_metadata_needs_its_name_allowed_and_not_only_its_network(name: str) -> None:
    with pytest.raises(AddressRefused, match="credentials"):
        check_url(f"http://{name}/", policy("169.254.0.0/16"))
    check_url(f"http://{name}/", policy(name))
    check_url(f"http://{name}/", Policy(allow_private=True))


@given(st.ip_addresses(), st.integers(1, 65_535))
def test_allowing_private_addresses_allows_everything(address: object, port: int) -> None:
    assert Policy(allow_private=True).allows(ip_address(str(address)), port)
