"""Sentinels name the master: everything follows a failover, and no accepted job is lost in one."""

import contextlib
import functools
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from dispatcher.client import ApiError, Client, segments_of
from dispatcher.local import Machine, Plan
from tasks.settings import Settings
from tests.conftest import Eventually, Receiver, write_recording
from tests.servers import Watched, watched

pytestmark = [pytest.mark.outage, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, eventually: Eventually) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("servers")) as found:
        eventually(lambda: found.ready() and found.in_step(), 60, "a master, a replica and three Sentinels")
        yield found


@pytest.fixture(scope="module")
def machine(servers: Watched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("machine"),
        engine="tests.fake_engine:FakeEngine",
        model="multi",
        allow_private_addresses=True,
        lease_ms=3_000,
        heartbeat_ms=300,
        dispatch_ms=3_000,
        reap_ms=200,
        attempt_delay_ms=200,
    )
    machine = Machine(settings, Plan(port=0, workers=2, redis_url=servers.url))
    try:
        machine.start(within_s=60)
        yield machine
    finally:
        machine.stop()


def job_input(receiver: Receiver, name: str, prompt: str = "slow:20") -> dict[str, Any]:
    return {
        "url": f"{receiver.url}/talk.wav",
        "chunk_seconds": 10,
        "transcribe_args": {"initial_prompt": prompt},
        "webhook_url": f"{receiver.url}/hook",
        "recording_id": name,
    }


@contextlib.contextmanager
def submitting(client: Client, receiver: Receiver) -> Iterator[list[str]]:
    """Submit a job every 0.5 s; the ids of those that were accepted."""
    accepted: list[str] = []
    refusals: list[str] = []
    over = threading.Event()

    def submit() -> None:
        while not over.wait(0.5):
            try:
                accepted.append(client.submit(job_input(receiver, "talk")))
            except ApiError as error:
                refusals.append(str(error))

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        yield accepted
    finally:
        over.set()
        thread.join()
    assert [error for error in refusals if not error.startswith("503: ")] == []


def test_no_accepted_job_is_lost_in_a_failover(
    machine: Machine, servers: Watched, receiver: Receiver, eventually: Eventually
) -> None:
    write_recording(receiver.folder / "talk.wav", 31)
    client = Client(f"{machine.url}/v2/longhand")
    calm = client.submit(job_input(receiver, "calm"))
    eventually(functools.partial(completed, client, calm), 60, "the job before")
    pids = machine.pids()
    with submitting(client, receiver) as accepted:
        eventually(lambda: len(accepted) >= 4, what="some jobs")
        old = servers.master
        old.kill()
        eventually(lambda: servers.master_port() not in (0, old.port), 30, "the failover")
        count = len(accepted)
        eventually(lambda: len(accepted) >= count + 4, 60, "jobs accepted by the new master")
        old.start()
        eventually(servers.in_step, 60, "the old master as a replica")
        count = len(accepted)
        eventually(lambda: len(accepted) >= count + 2, 60, "jobs that two servers have")
        with Redis(port=old.port, db=1) as replica:
            assert replica.exists(f"lh:job:{accepted[count + 1]}")
    expected = segments_of(client.status(calm)["output"])
    for job_id in accepted:
        eventually(functools.partial(completed, client, job_id), 90, f"the end of {job_id}")
        assert segments_of(client.status(job_id)["output"]) == expected
    told = {id_: set[str]() for id_ in accepted}
    eventually(lambda: all(terminal_events(receiver, told).values()), 60, "every webhook")
    assert [len(ids) for ids in terminal_events(receiver, told).values()] == [1] * len(accepted)
    assert machine.pids() == pids, "nobody had to be started again"


def test_no_audio_goes_on_the_word_of_a_master_that_no_replica_confirms(
    machine: Machine, servers: Watched, receiver: Receiver, eventually: Eventually
) -> None:
    write_recording(receiver.folder / "talk.wav", 31)
    client = Client(f"{machine.url}/v2/longhand")
    eventually(servers.in_step, 60, "a master with a replica")
    blobs = machine.settings.data_path / "blobs"
    replica = next(server for server in servers.servers if server.port != servers.master_port())
    job_id = client.submit(job_input(receiver, "kept", prompt="slow:1000"))
    replica.signal(signal.SIGSTOP)
    try:
        eventually(functools.partial(completed, client, job_id), 60, "a job on the master alone")
        eventually(lambda: "not_confirmed" in logged(machine), 30, "a sweep that was put off")
        assert (blobs / job_id).exists()
    finally:
        replica.signal(signal.SIGCONT)
    eventually(lambda: not (blobs / job_id).exists(), 60, "the sweep")


def logged(machine: Machine) -> str:
    """What all its processes logged."""
    logs = (machine.settings.data_path / "logs").glob("*.log")
    return "".join(log.read_text(encoding="utf-8", errors="replace") for log in logs)


def completed(client: Client, job_id: str) -> bool:
    return bool(client.status(job_id)["status"] == "COMPLETED")


def terminal_events(receiver: Receiver, told: dict[str, set[str]]) -> dict[str, set[str]]:
    """Job -> ids of its terminal events; one may arrive twice after a failover, but under one id."""
    for headers, body in list(receiver.posts):
        event = headers["webhook-id"]
        for job_id, events in told.items():
            if job_id in event and b'"completed"' in body:
                events.add(event)
    return told
