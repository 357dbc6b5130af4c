"""What a URL alone tells; what is refused is in the table of tests/guard_table.py."""

import pytest

from tasks.errors import InvalidInput
from tasks.guard import MAX_URL, check_url, origin
from tasks.policy import Policy


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


def test_a_url_has_a_length_that_can_be_kept_with_every_delivery() -> None:
    base = "https://recordings.test/?"
    check_url(base.ljust(MAX_URL, "x"), Policy())
    with pytest.raises(InvalidInput, match=str(MAX_URL)):
        check_url(base.ljust(MAX_URL + 1, "x"), Policy())
