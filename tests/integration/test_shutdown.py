"""A worker or an API that is told to end: it finishes what it has in hand, if that is done in time."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from dispatcher.client import Client
from dispatcher.local import Machine, Plan
from dispatcher.processes import ENDING_SIGNALS
from tasks.scripts import connect
from tasks.settings import Settings
from tasks.store import Store
from tests.conftest import Eventually, Receiver, emptied, write_recording

SOFT_SHUTDOWN_MS = 4_000


def machine_of(redis_url: str, tmp_path: Path, soft_shutdown_ms: int) -> Machine:
    """One transcribing process, on databases of its own; nothing that ends is started again."""
    settings = Settings(
        data_dir=tmp_path / "data",
        engine="tests.fake_engine:FakeEngine",
        model="multi",
        allow_private_addresses=True,
        soft_shutdown_ms=soft_shutdown_ms,
        heartbeat_ms=300,
    )
    return Machine(settings, Plan(port=0, workers=1, redis_url=emptied(redis_url, 12)))


@pytest.fixture
def machine(redis_url: str, tmp_path: Path) -> Iterator[Machine]:
    machine = machine_of(redis_url, tmp_path, SOFT_SHUTDOWN_MS)
    try:
        machine.start(within_s=60)
        yield machine
    finally:
        machine.stop()


def keep_busy(machine: Machine, receiver: Receiver, eventually: Eventually, prompt: str) -> None:
    """Give the worker a job, and wait until it has a chunk in hand."""
    write_recording(receiver.folder / "talk.wav", 31)
    arguments = {"initial_prompt": prompt}
    job_input = {"url": f"{receiver.url}/talk.wav", "chunk_seconds": 10, "transcribe_args": arguments}
    Client(f"{machine.url}/v2/longhand").submit(job_input)
    state = connect(machine.settings.state_url)
    eventually(lambda: state.keys("lh:job:*:partial"), what="a chunk in hand")


def end_busy_worker(machine: Machine, receiver: Receiver, eventually: Eventually, prompt: str) -> float:
    """Tell the worker to end once it has a chunk in hand; how long that took, s."""
    keep_busy(machine, receiver, eventually, prompt)
    began_s = time.monotonic()
    pid = machine.pids()["transcribe"]
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: "transcribe" not in machine.pids(), 30, "the end of the worker")
    return time.monotonic() - began_s


def test_what_can_be_finished_is(machine: Machine, receiver: Receiver, eventually: Eventually) -> None:
    # The rest of a chunk of 1.6 s.
    end_busy_worker(machine, receiver, eventually, "slow:400")
    state: Redis = connect(machine.settings.state_url)
    (key,) = state.keys("lh:job:*:results")
    assert state.hlen(key) >= 1
    assert state.zcard("lh:slots:transcribe") == 0


@pytest.mark.parametrize("prompt", ["slow:5000", "deaf:0:{folder}/mark"], ids=["Python", "native code"])
def test_what_cannot_goes_back(
    machine: Machine, receiver: Receiver, eventually: Eventually, prompt: str
) -> None:
    took_s = end_busy_worker(machine, receiver, eventually, prompt.format(folder=receiver.folder))
    assert SOFT_SHUTDOWN_MS / 1000 <= took_s < 15
    state: Redis = connect(machine.settings.state_url)
    assert state.keys("lh:job:*:results") == []
    # Its message is there for another worker.
    messages = connect(machine.settings.redis_url).lrange("transcribe", 0, -1)
    assert [message for message in messages if b'"redelivered": true' in message]
    # And so is the chunk: nobody waits for a lease to be over. It waits, or a reaper has handed it out again.
    (leases,) = state.keys("lh:job:*:leases")
    assert state.hget(leases, "0:owner") is None
    (pending,) = state.keys("lh:job:*:pending")
    given: Any = state.zrange("lh:leases:transcribe", 0, -1)
    waiting: Any = state.zrange(pending, 0, -1)
    assert b"0" in [*waiting, *(unit.rpartition(b"/")[2] for unit in given)]
    (job,) = Store(state, machine.settings).jobs(None, 1)
    assert not job.terminal


def test_a_machine_that_is_stopped_lets_its_workers_finish(
    redis_url: str, tmp_path: Path, receiver: Receiver, eventually: Eventually
) -> None:
    """As long as they say, and not for a time of its own: a chunk of 10 s fits into 15."""
    machine = machine_of(redis_url, tmp_path, 15_000)
    try:
        machine.start(within_s=60)
        keep_busy(machine, receiver, eventually, "slow:2500")
    finally:
        machine.stop()
    state: Redis = connect(machine.settings.state_url)
    assert len(state.keys("lh:job:*:results")) == 1


def test_an_api_that_ends_answers_who_has_connected(machine: Machine, eventually: Eventually) -> None:
    """Behind a proxy that asks another one next, a client notices nothing. One of ivrit's would give up."""
    address = "127.0.0.1", int(machine.url.rpartition(":")[2])
    with socket.create_connection(address, timeout=10) as connected:
        # Connections are accepted in order.
        assert Client(f"{machine.url}/v2/longhand").health()
        os.kill(machine.pids()["api"], signal.SIGTERM)

        def listens() -> bool:
            try:
                socket.create_connection(address, timeout=10).close()
            except ConnectionRefusedError:
                return False
            return True

        eventually(lambda: not listens(), what="an API that takes no connections any more")
        connected.sendall(b"GET /ping HTTP/1.1\r\nHost: longhand\r\n\r\n")
        assert connected.recv(1_000).startswith(b"HTTP/1.1 200")
    eventually(lambda: "api" not in machine.pids(), 30, "the end of the API")


def test_a_machine_that_is_stopped_leaves_its_owner_the_signals(redis_url: str, tmp_path: Path) -> None:
    """Ignored ones would be handed on to all that the owner starts later, which then cannot be ended."""
    handlers = [signal.getsignal(number) for number in ENDING_SIGNALS]
    machine = Machine(Settings(data_dir=tmp_path), Plan(port=0, redis_url=redis_url, roles=("api",)))
    try:
        machine.start()
    finally:
        machine.stop()
    assert [signal.getsignal(number) for number in ENDING_SIGNALS] == handlers
