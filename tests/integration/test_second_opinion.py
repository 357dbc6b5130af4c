"""microsoft-antissrf as a second opinion: what it refuses we refuse; what of our table it lets through."""

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from types import SimpleNamespace

import pytest
import requests
from AntiSSRF import AntiSSRFError, AntiSSRFPolicy, PolicyConfigOptions
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.addresses import is_public
from tests.guard_table import URLS, Case
from tests.hosts import Names

# Networks without IPv4 reach all of it by these: names lead there by their resolver's doing (RFC 6147).
NAT64 = IPv6Network("64:ff9b::/96")
# docs/decisions/0008-our-own-network-guard.md says what follows from each.
LET_THROUGH = {
    "http://[2606:4700:4700::1111%25lo]/": "zones",
    "http://[::127.0.0.1]:{port}/": "IPv4-compatible addresses",
    "http://[::a9fe:a9fe]/": "IPv4-compatible addresses",
    "http://[::ffff:0:127.0.0.1]/": "IPv4-translated addresses",
    "http://[4000::1]/": "what lies beyond 2000::/3",
    "http://8.8.8.8:6379/": "ports",
    "http://recordings.test:22/": "ports",
    "http://recordings.test:25/": "ports",
    "https://recordings.test:6379/": "ports",
    "http://recordings.test:0/": "ports",
    "http://recordings.test/": "nothing: the first answer of a rebinding name is public, and is kept to",
}
LET_THROUGH |= {case.url: "metadata names" for case in URLS if case.kind == "metadata name"}
# Its look-up of these needs a DNS; it sends user names and passwords on.
UNTRIED = {case.url for case in URLS if case.kind == "userinfo" and "recordings.test/" in case.url}


def theirs() -> AntiSSRFPolicy:
    policy = AntiSSRFPolicy(PolicyConfigOptions.EXTERNAL_ONLY_LATEST)
    policy.allow_plain_text_http = True
    return policy


def lets_through(url: str) -> bool:
    """Whether its session would connect: asked of the step that resolves and decides, and no more."""
    with theirs().get_antissrf_session() as session:
        try:
            request = session.prepare_request(requests.Request("GET", url))
            session.get_adapter(request.url).build_connection_pool_key_attributes(request, True)
        except (AntiSSRFError, requests.RequestException, OSError, UnicodeError):
            return False
        return True


@pytest.mark.parametrize("case", [case for case in URLS if case.url not in UNTRIED], ids=str)
def test_what_it_lets_through_of_our_table(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    if case.answers:
        names = Names(*case.answers)
        answered = SimpleNamespace(
            getaddrinfo=lambda host, _port, *rest: names(host, 0, *rest),
            AF_UNSPEC=socket.AF_UNSPEC,
            SOCK_STREAM=socket.SOCK_STREAM,
        )
        monkeypatch.setattr("AntiSSRF._antissrf_agent.socket", answered)
    assert lets_through(case.url.replace("{port}", "8080")) == (case.url in LET_THROUGH)


addresses = st.one_of(
    st.ip_addresses(), st.integers(0, 2**32 - 1).map(lambda low: IPv6Address(int(NAT64[0]) | low))
)


@given(addresses)
@example(ipaddress.ip_address("192.31.196.1"))
@example(ipaddress.ip_address("2620:4f:8000::1"))
@example(ipaddress.ip_address("2002:808:808::1"))
def test_what_it_refuses_we_refuse(address: IPv4Address | IPv6Address) -> None:
    if not theirs()._is_network_connection_allowed([str(address)]) and address not in NAT64:
        assert not is_public(address)


@pytest.mark.parametrize("block", theirs().denied_addresses, ids=str)
def test_of_every_block_it_refuses_we_refuse_both_ends(block: object) -> None:
    network = IPv6Network(str(block))
    if network == NAT64:
        assert is_public(ipaddress.ip_address("64:ff9b::8.8.8.8"))
    else:
        assert not is_public(network[0])
        assert not is_public(network[-1])
