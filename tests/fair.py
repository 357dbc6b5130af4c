"""Workers that transcribe in simulated time, over the real state in a real Redis."""

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tasks.chunks import Chunk
from tasks.job import Options
from tasks.leases import INGEST, TRANSCRIBE, HandedOut, Lease, Leases
from tests.bench import HEBREW, NEW, REQUEST, Bench, report, result

# Audio of a chunk, and so, at one worker's speed, the unit of simulated time.
CHUNK_MS = 300_000
FIRST_CHUNKS_MS = (60_000, 120_000)
TEN_HOURS_MS = 36_000_000
TWO_MINUTES_MS = 120_000
# A plan is written so far ahead of what is handed out, as an ingest that is faster than the workers does.
AHEAD = 20


@dataclass(slots=True)
class Work:
    """A job, and how far its plan is written."""

    account: str
    low: bool
    left_ms: int
    lengths: Iterator[int]
    submitted_ms: int
    ingest: Lease
    planned: int = 0
    end_ms: int = 0
    handed: int = 0


@dataclass(slots=True, repr=False)
class Cluster:
    """Workers of one speed: a second of audio takes one a second of the simulated clock.

    Messages wait in one list, as in the broker; a worker that is done fetches the next.
    """

    bench: Bench
    workers: int
    # How far a chunk's end may lie from its nominal place; 0: all are of one length.
    search_ms: int = 10_000
    seed: int = 7
    now_ms: int = 0
    jobs: dict[str, Work] = field(default_factory=dict)
    # From submission to the first text of each job that has some.
    first_text_ms: dict[str, int] = field(default_factory=dict)
    # Audio handed out, by account and whether it is of low priority.
    served_ms: Counter[tuple[str, bool]] = field(default_factory=Counter)
    commits: Counter[str] = field(default_factory=Counter)
    # Workers that were idle while there was work, over all moments.
    idle: int = 0
    _messages: deque[HandedOut] = field(default_factory=deque)
    _running: list[tuple[int, int, Lease, int]] = field(default_factory=list)
    _turns: Iterator[int] = field(default_factory=itertools.count)
    _random: random.Random = field(init=False)
    _leases: Leases = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._leases = self.bench.leases
        self.bench.open_slots(TRANSCRIBE, self.workers)

    def submit(
        self,
        job_id: str,
        account: str,
        audio_ms: int = TEN_HOURS_MS,
        *,
        low: bool = False,
        options: Options = HEBREW,
    ) -> None:
        """A job whose ingest is at work from now on."""
        request = replace(REQUEST, options=options)
        new = replace(NEW, id=job_id, account=account, request=request, low_priority=low, ttl_ms=3_600_000)
        assert self.bench.store.create(new)
        ingest = self.bench.claim(INGEST, INGEST, job_id)
        self.jobs[job_id] = Work(account, low, audio_ms, self._lengths(), self.now_ms, ingest)
        self._plan(job_id)
        self._ring()

    def _lengths(self) -> Iterator[int]:
        for nominal_ms in FIRST_CHUNKS_MS:
            yield nominal_ms - self._random.randint(0, self.search_ms)
        while True:
            yield CHUNK_MS + self._random.randint(-self.search_ms, self.search_ms)

    def _plan(self, job_id: str) -> None:
        job = self.jobs[job_id]
        while job.left_ms and job.planned < job.handed + AHEAD:
            length_ms = min(next(job.lengths), job.left_ms)
            chunk = Chunk(job.planned, job.end_ms, job.end_ms + length_ms, f"digest-{job.planned}", "blob")
            self._leases.add_chunk(job.ingest, chunk)
            job.planned, job.end_ms, job.left_ms = job.planned + 1, chunk.end_ms, job.left_ms - length_ms
            if not job.left_ms:
                self._leases.seal(job.ingest, job.planned, job.end_ms, "[]")

    def run(self, until_ms: int) -> None:
        """Let the workers work until then, or until nobody has anything to do."""
        while self._running and self._running[0][0] <= until_ms:
            self.now_ms, _, lease, audio_ms = heapq.heappop(self._running)
            data = result(int(lease.unit))
            self._leases.commit(lease, data, "", audio_ms, report)
            self.commits[lease.job_id] += 1
            if lease.unit == "0":
                self.first_text_ms[lease.job_id] = self.now_ms - self.jobs[lease.job_id].submitted_ms
            self._ring()
            if any(job.planned > job.handed for job in self.jobs.values()):
                self.idle += self.workers - len(self._running)
        self.now_ms = max(self.now_ms, until_ms)

    def end(self, job_id: str) -> None:
        """A job has ended, done or not; who worked on it is free."""
        self.bench.store.finish(job_id, self.bench.canceled(job_id))
        del self.jobs[job_id]
        self._messages = deque(chunk for chunk in self._messages if chunk.job_id != job_id)
        self._running = [entry for entry in self._running if entry[2].job_id != job_id]
        heapq.heapify(self._running)
        self._ring()

    def _ring(self) -> None:
        for chunk in self._leases.hand_out_chunks():
            self._messages.append(chunk)
            job = self.jobs[chunk.job_id]
            job.handed += 1
            self.served_ms[job.account, job.low] += chunk.end_ms - chunk.start_ms
            self._plan(chunk.job_id)
        while self._messages and len(self._running) < self.workers:
            chunk = self._messages.popleft()
            lease = self.bench.claim(TRANSCRIBE, str(chunk.index), chunk.job_id)
            audio_ms = chunk.end_ms - chunk.start_ms
            heapq.heappush(self._running, (self.now_ms + audio_ms, next(self._turns), lease, audio_ms))

    def between(self, least: float, most: float) -> int:
        """A random time, of so many chunks."""
        return int(CHUNK_MS * self._random.uniform(least, most))


def newcomers(cluster: Cluster, account: str, count: int) -> list[int]:
    """Fifty jobs of ten hours of account `us`, and beside them one short job after the other.

    From the submission of each short job to its first text, ms, in rising order.
    """
    for number in range(50):
        cluster.submit(f"long-{number}", "us")
    for number in range(count):
        cluster.run(cluster.now_ms + cluster.between(0.2, 5))
        cluster.submit(f"short-{number}", account, TWO_MINUTES_MS)
    cluster.run(cluster.now_ms + 20 * CHUNK_MS)
    return sorted(cluster.first_text_ms[f"short-{number}"] for number in range(count))


def p95(rising: list[int]) -> int:
    """The value that 95 % do not exceed."""
    return rising[-(-95 * len(rising) // 100) - 1]
