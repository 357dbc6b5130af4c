"""State in a real Redis with hands on it: plans jobs, commits chunks, tries deliveries, ages stamps."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

from tasks import endings, events
from tasks.chunks import Chunk
from tasks.endings import Ending
from tasks.events import Progress
from tasks.guard import origin
from tasks.job import Job, NewJob, Options, Request
from tasks.leases import ASSEMBLE, INGEST, TRANSCRIBE, Lease, Leases
from tasks.outbox import Attempt, Delivery, Health, Outbox, Outcome
from tasks.scripts import unpack
from tasks.settings import Settings
from tasks.store import Store
from tasks.transcript import ChunkResult, Segment, result_to_bytes

HEBREW = Options(language="he", initial_prompt="שלום")
REQUEST = Request("https://a.test/x", "large", HEBREW)
NEW = NewJob("j", "longhand", "us", REQUEST, 60_000, 0)
RECEIVER = "https://hooks.test"
HOOK = f"{RECEIVER}/a"
PAST_MS = 1
REFUSED = Attempt(1_000, 503, 12, "busy")


def chunk(index: int, length_ms: int = 1000, digest: str = "") -> Chunk:
    """One of chunks of `length_ms` each."""
    start_ms = length_ms * index
    return Chunk(index, start_ms, start_ms + length_ms, digest or f"digest-{index}", f"blob-{index}")


def result(index: int, text: str = "a", language: str = "he") -> bytes:
    """A chunk's result of one segment, as the store keeps it."""
    return result_to_bytes(ChunkResult(index, (Segment(text, 0, 9),), language, 9))


def report(progress: Progress, now_ms: int) -> str:
    """A progress event, as a worker makes it."""
    return events.progressed("j", "r", now_ms, progress)


def said(body: bytes) -> str:
    """What a delivery says: `transcribing`, `progress SECONDS of TOTAL`, or the terminal status."""
    fields = json.loads(body)
    if "progress" not in fields:
        return str(fields["status"])
    progress = fields["progress"]
    return f"progress {progress['audio_seconds_done']:g} of {progress['audio_seconds_total']}"


