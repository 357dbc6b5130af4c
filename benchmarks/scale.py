"""What a chunk costs Redis, and the leases of 200 workers at once: 100,000 chunks without their audio."""

import multiprocessing
import os
import tempfile
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import commands
from benchmarks.commands import cpu_s
from benchmarks.memory import state, submit
from tasks import endings, events
from tasks.chunks import Chunk
from tasks.job import Status
from tasks.leases import ASSEMBLE, INGEST, TRANSCRIBE, HandedOut, Lease, Leases
from tasks.scripts import Scripts, connect, text
from tasks.settings import Settings
from tasks.store import Store
from tasks.transcript import ChunkResult, Segment, result_to_bytes

WORKERS = 200
CHUNKS = int(os.environ.get("BENCH_CHUNKS", "100000"))
CHUNKS_PER_JOB = 100
PROCESSES = 2
# Jobs in work at a time.
OPEN_JOBS = 40
CHUNK_MS = 300_000
SLOW_US = 5_000
# An hour at 100 times real time; chunks of 300 s.
CHUNK_S_PER_GPU = 3.0


def measure() -> dict[str, object]:
    """Commands and CPU time of Redis per chunk; what a server of this speed could carry."""
    real, simulated = commands.measure(), _simulated()
    return {"real workers": real, f"{WORKERS} simulated workers": simulated}


@dataclass(slots=True)
class Worker:
    """One of many; it goes one step each time it is asked."""

    leases: Leases
    lease: Lease | None = None
    beaten: bool = False


