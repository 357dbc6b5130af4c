"""Webhooks to many receivers at once, some of them dead or slow, and to healthy ones as fast as it goes."""

import json
import os
import signal
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from benchmarks.receivers import Receivers, receivers
from benchmarks.recording import SAMPLE, serving
from dispatcher.client import Client
from dispatcher.local import Machine, Plan
from tasks import endings
from tasks.app import Doorbells, create_app
from tasks.guard import origin
from tasks.job import NewJob, Request
from tasks.leases import Leases
from tasks.scripts import connect
from tasks.settings import Settings
from tasks.store import Store
from tasks.transcript import Segment, Transcript

EVENTS = 1_000
RATE_EVENTS = 4_000
ROUNDS = 3
SECRET = "of the benchmark"  # noqa: S105
REQUEST = Request("https://a.test/x", "m")
# About a minute of speech: 1.3 KB of JSON.
TRANSCRIPT = Transcript(
    tuple(Segment("שלום לכולם", 5_000 * at, 5_000 * at + 4_000) for at in range(12)), 60_000, "he"
)


@dataclass(slots=True)
class Desk:
    """What ends jobs, as workers do: the terminal event is written, and its receiver rung for."""

    machine: Machine
    store: Store
    bells: Doorbells

    def create(self, urls: list[str], count: int) -> list[str]:
        """Jobs that nobody works on, one receiver after the other."""
        ids = []
        for url in islice(cycle(urls), count):
            job_id = f"{uuid.uuid4()}-u1"
            new = NewJob(job_id, "longhand", "us", None, 600_000, 0, webhook_url=url, receiver=origin(url))
            self.store.create(new)
            ids.append(job_id)
        return ids

    def end(self, job_id: str) -> None:
        job = self.store.job(job_id)
        assert job is not None
        ending = endings.succeeded(job, REQUEST, TRANSCRIPT, "m", self.store.now_ms())
        done, rung = self.store.finish(job_id, ending)
        assert done
        self.bells.deliver(*rung)


@contextmanager
def desk(folder: Path, **plan: object) -> Iterator[Desk]:
    settings = Settings.from_env(
        data_dir=folder,
        allow_private_addresses=True,
        api_keys={},
        webhook_secret=SECRET,
        durable_accept=False,
    )
    machine = Machine(settings, Plan(port=0, **plan))  # type: ignore[arg-type]
    try:
        machine.start(within_s=60)
        client = connect(machine.settings.state_url)
        store = Store(client, machine.settings)
        while not store.slots("deliver")[0]:
            time.sleep(0.1)
        yield Desk(machine, store, Doorbells(create_app(machine.settings), Leases(client, machine.settings)))
    finally:
        machine.stop()


def measure() -> dict[str, object]:
    """The figures of all three parts."""
    return {
        f"{EVENTS} events, 50 receivers": _mixed(),
        f"{RATE_EVENTS} events, 30 healthy receivers": _rate(),
        "a transcription while its receiver and 20 others are bad": _beside(),
    }


def _mixed() -> dict[str, float]:
    """How long the events to the healthy took from the change they report to their arrival, s."""
    with (
        tempfile.TemporaryDirectory() as folder,
        receivers(Path(folder) / "log", healthy=30, slow=10, dead=10) as them,
        desk(Path(folder), roles=("deliver",)) as writing,
    ):
        urls = [url for kind in ("dead", "slow", "healthy") for url in them.urls(kind)]
        ended_s: dict[str, float] = {}
        for job_id in writing.create(urls, EVENTS):
            ended_s[job_id] = time.time()
            writing.end(job_id)
        healthy = set(them.ports["healthy"])
        expected = EVENTS * len(healthy) // len(urls)
        _until(lambda: len(_arrivals(them, healthy)) >= expected, 120)
        took = sorted(at - ended_s[job_id] for job_id, at in _arrivals(them, healthy))
    return {
        "to the healthy": len(took),
        "median, s": round(statistics.median(took), 3),
        "p99, s": round(took[int(len(took) * 0.99)], 3),
        "the last, s": round(took[-1], 3),
        "writing the events, s": round(max(ended_s.values()) - min(ended_s.values()), 2),
    }


def _rate() -> dict[str, float]:
    """Deliveries a second, one worker, with everything due before it starts: medians over rounds."""
    rounds = [_round() for _ in range(ROUNDS)]
    rates, busy = [rate for rate, _ in rounds], [cores for _, cores in rounds]
    return {
        "deliveries a second": round(statistics.median(rates), 1),
        "least of the rounds": round(min(rates), 1),
        "cores used by the worker": round(statistics.median(busy), 2),
    }


def _round() -> tuple[float, float]:
    """Deliveries a second, and cores that the worker used."""
    with (
        tempfile.TemporaryDirectory() as folder,
        receivers(Path(folder) / "log", healthy=30) as them,
        desk(Path(folder), roles=("deliver",)) as writing,
    ):
        pid = writing.machine.pids()["deliver"]
        os.kill(pid, signal.SIGSTOP)
        for job_id in writing.create(them.urls("healthy"), RATE_EVENTS):
            writing.end(job_id)
        before_s = _cpu_s(pid)
        os.kill(pid, signal.SIGCONT)
        every = set(them.ports["healthy"])
        _until(lambda: len(_arrivals(them, every)) >= RATE_EVENTS, 120)
        at = sorted(at for _, at in _arrivals(them, every))
        took_s = at[-1] - at[0]
        return (len(at) - 1) / took_s, (_cpu_s(pid) - before_s) / took_s


def _beside() -> dict[str, float]:
    """Run time of a job whose receiver is dead, while others are tried, against one without a webhook."""
    bad, quiet = [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(SAMPLE) as source,
        receivers(Path(folder) / "log", slow=10, dead=11) as them,
        desk(Path(folder), workers=1) as writing,
    ):
        client = Client(f"{writing.machine.url}/v2/longhand")
        for job_id in writing.create(them.urls("slow") + them.urls("dead")[1:], 200):
            writing.end(job_id)
        for _ in range(ROUNDS):
            bad.append(_run_ms(client, {"url": source, "webhook_url": them.urls("dead")[0]}))
            quiet.append(_run_ms(client, {"url": source}))
    return {
        "with a dead receiver, ms": statistics.median(bad),
        "without a webhook, ms": statistics.median(quiet),
        "ratio": round(statistics.median(bad) / statistics.median(quiet), 3),
    }


def _run_ms(client: Client, job_input: dict[str, object]) -> int:
    job_id = client.submit(job_input)
    for _ in client.progress(job_id):
        pass
    shown = client.status(job_id)
    assert shown["status"] == "COMPLETED", shown
    return int(shown["executionTime"])


def _arrivals(them: Receivers, ports: set[int]) -> list[tuple[str, float]]:
    """Job and time of each first arrival at one of the ports."""
    found: dict[str, float] = {}
    for line in them.arrived():
        if line["port"] in ports:
            found.setdefault(json.loads(line["body"])["job_id"], line["at"])
    return list(found.items())


def _until(happened: Callable[[], bool], within_s: float) -> None:
    deadline_s = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline_s, "it takes too long"
        time.sleep(0.5)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
