"""Endpoints as an operator writes them."""

import pytest

from tasks.endpoints import Endpoint, endpoints_of
from tasks.errors import ConfigurationError
from tasks.settings import Settings


def test_the_default_is_always_there_and_can_have_options() -> None:
    assert endpoints_of(()) == {"longhand": Endpoint("longhand")}
    assert endpoints_of(("longhand:priority=low",)) == {"longhand": Endpoint("longhand", low_priority=True)}


def test_every_option() -> None:
    entry = "he:model=ivrit-ai/whisper-large-v3-turbo-ct2; priority=low;retention=1800;dialect=v1;poison=on"
    expected = Endpoint("he", "ivrit-ai/whisper-large-v3-turbo-ct2", True, 1_800_000, "v1", True)
    assert Endpoint.parse(entry) == expected
    assert Endpoint.parse("he") == Endpoint.parse("he:priority=normal;dialect=v2") == Endpoint("he")


@pytest.mark.parametrize(
    "entry",
    [
        *("", ":model=x", "a/b", "a b", "he:x", "he:model", "he:model=", "he:priority=high"),
        *(
            "he:retention=0",
            "he:retention=-1",
            "he:retention=1.5",
            "he:dialect=v3",
            "he:poison=1",
            "he:colour=red",
        ),
    ],
)
def test_a_wrong_entry_is_told_with_what_is_accepted(entry: str) -> None:
    with pytest.raises(ValueError, match=r"name has|its options: model, priority"):
        Endpoint.parse(entry)


@pytest.mark.parametrize("entries", ["he:dialect=v3", "he,he:dialect=v1"])
def test_the_setting_is_named(entries: str) -> None:
    with pytest.raises(ConfigurationError, match=r"LONGHAND_ENDPOINTS: .*he"):
        Settings.from_env({"LONGHAND_ENDPOINTS": entries})


def test_an_unknown_endpoint_is_none() -> None:
    assert Settings(endpoints=("he",)).endpoint("en") is None
