"""Jobs in Redis, as the dispatcher and the tasks read, create and end them. docs/redis.md has every key.

Leases on work are in leases.py, deliveries in outbox.py, uploads in uploads.py, API keys in keys.py; no other
module knows a key of Redis.
"""

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from redis import Redis

from tasks.chunks import Chunk
from tasks.creating import Arguments, Creator
from tasks.durable import Durable
from tasks.endings import Ending
from tasks.idempotency import Once
from tasks.job import Callback, Job, NewJob, Status
from tasks.redis_check import check_redis
from tasks.redis_memory import Memory
from tasks.scripts import Scripts, pack, text, unpack
from tasks.sentinel import Watched
from tasks.settings import Settings
from tasks.transcript import ChunkResult, Gap, Transcript, merge, result_from_bytes

WAKE_CHANNEL = "lh:wake"
READERS_PAGE = 200
# Far longer than it takes to store a recording that came with its job.
ORPHAN_MS = 3_600_000
# In place of a stage: the job must not have begun.
QUEUED = "queued"
# And: the lease of its handler must be over.
UNATTENDED = "unattended"
# And: one of its deadlines must have passed.
LATE = "late"
# And: its input must be one that was refused.
REFUSED = "refused"


def job_key(job_id: str, part: str = "") -> str:
    return f"lh:job:{job_id}:{part}" if part else f"lh:job:{job_id}"


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of a job's event stream: one chunk's segments, or an end (`index` -1).

    `part` is the number of the recording in a batch, None for what concerns the whole job.
    """

    id: str
    index: int
    total_ms: int | None
    part: int | None = None


class Store:
    """Jobs by id. Every method may raise redis.exceptions.RedisError."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._client = client
        # redis-py types its answers as sync-or-async unions; text() and the dataclasses give them types.
        self._redis: Any = client
        self._scripts = Scripts(client)
        self._settings = settings
        watched = Watched.parse(settings.redis_url) is not None
        self._durable = Durable(wanted=settings.durable_accept, watched=watched)
        self.memory = Memory(client, settings.max_redis_memory_percent, time.monotonic)
        self._creator = Creator(client, self._scripts, self._durable, settings)

    @property
    def queue_visible_ms(self) -> int:
        """For how long a job that waits is shown as waiting."""
        return self._settings.queue_visible_ms

    def check_server(self) -> list[str]:
        """Warnings about this Redis; raises ConfigurationError where it could lose an accepted job."""
        warnings, on_disk = check_redis(self._client, self._settings)
        self._durable.on_disk(on_disk)
        return warnings

    def create(self, new: NewJob) -> bool:
        """Write a new job and wait until it is on disk; False if it was there already.

        Raises redis.exceptions.TimeoutError where the disk takes too long; QueueFull, QuotaExceeded,
        ServiceFull; AlreadyAccepted and IdempotencyConflict where its request came before.
        """
        return self._creator.create(new)

    def refuse(self, new: NewJob, ending: Ending) -> tuple[bool, tuple[str, ...]]:
        """Write a job whose input was not valid, and its end, in one step and as create() does.

        Returns whether this call did, and the receivers to ring for. Raises what create() raises.
        """
        return self._creator.refuse(new, self._finishing(new.id, ending, REFUSED))

    def refuse_repetition(self, once: Once) -> None:
        """Raise what create() would where a request came before; on that, its job is on disk."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.get(f"lh:once:{once.key}")
            self._durable.ask(self._redis, pipe)
            answers = pipe.execute(raise_on_error=False)
        self._durable.check(answers)
        if answers[0]:
            raise once.told(text(answers[0]))

    def sweep_unless_created(self, job_ids: Sequence[str]) -> None:
        """Let the reaper delete what is stored for these jobs, unless there are such jobs in an hour.

        On return that is as durable as an accepted job. Raises redis.exceptions.TimeoutError where the disk
        takes too long.
        """
        due_ms = self.now_ms() + ORPHAN_MS
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zadd("lh:sweep", dict.fromkeys(job_ids, due_ms), nx=True)
            self._durable.ask(self._redis, pipe)
            answers = pipe.execute(raise_on_error=False)
        self._durable.check(answers)

    def confirmed(self) -> bool:
        """Whether what this Redis says may be acted on for good (see Durable)."""
        return self._durable.confirmed(self._redis)

    def job(self, job_id: str) -> Job | None:
        row = self._redis.hgetall(job_key(job_id))
        if not row:
            return None
        row.pop(b"callback_input", None)  # not text
        return Job.from_row(job_id, {text(name): text(value) for name, value in row.items()})

    def callback(self, job_id: str) -> Callback | None:
        """The platform's callback that a job's client asked for."""
        url, receiver, packed = self._redis.hmget(
            job_key(job_id), "callback_url", "callback_receiver", "callback_input"
        )
        return Callback(text(url), text(receiver), unpack(packed).decode()) if url else None

    def jobs(self, account: str | None, limit: int) -> list[Job]:
        """The newest jobs first; of one account, or of all with None."""
        mine = (job for job in self._listed() if account in (None, job.account))
        return list(islice(mine, limit))

    def _listed(self) -> Iterator[Job]:
        for page in range(0, self._redis.zcard("lh:jobs"), READERS_PAGE):
            for job_id in self._redis.zrevrange("lh:jobs", page, page + READERS_PAGE - 1):
                if job := self.job(text(job_id)):
                    yield job

    def queued(self, endpoint: str, account: str) -> Iterator[Job]:
        """An account's jobs of an endpoint that nobody works on yet, the newest first."""
        for job in self._listed():
            if job.status is Status.QUEUED and (job.endpoint, job.account) == (endpoint, account):
                yield job

    def announce(self, job_id: str, body: str) -> str:
        """Write the `transcribing` event, once a run; the receiver to ring for, or ""."""
        return text(self._scripts("announce", job_id, pack(body), self._settings.longest_retention_ms))

    def finish(
        self, job_id: str, ending: Ending, *, stage: str = "", fence: str = ""
    ) -> tuple[bool, tuple[str, ...]]:
        """End a job once. Returns whether this call did, and the receivers to ring for.

        With a stage, or the index of a chunk, only the holder of its lease may; with QUEUED, only if nobody
        has begun; with UNATTENDED, only if its handler is gone; with LATE, only past a deadline. The audio of
        a job that succeeded may go at once; that of others stays until retention ends.
        """
        done, receivers = self._scripts("finish", *self._finishing(job_id, ending, stage, fence))
        return bool(done), tuple(map(text, receivers))

    def _finishing(self, job_id: str, ending: Ending, stage: str, fence: str = "") -> Arguments:
        body = pack(ending.body)
        before = body if ending.body_before == ending.body else pack(ending.body_before)
        return (
            *(job_id, stage, fence, ending.status, ending.code, ending.error, ending.meta),
            *(body, before, self._settings.longest_retention_ms),
        )

    def retry(self, job_id: str) -> str:
        """Start the next run of a job that has failed; what is done is kept.

        Returns 'queued', 'complete' (ring assemble), 'refused' (its input was not valid) or 'other' (it has
        not failed). Of a batch, the recordings that did not succeed are done again.
        """
        return text(self._scripts("retry", job_id, self._settings.dispatch_ms))

    def workers(self, job_id: str) -> list[str]:
        """The worker processes that finished chunks of a job."""
        return sorted(text(name) for name in self._redis.smembers(job_key(job_id, "workers")))

    def chunks(self, job_id: str) -> list[Chunk]:
        """The chunks planned so far, in order."""
        rows = self._redis.hvals(job_key(job_id, "chunks"))
        return sorted((Chunk.from_json(text(row)) for row in rows), key=lambda chunk: chunk.index)

    def chunk(self, job_id: str, index: int) -> Chunk | None:
        row = self._redis.hget(job_key(job_id, "chunks"), index)
        return Chunk.from_json(text(row)) if row else None

    def result(self, job_id: str, index: int) -> ChunkResult | None:
        data = self._redis.hget(job_key(job_id, "results"), index)
        return result_from_bytes(data) if data else None

    def results(self, job_id: str) -> list[ChunkResult]:
        """The results there are, in order."""
        rows = self._redis.hvals(job_key(job_id, "results"))
        return sorted((result_from_bytes(row) for row in rows), key=lambda result: result.index)

    def transcript(self, job: Job) -> Transcript:
        """What there is of a recording, put together."""
        heard = merge(self.results(job.id), duration_ms=job.duration_ms or 0, warnings=job.warnings)
        return replace(heard, gaps=self.gaps(job.id))

    def gaps(self, job_id: str) -> tuple[Gap, ...]:
        """The spans of the chunks that were given up, in order."""
        dead = sorted(self.dead(job_id).items())
        # A reason begins with its code.
        found = ((self.chunk(job_id, index), reason.partition(":")[0]) for index, reason in dead)
        return tuple(Gap(chunk.start_ms, chunk.end_ms, code) for chunk, code in found if chunk)

    def dead(self, job_id: str) -> dict[int, str]:
        """The chunks that were given up, and why."""
        rows = self._redis.hgetall(job_key(job_id, "dead"))
        return {int(index): text(reason) for index, reason in rows.items()}

    def transcribed_ms(self, job: Job) -> int:
        """How much audio is transcribed, with what is done of the chunks in hand."""
        if job.parts:
            return sum(self.transcribed_ms(part) for part in self.parts(job))
        return job.done_ms + sum(int(part) for part in self._redis.hvals(job_key(job.id, "partial")))

    def parts(self, job: Job) -> list[Job]:
        """The jobs of a batch's recordings, in their order."""
        return [part for part_id in job.part_ids if (part := self.job(part_id))]

    def events(self, job_id: str, after: str = "0", limit: int = 50) -> list[Event]:
        """Entries of a job's stream after the one of id `after`, in order."""
        entries = self._redis.xrange(
            job_key(job_id, "events"), f"({after}" if after != "0" else "-", count=limit
        )
        return list(_events(entries))

    def cursor(self, job_id: str) -> str:
        """The last event that /stream has handed to its client."""
        return text(self._redis.hget(job_key(job_id), "cursor") or "0")

    def advance(self, job_id: str, event_id: str) -> None:
        """Hand out no event up to this one again. A job that is gone stays gone."""
        self._scripts("advance", job_id, event_id)

    def counts(self, endpoint: str) -> dict[Status, int]:
        """How many jobs of an endpoint there are, or have been, in each status."""
        rows = self._redis.hgetall(f"lh:counts:{endpoint}")
        return {Status(text(status)): int(count) for status, count in rows.items()}

    def slots(self, stage: str) -> tuple[int, int]:
        """How many live slots a stage has, and how many of its units are being worked on or rung for."""
        seconds, micros = self._redis.time()
        with self._redis.pipeline() as pipe:
            pipe.zcount(f"lh:slots:{stage}", seconds * 1000 + micros // 1000, "+inf")
            live, busy = pipe.zcard(f"lh:leases:{stage}").execute()
        return live, busy

    def link_key(self) -> bytes:
        """The key that signs links to transcripts: random, made at its first use, kept here alone."""
        self._redis.set("lh:link_key", secrets.token_bytes(32), nx=True)
        return bytes(self._redis.get("lh:link_key"))

    def now_ms(self) -> int:
        """Redis' clock, the only one that stamps anything."""
        seconds, micros = self._redis.time()
        return int(seconds * 1000 + micros // 1000)


def _events(entries: list[Any]) -> Iterator[Event]:
    for event_id, fields in entries:
        total = text(fields.get(b"total_ms", b""))
        index = int(fields[b"chunk"]) if fields[b"kind"] == b"segments" else -1
        part = text(fields.get(b"part", b""))
        yield Event(text(event_id), index, int(total) if total else None, int(part) if part else None)
