"""What a fleet lives through without a loss: doubled messages, silent doorbells, restarts."""

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dispatcher.auth import ANONYMOUS
from dispatcher.schemas import parse_input
from tasks import app
from tasks.guard import receiver_of
from tasks.job import NewJob
from tests.conftest import Eventually, Receiver, write_recording
from tests.fleet import LONG_S, ROLES, Fleet, fleet, settings_of

pytestmark = pytest.mark.timeout(400)

RESTARTS = 10
# One after the other.
WORKERS = [(host, role) for host in range(2) for role in ROLES]


@pytest.fixture(scope="module")
def hosts(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, eventually: Eventually
) -> Iterator[Fleet]:
    """Two hosts of workers that share a Redis and a place for audio."""
    folder = tmp_path_factory.mktemp("fleet")
    settings = settings_of(redis_url, 8, folder, lease_ms=6_000, heartbeat_ms=500)
    with fleet(settings, folder, (0, 0), eventually) as made:
        yield made


def test_every_message_three_times_in_any_order(
    hosts: Fleet, receiver: Receiver, eventually: Eventually
) -> None:
    gate = receiver.folder / "gate"
    job_id = hosts.submit(receiver, "thrice", 61, f"gate:2:{gate}")
    eventually(lambda: hosts.store.job(job_id).total, LONG_S, "the plan")  # type: ignore[union-attr]
    chunks = [(app.TRANSCRIBE, (job_id, chunk.index)) for chunk in hosts.store.chunks(job_id)]
    # As whoever rings names it.
    to = hosts.redis.hget(f"lh:job:{job_id}", "receiver").decode()
    assert to == receiver_of(ANONYMOUS, receiver.url)
    every = [
        *chunks,
        (app.INGEST, (job_id,)),
        (app.ASSEMBLE, (job_id,)),
        (app.DELIVER, (to,)),
    ] * 3
    random.Random(20261126).shuffle(every)
    sender = app.create_app(hosts.settings)
    half = len(every) // 2
    for stage, arguments in every[:half]:
        sender.send_task(stage, args=arguments)
    Path(f"{gate}.open").touch()
    for stage, arguments in every[half:]:
        sender.send_task(stage, args=arguments)
    hosts.ended_well(receiver, "thrice", job_id, eventually)
    assert hosts.fences(job_id) == [1] * len(chunks)
    assert_told_once(receiver)
    # And once more, all that is late.
    for stage, arguments in every:
        sender.send_task(stage, args=arguments)
    again = hosts.submit(receiver, "after-thrice", 61)
    hosts.ended_well(receiver, "after-thrice", again, eventually)
    hosts.ended_well(receiver, "thrice", job_id, eventually)
    assert hosts.fences(job_id) == [1] * len(chunks)
    assert_told_once(receiver)


def assert_told_once(receiver: Receiver) -> None:
    """No event was sent again: each was taken when it came first."""
    ids = [headers["webhook-id"] for headers, _ in receiver.posts]
    assert len(ids) == len(set(ids))


def test_jobs_that_nobody_rang_for_run(hosts: Fleet, receiver: Receiver, eventually: Eventually) -> None:
    """The API has written them, and is killed before it rings."""
    write_recording(receiver.folder / "silent.wav", 11)
    parsed = parse_input({"url": f"{receiver.url}/silent.wav"}, hosts.settings)
    ids = [f"silent-{number}-u1" for number in range(20)]
    for job_id in ids:
        assert hosts.store.create(NewJob(job_id, "longhand", ANONYMOUS, parsed.request, 600_000, 0))
    eventually(lambda: all(hosts.completed(job_id) for job_id in ids), LONG_S, "the end of all")
    assert {tuple(hosts.fences(job_id)) for job_id in ids} == {(1,)}
    texts = {str(hosts.segments(job_id)) for job_id in ids}
    assert len(texts) == 1


def test_rolling_restarts_lose_and_charge_nothing(
    hosts: Fleet, receiver: Receiver, eventually: Eventually
) -> None:
    jobs = {}
    for number in range(RESTARTS):
        for half in ("before", "during"):
            name = f"{half}-{number}"
            jobs[name] = hosts.submit(receiver, name, 61, "slow:50")
            if half == "before":
                host, role = WORKERS[number % len(WORKERS)]
                hosts.hosts[host].end(role)
        eventually(partial(hosts.hosts[host].ended, role), LONG_S, "the end of the old one")
        hosts.hosts[host].start(role)
        eventually(partial(hosts.able, hosts.hosts[host]), LONG_S, "the new one")
    for name, job_id in jobs.items():
        hosts.ended_well(receiver, name, job_id, eventually)
        charged = [
            field
            for field in hosts.redis.hkeys(f"lh:job:{job_id}:leases")
            if field.endswith((b":failures", b":deaths", b":suspect"))
        ]
        assert charged == []
        # One that ends in order finishes its chunk, which is short.
        assert hosts.fences(job_id) == [1] * 6
    assert hosts.redis.zcard("lh:leases:transcribe") == 0
