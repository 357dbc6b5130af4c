"""What a URL alone tells: scheme, host, user and port are judged before anything is looked up."""

import pytest

from tasks.errors import AddressRefused, InvalidInput, LonghandError, UnsupportedScheme
from tasks.guard import check_url, origin
from tasks.policy import Policy


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("ftp://recordings.test/a", UnsupportedScheme),
        ("file:///etc/passwd", UnsupportedScheme),
        ("data:audio/wav;base64,AAAA", UnsupportedScheme),
        ("recordings.test/a", UnsupportedScheme),
        ("//recordings.test/a", UnsupportedScheme),
        ("", UnsupportedScheme),
        ("http:///a", InvalidInput),
        ("https://", InvalidInput),
        ("http://user:word@recordings.test/", InvalidInput),
        ("http://user@recordings.test/", InvalidInput),
        ("http://recordings.test:99999/", InvalidInput),
        ("http://recordings.test:port/", InvalidInput),
        ("http://a..test/", InvalidInput),
        ("http://" + "a" * 64 + ".test/", InvalidInput),
        ("http://１２７.0.0.1/", InvalidInput),
        ("http://recordings.test\n.test/", InvalidInput),
        ("http://[::1/", InvalidInput),
        ("http://recordings.test:22/", AddressRefused),
        ("http://recordings.test:0/", AddressRefused),
        ("https://recordings.test:6379/", AddressRefused),
    ],
)
def test_a_url_is_judged_by_itself(url: str, error: type[LonghandError]) -> None:
    with pytest.raises(error) as caught:
        check_url(url, Policy())
    assert caught.type is error


@pytest.mark.parametrize("port", ["", ":80", ":443", ":8080", ":8443", ":"])
@pytest.mark.parametrize("scheme", ["http", "https", "HTTPS"])
def test_the_usual_ports_pass(scheme: str, port: str) -> None:
    check_url(f"{scheme}://recordings.test{port}/a?b#c", Policy())


def test_any_port_passes_where_private_addresses_do() -> None:
    check_url("http://127.0.0.1:6379/", Policy(allow_private=True))


@pytest.mark.parametrize(
    ("url", "receiver"),
    [
        ("https://Hooks.Test/a?x=1", "https://hooks.test"),
        ("https://hooks.test:443/b", "https://hooks.test"),
        ("https://hooks.test:8443/b", "https://hooks.test:8443"),
        ("http://hooks.test/b", "http://hooks.test"),
        ("https://hooks.test\\／a", "https://hooks.test"),
    ],
)
def test_deliveries_to_one_scheme_host_and_port_are_one_receivers(url: str, receiver: str) -> None:
    check_url(url, Policy())
    assert origin(url) == receiver
