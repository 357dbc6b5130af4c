"""What other machines reach needs a password that is hard to guess."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigurationError
from tasks.exposure import (
    MIN_CHARS,
    is_loopback,
    is_weak,
    may_be_anonymous,
    refuse_weak_keys,
    refuse_weak_login,
    refuse_weak_redis,
)
from tasks.settings import REDIS_URL, Settings

STRONG = "0123456789abcdef"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "redis", "10.0.0.1", "128.0.0.1", "localhost.example"])
def test_what_others_may_reach(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("password", ["", "short", STRONG[:-1], "a" * 40, "abcde" * 8])
def test_weak(password: str) -> None:
    assert is_weak(password)


@given(st.text(min_size=MIN_CHARS).filter(lambda text: len(set(text)) >= 6))
def test_long_and_mixed_is_strong(password: str) -> None:
    assert not is_weak(password)


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("redis://redis:6379/0", "no password for redis"),
        ("redis://user@redis:6379/0", "no password for redis"),
        ("rediss://:short@10.0.0.9/0", "a weak password for 10.0.0.9"),
        ("redis://:%61%61@redis:6379/0", "a weak password for redis"),
    ],
)
def test_a_redis_elsewhere_needs_a_strong_password(url: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=f"REDIS_URL has {fault}: set requirepass") as refused:
        refuse_weak_redis(Settings(redis_url=url))
    assert "short" not in str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(redis_url=REDIS_URL),
        Settings(redis_url=f"redis://:{STRONG}@redis:6379/0"),
        Settings(redis_url=f"redis://:{STRONG[1:]}%2F@redis:6379/0"),
        Settings(redis_url="redis://:pw@/0"),
        Settings(redis_url="redis://redis:6379/0", allow_weak_passwords=True),
    ],
)
def test_a_redis_that_may_be_used(settings: Settings) -> None:
    refuse_weak_redis(settings)


def test_a_password_behind_the_host_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="write the password before the host"):
        refuse_weak_redis(Settings(redis_url=f"redis://127.0.0.1/0?password={STRONG}"))


def test_an_api_for_others_needs_strong_keys() -> None:
    with pytest.raises(ConfigurationError, match=r"listens on 0\.0\.0\.0 .* make a key"):
        refuse_weak_keys(Settings(), "0.0.0.0", stored=False)
    keys = {STRONG: "us", "short": "them"}
    for stored in (False, True):
        with pytest.raises(ConfigurationError, match="a weak key for them"):
            refuse_weak_keys(Settings(api_keys=keys, allow_anonymous=True), "0.0.0.0", stored=stored)
    refuse_weak_keys(Settings(api_keys={STRONG: "us"}), "0.0.0.0", stored=False)
    refuse_weak_keys(Settings(api_keys=keys, allow_weak_passwords=True), "0.0.0.0", stored=False)
    refuse_weak_keys(Settings(), "127.0.0.1", stored=False)
    refuse_weak_keys(Settings(), "0.0.0.0", stored=True)
    refuse_weak_keys(Settings(allow_anonymous=True), "0.0.0.0", stored=False)
    with pytest.raises(ConfigurationError, match="LONGHAND_ALLOW_ANONYMOUS=true"):
        refuse_weak_keys(Settings(allow_weak_passwords=True), "0.0.0.0", stored=False)


def test_who_may_be_anonymous() -> None:
    assert may_be_anonymous(Settings(), "127.0.0.1")
    assert may_be_anonymous(Settings(allow_anonymous=True), "0.0.0.0")
    assert not may_be_anonymous(Settings(allow_weak_passwords=True), "0.0.0.0")


@pytest.mark.parametrize("login", [STRONG, f":{STRONG}", "admin:", f"admin:ab,{STRONG}"])
def test_a_login_that_is_none(login: str) -> None:
    with pytest.raises(ConfigurationError, match="LONGHAND_FLOWER_LOGIN: write it as user:password"):
        Settings.from_env({"LONGHAND_FLOWER_LOGIN": login})


@pytest.mark.parametrize("login", ["", "admin:flower"])
def test_a_flower_for_others_needs_a_login(login: str) -> None:
    with pytest.raises(ConfigurationError, match="LONGHAND_FLOWER_LOGIN"):
        refuse_weak_login(Settings(flower_login=login), "0.0.0.0")
    refuse_weak_login(Settings(flower_login=login), "127.0.0.1")
    refuse_weak_login(Settings(flower_login=login, allow_weak_passwords=True), "0.0.0.0")


def test_a_flower_with_a_login() -> None:
    refuse_weak_login(Settings(flower_login=f"admin:{STRONG}"), "0.0.0.0")
