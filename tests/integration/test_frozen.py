"""A host that freezes with work in its hands, for longer than its leases, and comes back too late."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from demo.server import listening
from tests.conftest import Eventually, Receiver, write_recording
from tests.fleet import LONG_S, PREFORK, Fleet, Host, fleet, settings_of

pytestmark = pytest.mark.timeout(300)

LEASE_MS = 3_000


@pytest.fixture(scope="module")
def hosts(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, eventually: Eventually
) -> Iterator[Fleet]:
    """Two hosts of workers that share a Redis and a place for audio."""
    folder = tmp_path_factory.mktemp("fleet")
    settings = settings_of(
        redis_url,
        6,
        folder,
        webhook_timeout_ms=2_000,
        webhook_schedule_ms=(200, 200, 400),
        lease_ms=LEASE_MS,
        heartbeat_ms=300,
        # What is frozen does not advance.
        stall_ms=200_000,
    )
    with fleet(settings, folder, (0, 0), eventually) as made:
        yield made


def in_hand(hosts: Fleet, job_id: str, unit: str, role: str, eventually: Eventually) -> tuple[Host, str]:
    """The host that has a unit in hand, and the fence of its lease."""
    found: tuple[Host, str] = eventually(lambda: hosts.holder(job_id, unit, role), LONG_S, f"{unit} in hand")
    return found


def stopped(host: Host, job_id: str, eventually: Eventually) -> None:
    """It wakes up, and finds that the work is another's."""
    eventually(lambda: host.said("lease_lost", job_id), LONG_S, "the end of the late attempt")


def opened(gate: Path) -> None:
    Path(f"{gate}.open").touch()


def test_a_late_chunk_is_not_written(hosts: Fleet, receiver: Receiver, eventually: Eventually) -> None:
    gate = receiver.folder / "gate"
    job_id = hosts.submit(receiver, "late-chunk", 31, f"gate:0:{gate}")
    eventually(gate.exists, LONG_S, "the last window of chunk 0")
    host, fence = in_hand(hosts, job_id, "0", "transcribe", eventually)
    other = next(each for each in hosts.hosts if each is not host)
    eventually(lambda: hosts.store.job(job_id).total, LONG_S, "the plan")  # type: ignore[union-attr]
    host.freeze("transcribe")
    # Nobody ends the job, so that it is the fence which keeps the result out.
    for each in hosts.hosts:
        each.freeze("io")
    eventually(lambda: hosts.store.result(job_id, 0), LONG_S, "chunk 0 of another host")
    eventually(lambda: other.said("chunk_done", job_id), LONG_S, "its word for it")
    opened(gate)
    host.thaw("transcribe")
    stopped(host, job_id, eventually)
    for each in hosts.hosts:
        each.thaw("io")
    hosts.ended_well(receiver, "late-chunk", job_id, eventually)
    assert hosts.fences(job_id)[0] == int(fence) + 1


def test_a_frozen_child_of_a_parent_that_is_awake_is_ended(
    hosts: Fleet, receiver: Receiver, eventually: Eventually
) -> None:
    gate = receiver.folder / "gate"
    job_id = hosts.submit(receiver, "frozen-child", 21, f"gate:0:{gate}")
    pid = int(eventually(lambda: gate.exists() and gate.read_text(), LONG_S, "a chunk in hand"))
    host, _ = in_hand(hosts, job_id, "0", "transcribe", eventually)
    host.freeze_one(pid)
    hosts.ended_well(receiver, "frozen-child", job_id, eventually)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), LONG_S, "its end")
    eventually(lambda: hosts.able(host), LONG_S, "a child in its place")


