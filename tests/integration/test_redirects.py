"""Downloads that lead elsewhere: every hop passes the checks that the first address passed."""

import ipaddress
import ssl
from pathlib import Path

import pytest
import requests
from cryptography import x509

from tasks.answers import next_hop
from tasks.errors import AddressRefused, SourceRefused
from tasks.settings import Settings
from tests.certificates import write_certificate
from tests.downloads import fetch
from tests.hosts import BODY, SETTINGS, Host, quiet, redirect, running


def test_redirects_are_followed_up_to_the_limit(host: Host, target: Path) -> None:
    hops = [redirect(301, "/b"), redirect(302, "c?x=1"), redirect(307, host.url), redirect(308, "/d")]
    host.scripts = [*hops, lambda request: request.file(BODY)]
    settings = SETTINGS.model_copy(update={"max_redirects": 4})
    seen: list[int] = []
    assert fetch(host.url, target, settings, lambda done, _total: seen.append(done)) == len(BODY)
    assert [request.path for request in host.requests][1:3] == ["/b", "/c?x=1"]
    # Each is reported: slow redirects must not pass for a process that has stalled.
    assert seen.count(0) == 4
    host.requests.clear()
    settings = SETTINGS.model_copy(update={"max_redirects": 3})
    with pytest.raises(SourceRefused, match="more than 3 times"):
        fetch(host.url, target, settings, quiet)
    assert len(host.requests) == 4


def test_a_redirect_that_cannot_be_read_is_the_hosts_mistake(host: Host, target: Path) -> None:
    host.scripts = [redirect(302, "http://[::1/")]
    with pytest.raises(SourceRefused, match="cannot be read"):
        fetch(host.url, target, SETTINGS, quiet)
    assert len(host.requests) == 1


def test_every_hop_is_decided_on_its_own_address(host: Host, target: Path) -> None:
    with running("127.0.0.2") as private:
        host.scripts = [redirect(302, private.url)]
        private.scripts = [lambda request: request.file(BODY)]
        with pytest.raises(AddressRefused, match=r"127\.0\.0\.2"):
            fetch(host.url, target, Settings(allowed_addresses=("127.0.0.1",)), quiet)
        assert (len(host.requests), len(private.requests)) == (1, 0)
        settings = Settings(allowed_addresses=("127.0.0.1", "127.0.0.2"))
        assert fetch(host.url, target, settings, quiet) == len(BODY)


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context with a certificate for 127.0.0.1 that requests is made to trust."""
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    pem = write_certificate(tmp_path / "host.pem", "127.0.0.1", address)
    monkeypatch.setattr(requests.adapters, "DEFAULT_CA_BUNDLE_PATH", str(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def test_https_is_not_left_for_http(host: Host, target: Path, tls: ssl.SSLContext) -> None:
    host.scripts = [lambda request: request.file(BODY)]
    with running("127.0.0.1", tls) as secure:
        secure.scripts = [redirect(302, "/again"), redirect(302, host.url)]
        with pytest.raises(AddressRefused, match="from https to http"):
            fetch(secure.url, target, SETTINGS, quiet)
        assert (len(secure.requests), len(host.requests)) == (2, 0)
        secure.scripts = [lambda request: request.file(BODY)]
        assert fetch(secure.url, target, SETTINGS, quiet) == len(BODY)


@pytest.mark.parametrize(
    ("url", "location", "expected"),
    [
        ("http://a.test/b/c", "d", "http://a.test/b/d"),
        ("http://a.test/b/c", "//b.test/d?e", "http://b.test/d?e"),
        ("http://a.test/b", "https://b.test/", "https://b.test/"),
        ("https://a.test/", "/×©".encode().decode("latin-1"), "https://a.test/×©"),
    ],
)
def test_next_hop(url: str, location: str, expected: str) -> None:
    assert next_hop(url, location) == expected
