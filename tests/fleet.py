"""Several hosts of workers in front of one Redis, each of which may freeze, die and be started again."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis

from dispatcher.client import Client, segments_of
from dispatcher.local import port_of
from dispatcher.processes import Process, end_all
from tasks.presence import Presence
from tasks.roles import worker_name
from tasks.scripts import connect
from tasks.settings import Settings, child_environment
from tasks.store import Store
from tests.conftest import SECRET, Eventually, Receiver, emptied, fake_settings, write_recording

ROOT = Path(__file__).parents[1]
PREFORK = ("transcribe", "io")
ROLES = (*PREFORK, "deliver")
# A busy machine is slow.
LONG_S = 90


def children_of(pid: int) -> list[int]:
    """The processes that a process has started, those of its threads too."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


@contextlib.contextmanager
def worker_process(
    settings: Settings, log: Path, *python: str, concurrency: int = 1
) -> Iterator[subprocess.Popen[bytes]]:
    """A transcribing worker beside a stack, started by Python's arguments, if not by `-m tasks.worker`."""
    started_by = python or ("-m", "tasks.worker")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *started_by, "transcribe", "--concurrency", str(concurrency)],
            env=child_environment(settings) | {"TMPDIR": str(log.parent), "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass(slots=True)
class Host:
    """One process of each role, with its children; `shift_s` is how far its clock is off."""

    name: str
    folder: Path
    settings: Settings
    shift_s: int = 0
    processes: dict[str, Process] = field(default_factory=dict)

    def start(self, *roles: str) -> None:
        """Anew, where it runs or has run already."""
        self.folder.mkdir(parents=True, exist_ok=True)
        env = child_environment(self.settings) | {"TMPDIR": str(self.folder)}
        if self.shift_s:
            shifted = Path(__file__).parent / "shifted"
            env |= {"PYTHONPATH": f"{shifted}:{Path(__file__).parent.parent}", "SHIFT_S": str(self.shift_s)}
        for role in roles or ROLES:
            argv = ["tasks.worker", role, *(("--concurrency", "1") if role == "transcribe" else ())]
            self.processes[role] = Process(role, argv, env, self.folder / f"{role}.log")
            self.processes[role].start(time.monotonic())

    def pid(self, role: str) -> int:
        process = self.processes[role]
        assert process.popen
        assert not process.ended, process.last_lines(20)
        return process.popen.pid

    def family(self, role: str) -> list[int]:
        """A worker's parent, and its children."""
        parent = self.pid(role)
        return [parent, *children_of(parent)]

    def freeze_one(self, pid: int) -> None:
        """One of its children."""
        assert any(pid in self.family(role) for role in PREFORK)
        os.kill(pid, signal.SIGSTOP)

    def freeze(self, *roles: str) -> None:
        """All of it: a parent that is awake ends a child that is frozen."""
        self._signal(signal.SIGSTOP, roles)

    def thaw(self, *roles: str) -> None:
        self._signal(signal.SIGCONT, roles)

    def end(self, *roles: str) -> None:
        """Tell workers to end, as a rolling restart does."""
        for role in roles or ROLES:
            os.kill(self.pid(role), signal.SIGTERM)

    def ended(self, role: str) -> bool:
        return self.processes[role].ended

    def kill(self, *roles: str) -> None:
        for role in roles or ROLES:
            self.processes[role].kill()

    def _signal(self, number: signal.Signals, roles: tuple[str, ...]) -> None:
        for role in roles:
            for pid in self.family(role):
                os.kill(pid, number)

    def said(self, event: str, job_id: str = "") -> list[dict[str, Any]]:
        """Its log lines of one event, about one job or any."""
        found = []
        for file in self.folder.glob("*.log"):
            for line in file.read_text(errors="replace").splitlines():
                if f'"{event}"' in line and job_id in line:
                    with contextlib.suppress(json.JSONDecodeError):
                        found.append(json.loads(line))
        return [line for line in found if line.get("event") == event]


@dataclass(slots=True)
class Fleet:
    """An API and hosts of workers."""

    settings: Settings
    client: Client
    redis: Any
    store: Store
    hosts: list[Host]
    references: dict[int, Any] = field(default_factory=dict)

    def able(self, host: Host) -> bool:
        """Whether every role of a host can work, as its processes say themselves."""
        for role, stage in (("transcribe", "transcribe"), ("io", "ingest"), ("deliver", "deliver")):
            names = {worker_name(pid) for pid in host.family(role)}
            if not names & Presence(self.redis, self.settings).able(stage):
                return False
        return True

    def submit(self, receiver: Receiver, name: str, seconds: int, prompt: str = "", **fields: Any) -> str:
        """A job of chunks of ten seconds."""
        write_recording(receiver.folder / f"{name}.wav", seconds)
        return self.client.submit(
            {
                "url": f"{receiver.url}/{name}.wav",
                "chunk_seconds": 10,
                "transcribe_args": {"initial_prompt": prompt} if prompt else {},
                "webhook_url": f"{receiver.url}/hook",
                "recording_id": name,
                **fields,
            }
        )

    def holder(self, job_id: str, unit: str, role: str) -> tuple[Host, str] | None:
        """The host whose child has a unit in hand, and the fence of its lease."""
        owner, fence = self.redis.hmget(f"lh:job:{job_id}:leases", f"{unit}:owner", unit)
        if not owner:
            return None
        pid = int(owner.decode().partition("/")[0].rpartition("-")[2])
        return next((host, fence.decode()) for host in self.hosts if pid in host.family(role))

    def fences(self, job_id: str) -> list[int]:
        """How often each chunk of a job was started."""
        total = self.redis.hlen(f"lh:job:{job_id}:chunks")
        return [int(self.redis.hget(f"lh:job:{job_id}:leases", index)) for index in range(total)]

    def completed(self, job_id: str) -> bool:
        status = self.client.status(job_id)["status"]
        assert status in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED"), self.client.status(job_id)
        return bool(status == "COMPLETED")

    def segments(self, job_id: str) -> Any:
        return segments_of(self.client.status(job_id)["output"])

    def reference(self, receiver: Receiver, seconds: int, eventually: Eventually) -> Any:
        """The segments of a recording of this length whose job nothing disturbs."""
        if seconds not in self.references:
            job_id = self.submit(receiver, f"calm-{seconds}", seconds)
            eventually(lambda: self.completed(job_id), LONG_S, "an undisturbed job")
            self.references[seconds] = self.segments(job_id)
        return self.references[seconds]

    def ended_well(
        self, receiver: Receiver, name: str, job_id: str, eventually: Eventually, expected: Any = None
    ) -> None:
        """As if nothing had happened: the same transcript, one terminal event, one commit a chunk."""
        eventually(lambda: self.completed(job_id), LONG_S, "the end of the job")
        job = self.store.job(job_id)
        assert job
        seconds = round((job.duration_ms or 0) / 1000)
        said = self.segments(job_id)
        expected = expected or self.reference(receiver, seconds, eventually)
        odd = [(is_, was) for is_, was in zip(said, expected, strict=False) if is_ != was]
        assert said == expected, f"{len(said)} segments for {len(expected)}, of which differ: {odd[:2]}"
        eventually(lambda: "completed" in receiver.statuses(name), LONG_S, "its webhook")
        assert len(self.terminal_events(receiver, job_id)) == 1
        commits = [line["chunk"] for host in self.hosts for line in host.said("chunk_done", job_id)]
        assert sorted(commits) == list(range(len(self.fences(job_id))))
        assert sum(len(host.said("job_succeeded", job_id)) for host in self.hosts) == 1

    def terminal_events(self, receiver: Receiver, job_id: str) -> set[str]:
        """The ids of the terminal events that have arrived."""
        told = [(headers["webhook-id"], json.loads(body)) for headers, body in receiver.posts]
        return {id_ for id_, body in told if body["job_id"] == job_id and body["status"] != "transcribing"}


def settings_of(redis_url: str, database: int, folder: Path, **changes: Any) -> Settings:
    """Settings with short times, over an empty database of the session's Redis and the next."""
    usual: dict[str, Any] = {
        "redis_url": emptied(redis_url, database),
        "data_dir": folder,
        "webhook_secret": SECRET,
        "dispatch_ms": 3_000,
        "attempt_delay_ms": 200,
    }
    return fake_settings(**(usual | changes))


@contextlib.contextmanager
def fleet(
    settings: Settings, folder: Path, shifts_s: tuple[int, ...], eventually: Callable[..., Any]
) -> Iterator[Fleet]:
    """An API, and a host of workers for each shift of its clock; all is ready."""
    port = port_of("127.0.0.1", 0)
    argv = ["dispatcher.app", "--host", "127.0.0.1", "--port", str(port)]
    api = Process("api", argv, child_environment(settings), folder / "api.log")
    hosts = [Host(f"host-{n}", folder / f"host-{n}", settings, shift) for n, shift in enumerate(shifts_s)]
    state: Redis = connect(settings.state_url)
    url = f"http://127.0.0.1:{port}/v2/longhand"
    made = Fleet(settings, Client(url), state, Store(state, settings), hosts)
    try:
        api.start(time.monotonic())
        for host in hosts:
            host.start()
        eventually(lambda: all(made.able(host) for host in hosts), LONG_S, "the workers")
        eventually(lambda: _listens(made.client), LONG_S, "the API")
        yield made
    finally:
        for host in hosts:
            host.kill(*host.processes)
        end_all([api], 5)
        state.close()


def _listens(client: Client) -> bool:
    with contextlib.suppress(Exception):
        client.health()
        return True
    return False