@dataclass(slots=True)
class Source:
    """Serves one file, of which the first to ask gets the second half only when `free` is set."""

    file: Path
    url: str = ""
    asked: int = 0
    free: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def serving(source: Source) -> Iterator[Source]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            source.asked += 1
            first, data = source.asked == 1, source.file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "audio/wav")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            if first:
                source.free.wait(LONG_S)
            with contextlib.suppress(OSError):
                self.wfile.write(data[len(data) // 2 :])

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with listening(Page) as url:
        source.url = f"{url}/talk.wav"
        try:
            yield source
        finally:
            source.free.set()


@pytest.mark.parametrize("meanwhile", ["goes on", "has ended and is swept"])
def test_a_late_ingest_plans_nothing(
    hosts: Fleet, receiver: Receiver, eventually: Eventually, meanwhile: str
) -> None:
    name = f"late-ingest-{meanwhile == 'goes on'}"
    gate, file = receiver.folder / "gate", receiver.folder / "talk.wav"
    write_recording(file, 31)
    blobs = Path(hosts.settings.blobs.removeprefix("file://"))
    with serving(Source(file)) as source:
        job_id = hosts.submit(receiver, name, 31, f"gate:0:{gate}", url=source.url)
        eventually(lambda: source.asked, LONG_S, "a download")
        host, fence = in_hand(hosts, job_id, "ingest", "io", eventually)
        host.freeze("io")
        eventually(gate.exists, LONG_S, "a chunk of another host's plan")
        eventually(lambda: hosts.store.job(job_id).total, LONG_S, "that plan")  # type: ignore[union-attr]
        chunks = hosts.store.chunks(job_id)
        if meanwhile != "goes on":
            opened(gate)
            eventually(lambda: hosts.completed(job_id), LONG_S, "the end of the job")
            eventually(lambda: not (blobs / job_id).exists(), LONG_S, "the sweep")
        source.free.set()
        host.thaw("io")
        stopped(host, job_id, eventually)
        assert hosts.store.chunks(job_id) == chunks
        opened(gate)
        hosts.ended_well(receiver, name, job_id, eventually)
    assert hosts.redis.hget(f"lh:job:{job_id}:leases", "ingest") == str(int(fence) + 1).encode()
    eventually(lambda: not (blobs / job_id).exists(), LONG_S, "the sweep of what came late")


def test_a_late_assembly_ends_nothing(hosts: Fleet, receiver: Receiver, eventually: Eventually) -> None:
    # So many words that to merge them takes long enough to be met at it.
    words, expected = "words:4000", None
    for number in range(8):
        name = f"late-assembly-{number}"
        job_id = hosts.submit(receiver, name, 31, words)
        if expected is None:
            eventually(partial(hosts.completed, job_id), LONG_S, "an undisturbed job")
            expected = hosts.segments(job_id)
            continue
        while not (found := hosts.holder(job_id, "assemble", "io")):
            assert not hosts.redis.hget(f"lh:job:{job_id}", "finished_ms")
            time.sleep(0.001)
        host, fence = found
        host.freeze("io")
        if hosts.store.job(job_id).terminal:  # type: ignore[union-attr]
            host.thaw("io")
            continue
        hosts.ended_well(receiver, name, job_id, eventually, expected)
        host.thaw("io")
        stopped(host, job_id, eventually)
        hosts.ended_well(receiver, name, job_id, eventually, expected)
        assert hosts.redis.hget(f"lh:job:{job_id}:leases", "assemble") == str(int(fence) + 1).encode()
        return
    pytest.fail("no assembly was met at work")


class Holding(list[int]):
    """Answers of a receiver: the first `completed` waits for `free`, and is an error; all else is well."""

    def __init__(self, receiver: Receiver) -> None:
        super().__init__([200])
        self.receiver = receiver
        self.held, self.free = threading.Event(), threading.Event()

    def pop(self, _place: Any = -1) -> int:
        if json.loads(self.receiver.posts[-1][1])["status"] != "completed" or self.held.is_set():
            return 200
        self.held.set()
        self.free.wait(LONG_S)
        return 500


def test_a_late_delivery_settles_nothing(hosts: Fleet, receiver: Receiver, eventually: Eventually) -> None:
    frozen, other = hosts.hosts
    other.kill("deliver")
    answers = receiver.answers = Holding(receiver)
    try:
        job_id = hosts.submit(receiver, "late-delivery", 11)
        eventually(answers.held.is_set, LONG_S, "its webhook in hand")
        frozen.freeze("deliver")
        other.start("deliver")
        (event,) = hosts.terminal_events(receiver, job_id)
        key = f"lh:delivery:{event}"
        eventually(lambda: hosts.redis.hget(key, "state") == b"delivered", LONG_S, "another's delivery")
        settled = hosts.redis.hgetall(key)
    finally:
        answers.free.set()
    frozen.thaw("deliver")
    eventually(
        lambda: any(line["state"] == "lost" for line in frozen.said("delivery_attempted", event)),
        LONG_S,
        "the end of the late attempt",
    )
    assert hosts.redis.hgetall(key) == settled
    hosts.ended_well(receiver, "late-delivery", job_id, eventually)
    assert receiver.statuses("late-delivery").count("completed") == 2
    eventually(lambda: hosts.able(other), LONG_S, "the other host")


@pytest.mark.parametrize("number", range(3))
def test_what_an_idle_worker_took_while_it_was_frozen_is_not_lost(
    hosts: Fleet, receiver: Receiver, eventually: Eventually, number: int
) -> None:
    frozen, other = hosts.hosts[number % 2], hosts.hosts[1 - number % 2]
    name = f"idle-{number}"
    frozen.freeze(*PREFORK)
    try:
        job_id = hosts.submit(receiver, name, 31)
    finally:
        frozen.kill(*PREFORK)
    hosts.ended_well(receiver, name, job_id, eventually)
    dead = [child for child in hosts.store.workers(job_id) if child not in names(other)]
    assert dead == []
    frozen.start(*PREFORK)
    eventually(lambda: hosts.able(frozen), LONG_S, "the host again")


def names(host: Host) -> set[str]:
    """Those of its transcribing processes."""
    return {line["worker"] for line in host.said("chunk_done")}
