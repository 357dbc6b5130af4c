"""Workers whose clocks are an hour fast and an hour slow, and a lease that a busy process keeps."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.conftest import SECRET, Eventually, Receiver
from tests.fleet import LONG_S, Fleet, fleet, settings_of

pytestmark = pytest.mark.timeout(300)

HOUR_S = 3_600
# What nobody's clock is off by here, and no job takes.
FAR_S = HOUR_S / 2
LEASE_MS = 16_000
# More than half of a lease, when its parent begins to wonder, and less than three quarters, when it acts.
HELD_MS = 9_000


@pytest.fixture(scope="module")
def hosts(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, eventually: Eventually
) -> Iterator[Fleet]:
    """One host that is an hour ahead, and one that is an hour behind."""
    folder = tmp_path_factory.mktemp("fleet")
    settings = settings_of(
        redis_url, 4, folder, lease_ms=LEASE_MS, heartbeat_ms=1_000, progress_interval_ms=0, progress_step=0.0
    )
    with fleet(settings, folder, (HOUR_S, -HOUR_S), eventually) as made:
        yield made


def near(stamp_s: float) -> bool:
    return abs(stamp_s - time.time()) < FAR_S


def seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def test_the_clocks_of_workers_are_nobodys_concern(
    hosts: Fleet, receiver: Receiver, eventually: Eventually
) -> None:
    ids = {f"skewed-{n}": hosts.submit(receiver, f"skewed-{n}", 61, "slow:200") for n in range(2)}
    leases: dict[bytes, float] = {}

    def ended() -> bool:
        for stage in ("ingest", "transcribe", "assemble"):
            now_ms = hosts.store.now_ms()
            for member, until_ms in hosts.redis.zrange(f"lh:leases:{stage}", 0, -1, withscores=True):
                leases[member] = max(abs(until_ms - now_ms), leases.get(member, 0))
        return all(hosts.completed(job_id) for job_id in ids.values())

    eventually(ended, LONG_S, "the end of the jobs")
    assert leases
    assert max(leases.values()) <= 2 * LEASE_MS, "a lease is as long as any other"
    done: list[dict[str, Any]] = [line for host in hosts.hosts for line in host.said("chunk_done")]
    assert not any(near(seconds(line["timestamp"])) for line in done), "their clocks are off"
    assert {len({line["worker"] for line in host.said("chunk_done")}) for host in hosts.hosts} == {1}
    for name, job_id in ids.items():
        hosts.ended_well(receiver, name, job_id, eventually)
        assert hosts.fences(job_id) == [1] * 6, "no lease is over too early"
        shown = hosts.client.status(job_id)
        assert 0 <= shown["delayTime"] < 1000 * FAR_S
        assert 0 <= shown["executionTime"] < 1000 * FAR_S
        assert all(near(seconds(told["timestamp"])) for told in receiver.bodies(name))
    for headers, body in receiver.posts:
        assert near(int(headers["webhook-timestamp"]))
        Webhook(SECRET.encode()).verify(body, headers)


def test_a_call_that_keeps_pythons_lock_for_less_than_three_quarters_of_a_lease(
    hosts: Fleet, receiver: Receiver, eventually: Eventually
) -> None:
    job_id = hosts.submit(receiver, "held", 11, f"hold:0:{HELD_MS}")
    began_s = time.monotonic()
    hosts.ended_well(receiver, "held", job_id, eventually)
    assert time.monotonic() - began_s >= HELD_MS / 1000 - 1
    assert hosts.fences(job_id) == [1]
    for event in ("child_ended", "child_died"):
        assert [line for host in hosts.hosts for line in host.said(event)] == []
