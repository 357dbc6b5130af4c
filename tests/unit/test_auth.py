import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.auth import account_of, key_of

KEYS = {"k-1": "first", "מפתח": "second", "two words": "fourth"}


@pytest.mark.parametrize(
    ("header", "account"),
    [
        ("k-1", "first"),
        ("Bearer k-1", "first"),
        ("bearer k-1", "first"),
        ("BEARER   k-1", "first"),
        ("  Bearer k-1  ", "first"),
        ("Bearer מפתח".encode().decode("latin-1"), "second"),
        ("Bearer two words", "fourth"),
        ("two words", "fourth"),
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearer K-1", None),
        ("Bearer k-1x", None),
        ("k-", None),
        ("Basic k-1", None),
        ("Bearer \udcff", None),
    ],
)
def test_account_of(header: str | None, account: str | None) -> None:
    assert account_of(key_of(header), KEYS) == account


def test_without_keys_there_is_no_account() -> None:
    assert account_of("anything", {}) is None


@given(st.text(st.characters()) | st.none())
def test_no_other_header_is_let_in(header: str | None) -> None:
    assert account_of(key_of(header), {"a-long-key-that-nothing-guesses": "name"}) is None