@dataclass(slots=True)
class Bench:
    """The state of one test; methods are about job `j` unless told otherwise.

    `redis` is untyped: redis-py's answers are sync-or-async unions.
    """

    redis: Any
    settings: Settings
    store: Store = field(init=False)
    leases: Leases = field(init=False)
    # A second worker.
    other: Leases = field(init=False)
    outbox: Outbox = field(init=False)
    # The ingest lease of each planned job.
    ingests: dict[str, Lease] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store(self.redis, self.settings)
        self.leases = Leases(self.redis, self.settings, "worker-1")
        self.other = Leases(self.redis, self.settings, "worker-2")
        self.outbox = Outbox(self.redis, self.settings)

    # Jobs

    def planned(self, job_id: str = "j", chunks: int = 2, options: Options = HEBREW, **changes: Any) -> Lease:
        """A running job with chunks of a second each, not sealed; gives the lease of its ingest."""
        receiver = origin(changes["webhook_url"]) if "webhook_url" in changes else ""
        request = replace(REQUEST, options=options)
        new = replace(NEW, id=job_id, request=request, receiver=receiver, **changes)
        assert self.store.create(new)
        ingest = self.ingests[job_id] = self.claim(INGEST, INGEST, job_id)
        for index in range(chunks):
            self.leases.add_chunk(ingest, chunk(index))
        return ingest

    def seal(self, job_id: str = "j") -> bool:
        """End the plan with the chunks there are. Whether all of them are finished."""
        count = len(self.store.chunks(job_id))
        return self.leases.seal(self.ingests[job_id], count, 1000 * count, "[]")

    def ready_to_assemble(self, **changes: Any) -> Lease:
        """A job of which every chunk is transcribed; gives the lease of its assembly."""
        self.planned(**changes)
        self.seal()
        for unit in "01":
            self.commit(self.claim(TRANSCRIBE, unit))
        return self.claim(ASSEMBLE, ASSEMBLE)

    def job(self, job_id: str = "j") -> Job:
        """The job, which must be there."""
        job = self.store.job(job_id)
        assert job is not None
        return job

    def canceled(self, job_id: str = "j") -> Ending:
        """What to finish a job with that is canceled now."""
        return endings.canceled(self.job(job_id), self.store.now_ms())

    def finish(self) -> tuple[bool, tuple[str, ...]]:
        """Cancel the job. Whether that ended it, and the receivers to ring for."""
        return self.store.finish("j", self.canceled())

    # Units and leases

    def claim(self, stage: str, unit: str, job_id: str = "j") -> Lease:
        """A lease, which must be free."""
        lease = self.leases.claim(job_id, stage, unit)
        assert isinstance(lease, Lease), lease
        return lease

    def commit(
        self, lease: Lease, language: str = "he", text: str = "a", *, unsure: float | None = None
    ) -> bool:
        """Write a chunk's result. Whether the job's chunks are now all finished.

        `unsure` is the probability of a language that is not enough to pin it.
        """
        data = result(int(lease.unit), text, language)
        probability = 0.9 if unsure is None else unsure
        return self.leases.commit(
            lease, data, language, 1000, report, probability=probability, sure=unsure is None
        )[0]

    def transcribe(self, index: int) -> str:
        """Claim a chunk and write its result. The receiver to ring for."""
        return self.transcribe_of("j", index)

    def transcribe_of(self, job_id: str, index: int) -> str:
        """The same of another job."""
        lease = self.claim(TRANSCRIBE, str(index), job_id)
        return self.leases.commit(lease, result(index), "he", 1000, report)[1]

    def hand_out(self) -> list[tuple[str, int]]:
        """The chunks that would be rung for, by job and index."""
        return [(chunk.job_id, chunk.index) for chunk in self.leases.hand_out_chunks()]

    def open_slots(self, stage: str, count: int) -> None:
        """Let that many child processes be ready for a stage."""
        for number in range(count):
            self.leases.open_slot(stage, f"child-{number}")

    def age(self, key: str, member: str) -> None:
        """Make a stamp lie in the past."""
        assert self.redis.zscore(key, member) is not None
        self.redis.zadd(key, {member: PAST_MS})

    def expire(self, stage: str, unit: str) -> None:
        """Let the lease of a unit, or the message about it, be long past."""
        self.age(f"lh:leases:{stage}", f"j/{unit}")

    def members(self, part: str) -> set[int]:
        """The chunks in the job's pending or inflight set."""
        key = f"lh:job:j:{part}"
        found = self.redis.smembers(key) if part == "inflight" else self.redis.zrange(key, 0, -1)
        return {int(index) for index in found}

    def done(self) -> set[int]:
        """The chunks that have a result."""
        return {int(index) for index in self.redis.hkeys("lh:job:j:results")}

    def sets(self) -> dict[str, set[int]]:
        """The sets a chunk may be in, by name."""
        return {
            "pending": self.members("pending"),
            "inflight": self.members("inflight"),
            "done": self.done(),
            "dead": set(self.store.dead("j")),
        }

    def places(self) -> list[str]:
        """The global sets that still hold a unit of the job."""
        keys = sorted([*self.redis.keys("lh:leases:*"), *self.redis.keys("lh:line:*:*"), b"lh:deadlines"])
        return [
            key.decode()
            for key in keys
            if any(name.decode().split("/")[0] == "j" for name in self.redis.zrange(key, 0, -1))
        ]

    # Deliveries to RECEIVER

    def announce(self, job_id: str = "j") -> str:
        """Tell that transcription has begun. The receiver to ring for."""
        return self.store.announce(job_id, events.transcribing(job_id, "r", self.store.now_ms()))

    def take(self) -> Delivery:
        """The delivery that is due."""
        delivery = self.outbox.claim(RECEIVER, "drain")
        assert delivery is not None, "nothing is due"
        return delivery

    def settle(self, delivery: Delivery, outcome: Outcome, delay_ms: int = 0) -> str:
        """End an attempt that was answered with 503. The delivery's state."""
        health: Health = "fast" if outcome == "delivered" else "down"
        return self.outbox.settle(delivery, outcome, REFUSED, health, delay_ms)

    def refuse(self) -> str:
        """One attempt at what is due fails, and its delay passes. The delivery's state."""
        delivery = self.take()
        state = self.settle(delivery, "retry", 5_000)
        if state == "waiting":
            self.make_due(delivery.id)
        return state

    def drain(self) -> list[str]:
        """Deliver everything that is due; what each delivery said."""
        told = []
        while delivery := self.outbox.claim(RECEIVER, "drain"):
            told.append(said(delivery.body))
            assert self.settle(delivery, "delivered") == "delivered"
        return told

    def make_due(self, delivery_id: str) -> None:
        """Let a delivery's delay have passed."""
        self.age(f"lh:receiver:{RECEIVER}", delivery_id)

    def due_in_ms(self, delivery_id: str) -> int:
        """How long a delivery will wait."""
        return int(self.redis.zscore(f"lh:receiver:{RECEIVER}", delivery_id)) - self.store.now_ms()

    def written(self) -> list[tuple[str, str]]:
        """Every delivery ever written about the job's run, in order: what it says, and its state."""
        count = int(self.redis.hget("lh:job:j", "seq") or 0)
        run = int(self.redis.hget("lh:job:j", "run"))
        ids = [f"evt_j_{run}_{number}" for number in range(1, count + 1)]
        bodies = [unpack(self.redis.hget(f"lh:delivery:{id_}", "body")) for id_ in ids]
        return [(said(body), self.outbox.state(id_)) for id_, body in zip(ids, bodies, strict=True)]
