"""The URL of a Redis that Sentinels watch."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection

from tasks.app import create_app
from tasks.errors import ConfigurationError
from tasks.exposure import refuse_weak_redis
from tasks.sentinel import Watched
from tasks.settings import Settings

STRONG = "0123456789abcdef"


def test_all_that_a_url_says() -> None:
    url = "sentinel://me:p%40ss@a:1,[::1]:2,c/4?master=ours&sentinel_password=x%26y"
    watched = Watched.parse(url)
    assert watched == Watched((("a", 1), ("::1", 2), ("c", 26379)), "ours", 4, "me", "p@ss", "x&y")
    assert watched.celery_url == (
        "sentinel://me:p%40ss@a:1/4;sentinel://me:p%40ss@[::1]:2/4;sentinel://me:p%40ss@c:26379/4"
    )
    assert "p@ss" not in repr(watched)
    assert "x&y" not in repr(watched)


def test_what_may_be_left_out() -> None:
    watched = Watched.parse("sentinel://a?master=ours")
    assert watched == Watched((("a", 26379),), "ours", 0)
    assert watched.celery_url == "sentinel://a:26379/0"


@pytest.mark.parametrize("url", ["redis://a/0", "rediss://a/0", "sentinels://a/0?master=x", ""])
def test_other_schemes_are_none_of_its_business(url: str) -> None:
    assert Watched.parse(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://a/0",
        "sentinel://a/0?master=",
        "sentinel:///0?master=x",
        "sentinel://a,,b/0?master=x",
        "sentinel://a:port/0?master=x",
        "sentinel://a:70000/0?master=x",
        "sentinel://a/zero?master=x",
        "sentinel://a/0?master=x&maste=y",
        "sentinel://a/0?master=x#y",
        "sentinel://a;sentinel://b/0?master=x",
    ],
)
def test_what_is_none_is_told(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL: "):
        Settings.from_env({"REDIS_URL": url})


@given(st.text(string.printable, min_size=1))
def test_celery_reads_the_password_that_was_meant(password: str) -> None:
    watched = Watched((("a", 1), ("b", 2)), "ours", 3, "me", password)
    connection = Connection(watched.celery_url)
    assert (connection.userid, connection.password, connection.virtual_host) == ("me", password, "3")


def test_state_is_in_the_next_database() -> None:
    settings = Settings(redis_url="sentinel://a:1,b:2/4?master=ours")
    watched = Watched.parse(settings.state_url)
    assert watched
    assert (watched.database, watched.sentinels) == (5, (("a", 1), ("b", 2)))
    options = create_app(settings).conf.broker_transport_options
    assert options["master_name"] == "ours"


def test_a_password_is_needed_where_any_sentinel_is_elsewhere() -> None:
    refuse_weak_redis(Settings(redis_url="sentinel://127.0.0.1:1,localhost:2/0?master=x"))
    refuse_weak_redis(Settings(redis_url=f"sentinel://:{STRONG}@a,b/0?master=x"))
    with pytest.raises(ConfigurationError, match="REDIS_URL has no password for b"):
        refuse_weak_redis(Settings(redis_url="sentinel://localhost,b/0?master=x&sentinel_password=" + STRONG))
