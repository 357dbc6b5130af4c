"""Leases on work, and the work itself moving from set to set: pending, in flight, done, dead.

A Celery message is only a hint that names a unit of work; claiming a lease here is what gives it to one
attempt, and the fence that comes with the lease is what lets that attempt, and no earlier one, write.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from redis import Redis

from tasks.chunks import Chunk
from tasks.errors import LeaseLost, LonghandError, SourceChanged
from tasks.events import Progress
from tasks.scripts import WORKER_PATIENCE, Scripts, pack, text
from tasks.settings import Settings
from tasks.store import job_key

# The longest `policy.ttl` there is: no job is older while it lives.
MAX_TTL_MS = 7 * 24 * 3600 * 1000

INGEST, TRANSCRIBE, ASSEMBLE = "ingest", "transcribe", "assemble"

# So many deaths in a row in the same window are no bad luck.
POISON_DEATHS = 3
# In place of the time that a lease has left: the process has none, or the job has ended.
GONE, ENDED = -1, -2
# How many chunks of a job may wait to be transcribed before its cutting pauses: so many, and for each process
# that transcribes.
LOOK_AHEAD_CHUNKS, LOOK_AHEAD_PER_SLOT = 16, 4
# Number of the first and the last window that are being decoded, from 0.
Windows = tuple[int, int]


class Beat(Enum):
    """What a heartbeat learns: go on, another attempt took over, or the job has ended."""

    RENEWED = 1
    LOST = 0
    ENDED = -1


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write one unit of a job's work: the stage itself, or a chunk's index.

    `deaths`: how many processes in a row died in the same window of this chunk. `again`: the chunk in whose
    place it was claimed still waits, and is to be rung for again.
    """

    job_id: str
    stage: str
    unit: str
    fence: str
    deaths: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """Why there is no lease: one of the answers of claim.lua.

    `complete` also asks to ring assemble, and `worn` to fail the job: as the holder of the last lease on the
    unit, whose `fence` this is, so that nobody does it in a later run.
    """

    reason: str
    fence: str = ""


@dataclass(frozen=True, slots=True)
class HandedOut:
    """A chunk to ring for; `total` is how many the job has, None while its plan is not sealed."""

    job_id: str
    index: int
    start_ms: int
    end_ms: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Reaped:
    """What the reaper has to see to, by job id or receiver."""

    assemble: list[str]
    receivers: list[str]
    late: list[str]
    sweep: list[str]
    unattended: list[str]


