"""A job that ends while a process works on it: the process stops within seconds, whatever it is in."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.local import Plan
from tasks.errors import LeaseLost
from tasks.heartbeat import NUDGE, Heartbeat, listen
from tasks.presence import Presence
from tasks.scripts import connect
from tests.bench import Bench
from tests.conftest import Eventually, Receiver, Stack, emptied, fake_settings, stack_of

# Twenty times what is promised: a busy machine is slow. Without its parent a child would never stop.
SOON_S = 60


@pytest.fixture(scope="module")
def patient(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One transcribing process whose own heartbeat tells it nothing for the length of a test."""
    folder = tmp_path_factory.mktemp("patient")
    settings = fake_settings(
        data_dir=folder,
        lease_ms=1_200_000,
        heartbeat_ms=600_000,
        stall_ms=1_200_000,
        source_timeout_ms=1_200_000,
        progress_interval_ms=0,
        progress_step=0.0,
    )
    with stack_of(settings, Plan(port=0, workers=1, redis_url=emptied(redis_url, 14))) as running:
        yield running


def submit_stuck(stack: Stack, receiver: Receiver, eventually: Eventually, kind: str, **policy: int) -> Any:
    """A job of which chunk 0 will not return; its id and its process."""
    marker = receiver.folder / kind
    job_input = stack.input(receiver, kind, 21, f"{kind}:0:{marker}")
    if policy:
        answer = stack.client._call("POST", "run", {"input": job_input, "policy": policy})
        job_id = answer["id"]
    else:
        job_id = stack.client.submit(job_input)
    eventually(lambda: marker.exists() and marker.read_text(), SOON_S, "the chunk in hand")
    return job_id, Path("/proc") / marker.read_text()


def charged(stack: Stack, process: Path) -> list[bool]:
    """Of each time that its parent told of its death, whether that counts against what it had in hand."""
    lines = (stack.folder / "logs" / "transcribe.log").read_text(encoding="utf-8").splitlines()
    died = [json.loads(line) for line in lines if '"child_died"' in line and line.endswith("}")]
    return [line["charged"] for line in died if line["pid"] == int(process.name)]


@pytest.mark.parametrize("kind", ["deaf", "grip", "hang"])
def test_a_process_that_does_not_return_is_ended(
    patient: Stack, receiver: Receiver, eventually: Eventually, kind: str
) -> None:
    job_id, process = submit_stuck(patient, receiver, eventually, kind)
    assert patient.client.cancel(job_id)["status"] == "CANCELLED"
    canceled_s = time.monotonic()
    eventually(lambda: not process.exists(), SOON_S, "the end of the process")
    assert time.monotonic() - canceled_s >= 1.0, "it has some grace"
    # Nothing of it runs, waits, or is told of, except its end.
    row = patient.redis.hgetall(f"lh:job:{job_id}")
    assert int(row.get(b"done_ms", b"0")) == 0
    assert patient.redis.zcard("lh:leases:transcribe") == 0
    assert not patient.redis.exists(f"lh:job:{job_id}:results", f"lh:job:{job_id}:dead")
    eventually(lambda: receiver.statuses(kind)[-1:] == ["transcription_failed"])
    assert eventually(lambda: charged(patient, process), SOON_S, "word of it") == [False]
    # Its place is taken, and the next job does not notice.
    other = patient.client.submit(patient.input(receiver, f"after-{kind}", 11))
    ended = eventually(lambda: patient.ended(other), SOON_S)
    assert ended["status"] == "COMPLETED"
    assert receiver.statuses(kind).count("transcription_failed") == 1
    assert receiver.statuses(kind)[-1] == "transcription_failed"


def test_a_process_that_is_nudged_looks_at_once(bench: Bench, eventually: Eventually) -> None:
    ingest = bench.planned()
    before = signal.getsignal(NUDGE)
    listen()
    try:
        rare = bench.settings.model_copy(update={"heartbeat_ms": 600_000, "lease_ms": 1_200_000})
        with Heartbeat(bench.leases, ingest, rare) as heartbeat:
            bench.finish()
            heartbeat.advance()  # nobody has told it
            os.kill(os.getpid(), NUDGE)
            eventually(lambda: stopped(heartbeat), what="the news")
    finally:
        signal.signal(NUDGE, before)


def stopped(heartbeat: Heartbeat) -> bool:
    try:
        heartbeat.advance()
    except LeaseLost:
        return True
    return False


def able(stack: Stack, stage: str) -> set[str]:
    return Presence(stack.redis, stack.machine.settings).able(stage)


def test_a_process_that_does_return_is_left_alone(
    patient: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    job_input = patient.input(receiver, "slow", 31, "slow:700")
    job_id = patient.client.submit(job_input)
    eventually(lambda: patient.redis.exists(f"lh:job:{job_id}:partial"), SOON_S, "a chunk in hand")
    slots = able(patient, "transcribe")
    patient.client.cancel(job_id)
    other = patient.client.submit(patient.input(receiver, "next", 11))
    assert eventually(lambda: patient.ended(other), SOON_S)["status"] == "COMPLETED"
    assert able(patient, "transcribe") == slots, "the model stays loaded"
    assert not patient.redis.exists(f"lh:job:{job_id}:results")


def test_a_download_that_waits_for_its_host_is_broken_off(patient: Stack, eventually: Eventually) -> None:
    with socket.create_server(("127.0.0.1", 0)) as host:
        host.settimeout(SOON_S)
        job_id = patient.client.submit({"url": f"http://127.0.0.1:{host.getsockname()[1]}/a.wav"})
        connection, _ = host.accept()
        with connection:
            connection.settimeout(SOON_S)
            assert connection.recv(65_536).startswith(b"GET ")
            patient.client.cancel(job_id)
            # It ends with the process that waits.
            assert connection.recv(65_536) == b""
    assert patient.redis.zcard("lh:leases:ingest") == 0
    eventually(lambda: len(able(patient, "ingest")) == 2, SOON_S, "another process in its place")


@pytest.mark.parametrize(
    ("policy", "status"), [({"executionTimeout": 5_000}, "FAILED"), ({"ttl": 10_000}, "TIMED_OUT")]
)
def test_a_deadline_ends_it_the_same_way(
    patient: Stack, receiver: Receiver, eventually: Eventually, policy: dict[str, int], status: str
) -> None:
    job_id, process = submit_stuck(patient, receiver, eventually, "grip", **policy)
    eventually(lambda: not process.exists(), SOON_S, "the end of the process")
    assert eventually(lambda: charged(patient, process), SOON_S, "word of it") == [False]
    state = connect(patient.machine.settings.state_url).hget(f"lh:job:{job_id}", "status")
    assert state in (b"failed", b"expired")
    assert patient.redis.zcard("lh:leases:transcribe") == 0
    assert (state == b"expired") == (status == "TIMED_OUT")
