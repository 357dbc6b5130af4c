"""A Redis that hangs, dies, stays away, or whose link is half open: everything waits, and then goes on."""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from redis import Redis

from dispatcher.client import Client, segments_of
from dispatcher.local import Machine, Plan
from tasks.scripts import connect
from tasks.settings import Settings
from tests.conftest import Eventually, Receiver, write_recording
from tests.link import Link, link
from tests.servers import Server, server

pytestmark = [pytest.mark.outage, pytest.mark.timeout(300)]

BROKER = 2
STATE = 3
LEASE_MS = 3_000


@dataclass(frozen=True, slots=True)
class Site:
    """A machine with one transcribing process, which reaches its own Redis over a link."""

    machine: Machine
    server: Server
    link: Link
    client: Client
    # Past the link.
    state: Redis

    def submit(self, receiver: Receiver, prompt: str) -> str:
        write_recording(receiver.folder / "talk.wav", 31)
        arguments = {"initial_prompt": prompt}
        return self.client.submit(
            {
                "url": f"{receiver.url}/talk.wav",
                "chunk_seconds": 10,
                "transcribe_args": arguments,
                "webhook_url": f"{receiver.url}/hook",
            }
        )

    def in_hand(self, job_id: str) -> bool:
        """Whether a chunk of the job is being transcribed."""
        return bool(self.state.exists(f"lh:job:{job_id}:partial"))

    def completed(self, job_id: str) -> bool:
        return bool(self.client.status(job_id)["status"] == "COMPLETED")

    def starts(self, job_id: str) -> list[int]:
        """How often each chunk was started."""
        total = self.state.hlen(f"lh:job:{job_id}:chunks")
        rows: Any = self.state.hmget(f"lh:job:{job_id}:leases", list(map(str, range(int(total)))))
        return [int(row) for row in rows]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, eventually: Eventually) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with server(folder / "redis") as redis, link(redis.port) as between:
        eventually(redis.answers, what="the server")
        settings = Settings(
            data_dir=folder / "data",
            engine="tests.fake_engine:FakeEngine",
            model="multi",
            allow_private_addresses=True,
            webhook_secret="a secret",
            lease_ms=LEASE_MS,
            heartbeat_ms=300,
            dispatch_ms=3_000,
            reap_ms=200,
            attempt_delay_ms=200,
        )
        plan = Plan(port=0, workers=1, redis_url=f"redis://127.0.0.1:{between.port}/{BROKER}")
        machine = Machine(settings, plan)
        try:
            machine.start(within_s=60)
            with connect(f"redis://127.0.0.1:{redis.port}/{STATE}") as state:
                yield Site(machine, redis, between, Client(f"{machine.url}/v2/longhand"), state)
        finally:
            machine.stop()


@pytest.fixture
def expected(site: Site, receiver: Receiver, eventually: Eventually) -> Any:
    """The segments of a job that nothing disturbs. That it ends is part of every test: a worker consumes."""
    job_id = site.submit(receiver, "slow:20")
    eventually(lambda: site.completed(job_id), 60, "a job that nothing disturbs")
    return segments_of(site.client.status(job_id)["output"])


def ended_well(
    site: Site, receiver: Receiver, job_id: str, expected: Any, eventually: Eventually
) -> list[int]:
    """The job completes as if nothing had happened, and is told of once; how often chunks were started."""
    eventually(lambda: site.completed(job_id), 60, "the end of the job")
    assert segments_of(site.client.status(job_id)["output"]) == expected

    def told() -> set[str]:
        posts = [(headers["webhook-id"], body) for headers, body in receiver.posts]
        return {event for event, body in posts if job_id in event and b'"completed"' in body}

    eventually(told, what="its webhook")
    assert len(told()) == 1
    return site.starts(job_id)


def away(site: Site, how: str) -> None:
    """Redis is not there for longer than a lease; meanwhile the API says so."""
    if how == "hangs":
        site.server.signal(signal.SIGSTOP)
    else:
        site.server.kill()
    began_s = time.monotonic()
    refused = requests.post(f"{site.machine.url}/v2/longhand/run", json={"input": {"url": "x"}}, timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    if how != "is restarted":
        shown = requests.get(f"{site.machine.url}/v2/longhand/stream/any", timeout=60)
        assert (shown.status_code, shown.json()["stream"]) == (200, [])
        for call in ("status/any", "health"):
            shown = requests.get(f"{site.machine.url}/v2/longhand/{call}", timeout=60)
            assert (shown.status_code, shown.json()["code"]) == (503, "unavailable")
        time.sleep(max(0.0, began_s + 2 * LEASE_MS / 1000 - time.monotonic()))
    if how == "hangs":
        site.server.signal(signal.SIGCONT)
    else:
        site.server.start()


@pytest.mark.parametrize("how", ["hangs", "is restarted", "is gone for a while"])
def test_no_work_is_lost_because_redis_was_away(
    site: Site, receiver: Receiver, eventually: Eventually, expected: Any, how: str
) -> None:
    pids = site.machine.pids()
    job_id = site.submit(receiver, "slow:1000")
    eventually(lambda: site.in_hand(job_id), what="a chunk in hand")
    away(site, how)
    starts = ended_well(site, receiver, job_id, expected, eventually)
    assert set(starts) == {1}, "nothing is done twice"
    assert site.machine.pids() == pids


def test_a_worker_consumes_after_many_reconnects(
    site: Site, receiver: Receiver, eventually: Eventually, expected: Any
) -> None:
    with connect(f"redis://127.0.0.1:{site.server.port}/{BROKER}") as broker:
        for _ in range(3):
            assert broker.client_kill_filter(_type="normal", skipme=True)
            job_id = site.submit(receiver, "slow:20")
            ended_well(site, receiver, job_id, expected, eventually)


def test_an_empty_broker_is_filled_again(
    site: Site, receiver: Receiver, eventually: Eventually, expected: Any
) -> None:
    jobs = [site.submit(receiver, "slow:100") for _ in range(3)]
    eventually(lambda: site.in_hand(jobs[0]), what="a chunk in hand")
    with connect(f"redis://127.0.0.1:{site.server.port}/{BROKER}") as broker:
        broker.flushdb()
    for job_id in jobs:
        ended_well(site, receiver, job_id, expected, eventually)


def test_a_half_open_link_to_the_state_costs_at_most_a_start(
    site: Site, receiver: Receiver, eventually: Eventually, expected: Any
) -> None:
    job_id = site.submit(receiver, "slow:500")
    eventually(lambda: site.in_hand(job_id), what="a chunk in hand")
    assert site.link.halve(STATE) > 3
    starts = ended_well(site, receiver, job_id, expected, eventually)
    assert sum(starts) <= len(starts) + 1


def test_a_half_open_link_to_the_broker_heals(
    site: Site, receiver: Receiver, eventually: Eventually, expected: Any
) -> None:
    assert site.link.halve(BROKER) > 3
    job_id = site.submit(receiver, "slow:20")
    eventually(lambda: site.completed(job_id), 90, "the end of the job")
    ended_well(site, receiver, job_id, expected, eventually)
