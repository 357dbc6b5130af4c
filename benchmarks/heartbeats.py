"""What Redis is asked whether or not work is done: beats, looks at children, who reaps, slots, Celery's own.

The real scripts, one call after the other by one client, beside the keys of a thousand processes that have a
chunk in hand each. A busy Redis takes several clients' commands at a time, and needs less for each.
"""

import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.commands import cpu_s, idle_share
from benchmarks.memory import state, submit
from tasks.chunks import Chunk
from tasks.leases import INGEST, TRANSCRIBE, Lease, Leases
from tasks.presence import Presence, Report
from tasks.settings import Settings
from tasks.store import Store

PROCESSES = 1_000
CHUNKS_PER_JOB = 20
CHUNK_MS = 300_000
CALLS = 20_000
# Of those that wait for something, if only for a moment.
WAITS = 2_000
# A queue of Celery's, and those of its other priorities.
QUEUES = ("transcribe", "transcribe\x06\x163", "transcribe\x06\x166", "transcribe\x06\x169")
# As long as what a worker says of itself.
CELERY_BEAT = "." * 700


@dataclass(frozen=True, slots=True)
class Process:
    """One that has a chunk in hand."""

    name: str
    leases: Leases
    lease: Lease


def measure() -> dict[str, object]:
    """Of each kind of call Redis' CPU time, and of it that of the command itself; each write is synced."""
    with tempfile.TemporaryDirectory() as name, state(Path(name)) as (client, kept):
        settings = kept.model_copy(update={"lease_ms": 3_600_000})
        processes, presence = _at_work(client, settings), Presence(client, settings)
        processes[0].leases.be_the_reaper("another", settings.lease_ms)
        kinds: dict[str, Callable[[Process], object]] = {
            "slot": lambda one: one.leases.open_slot(TRANSCRIBE, one.name),
            "report of a worker": lambda one: presence.report(
                "transcribe", one.name, Report(1, started=True)
            ),
            "beat": lambda one: one.leases.beat(one.lease, 1_000, (4, 7)),
            "look, at one child": _look,
            "reign, while another does": lambda one: one.leases.be_the_reaper(one.name, 5_000),
            "PUBLISH of Celery, nobody listens": lambda _: client.publish(
                "/2.celeryev/worker.heartbeat", CELERY_BEAT
            ),
            "BRPOP of Celery, nothing comes": lambda _: client.brpop(QUEUES, timeout=0.001),
        }
        return {
            "processes at work": len(processes),
            "idle Redis CPU, share of one core": round(idle_share(client), 4),
            "microseconds a call": {
                kind: _cost(client, call, processes, WAITS if "BRPOP" in kind else CALLS)
                for kind, call in kinds.items()
            },
        }


def _at_work(client: Any, settings: Settings) -> list[Process]:
    """All processes, over a few jobs."""
    store, found = Store(client, settings), list[Process]()
    while len(found) < PROCESSES:
        job_id = submit(store, settings)
        ingest = _claimed(Leases(client, settings, "io-1"), job_id, INGEST, INGEST)
        for index in range(CHUNKS_PER_JOB):
            name = f"host-{len(found) + 1}"
            leases = Leases(client, settings, name)
            start_ms, blob = index * CHUNK_MS, f"{job_id}/{index:05d}-1.flac"
            leases.add_chunk(ingest, Chunk(index, start_ms, start_ms + CHUNK_MS, f"{index:064x}", blob))
            found.append(Process(name, leases, _claimed(leases, job_id, TRANSCRIBE, str(index))))
    return found


def _claimed(leases: Leases, job_id: str, stage: str, unit: str) -> Lease:
    lease = leases.claim(job_id, stage, unit)
    if not isinstance(lease, Lease):
        raise TypeError(lease.reason)
    return lease


def _look(one: Process) -> None:
    (state_ms,) = one.leases.look([(one.lease.job_id, TRANSCRIBE, one.lease.unit, one.name)])
    if state_ms <= 0:
        raise RuntimeError("a child has no lease")


def _cost(
    client: Any, call: Callable[[Process], object], processes: list[Process], count: int
) -> dict[str, float]:
    turn = itertools.cycle(processes)
    # The script is known from the first one on.
    call(next(turn))
    client.config_resetstat()
    before_s = cpu_s(client)
    for process in itertools.islice(turn, count):
        call(process)
    spent_s = cpu_s(client) - before_s
    stats = client.info("commandstats")
    itself_us = sum(
        stats.get(f"cmdstat_{name}", {"usec": 0})["usec"] for name in ("evalsha", "publish", "brpop")
    )
    return {"Redis CPU": round(1e6 * spent_s / count, 1), "the command itself": round(itself_us / count, 1)}