@dataclass(slots=True)
class Share:
    """A process's part of the cluster: its workers, its jobs, the messages that it got."""

    store: Store
    settings: Settings
    workers: list[Worker]
    left: int
    messages: deque[HandedOut] = field(default_factory=deque)
    assembling: deque[str] = field(default_factory=deque)

    def run(self, jobs: int) -> None:
        """Until every job of all processes has ended."""
        ticked_s = slots_s = 0.0
        leases = self.workers[0].leases
        name = f"process-{os.getpid()}"
        while (counts := self.store.counts("longhand")).get(Status.SUCCEEDED, 0) < jobs:
            now_s = time.monotonic()
            if now_s - slots_s > self.settings.lease_ms / 4000:
                slots_s = now_s
                for number, worker in enumerate(self.workers):
                    worker.leases.open_slot(TRANSCRIBE, f"{name}-{number}")
            if now_s - ticked_s > self.settings.reap_ms / 1000:
                ticked_s = now_s
                if leases.be_the_reaper(name, 5_000):
                    self.assembling += leases.reap().assemble
                self._ring(leases)
            if self.left and counts.get(Status.RUNNING, 0) < OPEN_JOBS:
                self._begin(leases)
            moved = [self._step(worker) for worker in self.workers]
            while self.assembling:
                self._assemble(leases, self.assembling.popleft())
            if not any(moved):
                time.sleep(0.005)

    def _ring(self, leases: Leases) -> None:
        self.messages += leases.hand_out_chunks()

    def _begin(self, leases: Leases) -> None:
        """Submission and ingest of one job."""
        self.left -= 1
        job_id = submit(self.store, self.settings)
        lease = leases.claim(job_id, INGEST, INGEST)
        if not isinstance(lease, Lease):
            raise TypeError(lease.reason)
        for index in range(CHUNKS_PER_JOB):
            blob = f"{job_id}/{index:05d}-1.flac"
            start_ms = index * CHUNK_MS
            leases.add_chunk(lease, Chunk(index, start_ms, start_ms + CHUNK_MS, f"{index:064x}", blob))
            self._ring(leases)
        if leases.seal(lease, CHUNKS_PER_JOB, CHUNKS_PER_JOB * CHUNK_MS, "[]"):
            self.assembling.append(job_id)

    def _step(self, worker: Worker) -> bool:
        """Claim, then beat, then commit: what pipeline.transcribe_chunk does. False: there was no work."""
        if worker.lease is None:
            return self._claim(worker)
        if not worker.beaten:
            worker.beaten = True
            worker.leases.beat(worker.lease, CHUNK_MS // 2)
            return True
        lease, worker.lease = worker.lease, None
        index = int(lease.unit)
        said = (Segment(f"chunk {index}", index * CHUNK_MS, index * CHUNK_MS + 1_000),)
        complete, _ = worker.leases.commit(
            lease,
            result_to_bytes(ChunkResult(index, said, "he", CHUNK_MS)),
            *("he", CHUNK_MS),
            lambda progress, now_ms: events.progressed(lease.job_id, "recording", now_ms, progress),
        )
        if complete:
            self.assembling.append(lease.job_id)
        self._ring(worker.leases)
        return True

    def _claim(self, worker: Worker) -> bool:
        if not self.messages:
            return False
        chunk = self.messages.popleft()
        lease = worker.leases.claim(chunk.job_id, TRANSCRIBE, str(chunk.index))
        if not isinstance(lease, Lease):
            return True
        worker.lease, worker.beaten = lease, False
        job = self.store.job(chunk.job_id)
        self.store.chunk(chunk.job_id, chunk.index)
        if job and job.announced_ms is None:
            self.store.announce(job.id, events.transcribing(job.id, job.recording_id, self.store.now_ms()))
        return True

    def _assemble(self, leases: Leases, job_id: str) -> None:
        lease = leases.claim(job_id, ASSEMBLE, ASSEMBLE)
        job = self.store.job(job_id)
        if not isinstance(lease, Lease) or job is None or job.request is None:
            return
        transcript = self.store.transcript(job)
        ending = endings.succeeded(job, job.request, transcript, "a model", self.store.now_ms())
        self.store.finish(job_id, ending, stage=ASSEMBLE, fence=lease.fence)


def _share(settings: Settings, jobs: int, all_jobs: int, number: int) -> None:
    """One process of the simulation."""
    client = connect(settings.state_url)
    workers = [
        Worker(Leases(client, settings, f"worker-{number}-{each}@host/1"))
        for each in range(WORKERS // PROCESSES)
    ]
    Share(Store(client, settings), settings, workers, jobs).run(all_jobs)


def _simulated() -> dict[str, object]:
    jobs = CHUNKS // CHUNKS_PER_JOB // PROCESSES * PROCESSES
    with tempfile.TemporaryDirectory() as name, state(Path(name)) as (client, kept):
        # Finished jobs go soon, or they fill the memory of a small machine.
        settings = kept.model_copy(update={"retention_ms": 30_000})
        client.config_set("slowlog-log-slower-than", SLOW_US)
        client.config_resetstat()
        before_s, began_s = cpu_s(client), time.monotonic()
        spawn = multiprocessing.get_context("spawn")
        processes = [
            spawn.Process(target=_share, args=(settings, jobs // PROCESSES, jobs, number))
            for number in range(PROCESSES)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise RuntimeError("a process of the simulation failed")
        return _figures(client, jobs, cpu_s(client) - before_s, time.monotonic() - began_s)


def _figures(client: Any, jobs: int, spent_s: float, took_s: float) -> dict[str, object]:
    chunks = jobs * CHUNKS_PER_JOB
    calls = {name[8:]: int(found["calls"]) for name, found in client.info("commandstats").items()}
    scripts = calls["evalsha"]
    slow = client.slowlog_get(128)
    shas = {script.sha: name for name, script in Scripts(client)._scripts.items()}
    return {
        "chunks": chunks,
        "jobs": jobs,
        "chunks/s": round(chunks / took_s, 1),
        # One of them is the heartbeat.
        "scripts per chunk": round(scripts / chunks, 2),
        "commands per chunk, those inside scripts too": round(sum(calls.values()) / chunks, 1),
        "Redis CPU per chunk, ms": round(1000 * spent_s / chunks, 3),
        "Redis CPU, share of one core": round(spent_s / took_s, 2),
        "chunks/s that one core of Redis could carry": round(chunks / spent_s),
        "GPUs, at a chunk each 3 s": round(CHUNK_S_PER_GPU * chunks / spent_s),
        **_latency(client),
        f"scripts slower than {SLOW_US // 1000} ms": int(client.slowlog_len()),
        "slowest script, ms": round(max((entry["duration"] for entry in slow), default=0) / 1000, 1),
        "slow scripts": dict(Counter(_script_of(entry["command"], shas) for entry in slow)),
        "memory at its peak, MB": round(int(client.info("memory")["used_memory_peak"]) / 1e6, 1),
    }


def _script_of(command: bytes, shas: dict[str, str]) -> str:
    # The rest may be no text: a result is compressed.
    words = [word.decode() for word in command.split(b" ", 2)[:2]]
    return shas.get(words[-1], words[0])


def _latency(client: Any) -> dict[str, float]:
    """Percentiles of how long a script keeps the server, from its histogram: a bucket is twice the last."""
    answer = client.execute_command("LATENCY", "HISTOGRAM", "evalsha")
    found = answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
    (about,) = found.values()
    about = about if isinstance(about, dict) else dict(zip(about[::2], about[1::2], strict=True))
    named = {text(name): value for name, value in about.items()}
    buckets = named["histogram_usec"]
    if not isinstance(buckets, dict):
        buckets = dict(zip(buckets[::2], buckets[1::2], strict=True))
    total = int(named["calls"])
    figures = {}
    for label, part in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
        below = next(us for us, count in sorted(buckets.items()) if count >= part * total)
        figures[f"a script, {label} below, ms"] = round(int(below) / 1000, 3)
    return figures