class Leases:
    """Units of work, claimed, renewed, finished and put back by the worker process of this name."""

    def __init__(self, client: Redis, settings: Settings, worker: str = "") -> None:
        self._worker = worker
        self._redis: Any = client
        self._scripts = Scripts(client)
        self._settings = settings

    def claim(self, job_id: str, stage: str, unit: str, instead_of: str = "") -> Lease | Refused:
        """Take the lease on a unit for one attempt; `instead_of` (`job/index`) is what was rung for."""
        settings = self._settings
        # Asking again for the same owner, after a lost answer, gives the same lease.
        owner = f"{self._worker}/{uuid.uuid4().hex}"
        answer = self._scripts(
            "claim",
            *(job_id, stage, unit, owner),
            *(settings.lease_ms, settings.max_starts, settings.dispatch_ms, instead_of),
        )
        if answer[0] != b"ok":
            return Refused(*map(text, answer))
        return Lease(job_id, stage, unit, text(answer[1]), int(answer[2]), bool(int(answer[3])))

    def next_to_prepare(self) -> tuple[str, int] | None:
        """Job and index of a chunk that waits for a process, and that no other one prepares, if there is any.

        It is not claimed: whoever is free first takes it.
        """
        found = self._scripts("ahead", self._worker, self._settings.dispatch_ms)
        return (text(found[0]), int(found[1])) if found else None

    def beat(self, lease: Lease, done_ms: int = 0, windows: Windows | None = None) -> Beat:
        """Renew a lease, and say how much of a chunk's audio is transcribed, and which windows are next."""
        return Beat(
            self._scripts(
                "beat",
                *(lease.job_id, lease.stage, lease.unit, lease.fence, self._settings.lease_ms, done_ms),
                f"{windows[0]} {windows[1]}" if windows else "",
            )
        )

    def add_chunk(self, lease: Lease, chunk: Chunk) -> bool:
        """Write one chunk of the plan; False if an earlier attempt had written the same.

        Raises SourceChanged (other audio at this index) and LeaseLost.
        """
        outcome = text(
            self._scripts("add_chunk", lease.job_id, lease.fence, chunk.index, chunk.to_json(), chunk.digest)
        )
        if outcome == "changed":
            raise SourceChanged
        if outcome in ("lost", "gone"):
            raise LeaseLost
        return outcome == "added"

    def seal(self, lease: Lease, total: int, duration_ms: int, warnings: str) -> bool:
        """End the plan (`warnings` as JSON); True if every chunk has ended already.

        Raises SourceChanged where an earlier attempt found more chunks, and LeaseLost.
        """
        outcome = text(
            self._scripts(
                "seal",
                *(lease.job_id, lease.fence, total, duration_ms, warnings),
                self._settings.dispatch_ms,
            )
        )
        if outcome == "changed":
            raise SourceChanged
        if outcome in ("lost", "gone"):
            raise LeaseLost
        return outcome == "complete"

    def is_ahead(self, job_id: str) -> bool:
        """Whether ingest is so far ahead of a job's workers that cutting may pause, which bounds its blobs.

        More than LOOK_AHEAD_CHUNKS, or LOOK_AHEAD_PER_SLOT for each live slot, of its chunks are neither done
        nor dead; and no other recording waits for an ingest that this one keeps from it.
        """
        return bool(self._scripts("look_ahead", job_id, LOOK_AHEAD_CHUNKS, LOOK_AHEAD_PER_SLOT))

    def commit(
        self,
        lease: Lease,
        result: bytes,
        language: str,
        audio_ms: int,
        report: Callable[[Progress, int], str],
        *,
        probability: float = 0.0,
        sure: bool = True,
    ) -> tuple[bool, str]:
        """Write one chunk's result, once. Returns whether it was the last, and the receiver to ring for.

        `language` is pinned, if none is yet, where the chunk is `sure` of it; "" where nobody spoke.
        `report(progress, now_ms)` makes the body of the progress event that may become due.
        Raises LeaseLost.
        """
        settings = self._settings
        # The progress told of is a batch's, if the job is one of its recordings.
        told_of = lease.job_id.partition(".")[0]
        while True:
            seen_done, seen_duration, progress, now_ms = self._progress(told_of, audio_ms)
            outcome, receiver = map(
                text,
                self._scripts(
                    "commit",
                    *(lease.job_id, lease.unit, lease.fence, result, language, audio_ms),
                    *(settings.dispatch_ms, settings.longest_retention_ms),
                    *(settings.progress_interval_ms, settings.progress_step),
                    *(seen_done, seen_duration, pack(report(progress, now_ms)), self._worker),
                    *(probability, int(sure)),
                ),
            )
            if outcome in ("lost", "gone"):
                raise LeaseLost
            if outcome != "stale":
                return outcome == "complete", receiver

    def _progress(self, job_id: str, audio_ms: int) -> tuple[str, str, Progress, int]:
        """Where the job stands once a chunk of `audio_ms` is in, and what that was derived from."""
        # In no transaction: `commit` finds it stale if another came between.
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hmget(job_key(job_id), "done_ms", "duration_ms", "total", "announced_ms", "chunks_done")
            pipe.hlen(job_key(job_id, "results"))
            (seconds, micros), row, results = pipe.execute()
        done, duration, total, announced, counted = (text(value or b"") for value in row)
        now_ms = seconds * 1000 + micros // 1000
        done_ms, total_ms = int(done or 0) + audio_ms, int(duration) if duration else None
        eta_ms = None
        if total_ms is not None and announced and done_ms:
            eta_ms = (now_ms - int(announced)) * max(0, total_ms - done_ms) // done_ms
        progress = Progress(
            done_ms, total_ms, int(counted or results) + 1, int(total) if total else None, eta_ms
        )
        return done or "0", duration, progress, now_ms

    def release(self, lease: Lease, error: LonghandError | None, delay_ms: int = 0) -> str:
        """Give a lease back. With an error the attempt is charged; one that is not retryable is the last.

        Returns 'again', 'exhausted' (fail the job), 'dead', 'complete' (ring assemble) or 'lost'.
        """
        final = error is not None and not error.retryable
        return text(
            self._scripts(
                "release",
                *(lease.job_id, lease.stage, lease.unit, lease.fence),
                *(int(error is not None), delay_ms, self._settings.max_attempts, int(final)),
                *(f"{error.code}: {error}" if error else "", self._settings.dispatch_ms),
            )
        )

    def hand_back(self, workers: Sequence[str], *, died: bool = False) -> tuple[int, list[str]]:
        """Give back what worker processes of these names have in hand; nobody is charged, unless they `died`.

        Returns how many units it was, and the jobs to ring assemble for.
        """
        deaths = POISON_DEATHS if died else 0
        count, jobs = self._scripts("hand_back", deaths, self._settings.dispatch_ms, *workers)
        return int(count), [text(job_id) for job_id in jobs]

    def look(self, held: Sequence[tuple[str, str, str, str]]) -> list[int]:
        """How units stand: ms until the lease is over, or GONE, or ENDED. Each: job, stage, unit, process."""
        return [int(state) for state in self._scripts("look", *(name for unit in held for name in unit))]

    def hand_out_ingests(self) -> list[str]:
        """Jobs whose ingest is to be rung for, now that there are free slots."""
        return [text(job_id) for job_id in self._scripts("dispatch_ingest", self._settings.dispatch_ms)]

    def hand_out_chunks(self) -> list[HandedOut]:
        """Chunks to ring for, fairly over jobs, now that there are free slots."""
        return [
            HandedOut(text(job_id), int(index), start_ms, end_ms, int(total) if total else None)
            for job_id, index, start_ms, end_ms, total in self._scripts(
                "dispatch_chunks", self._settings.dispatch_ms
            )
        ]

    def reap(self) -> Reaped:
        """Put back what was lost, and say what is due."""
        settings = self._settings
        listing_ms, unseen_ms = settings.longest_retention_ms + MAX_TTL_MS, max(10_000, 6 * settings.reap_ms)
        # A worker that waits for an answer of a Redis that hangs learns only then that it is back.
        grace_ms = min(settings.lease_ms, 2 * settings.heartbeat_ms + int(1000 * WORKER_PATIENCE.answer_s))
        lists = self._scripts(
            "reap", settings.dispatch_ms, listing_ms, unseen_ms, settings.lease_ms // 2, grace_ms
        )
        return Reaped(*([text(item) for item in found] for found in lists))

    def be_the_reaper(self, owner: str, for_ms: int) -> bool:
        """Whether this process reaps now: one does, and another takes over when it is gone."""
        return bool(self._scripts("reign", owner, for_ms))

    def reap_no_more(self, owner: str) -> None:
        """This process ends: another takes over at its next look, if it was the one that reaped."""
        self._scripts("reign", owner, 0)

    def swept(self, job_id: str) -> None:
        """A job's blobs are deleted; they are looked for once more when its retention is over."""
        self._scripts("swept", job_id)

    def attend(self, job_id: str) -> None:
        """A RunPod handler waits for this job, and says so again before `handler_lease_ms` have passed."""
        self._scripts("hold", "lh:attended", job_id, self._settings.handler_lease_ms)

    def open_slot(self, stage: str, slot: str) -> None:
        """A process is alive and ready for work of a stage; repeated every quarter of a lease."""
        self._scripts("hold", f"lh:slots:{stage}", slot, self._settings.lease_ms)

    def close_slot(self, stage: str, slot: str) -> None:
        self._redis.zrem(f"lh:slots:{stage}", slot)
