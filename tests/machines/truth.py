"""What must be true of the jobs in Redis after every step, whatever was done to them."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tasks.job import TERMINAL, Job, Status
from tasks.store import Store


@dataclass(slots=True)
class Seen:
    """A job as Redis has it at one moment."""

    job: Job
    added: set[int]
    pending: set[int]
    inflight: set[int]
    done: dict[int, bytes]
    dead: set[int]
    events: list[tuple[str, int | None, int]]


@dataclass(slots=True)
class Known:
    """What the model knows of a job: what it was told, and what it has told."""

    id: str
    webhook: bool
    plan: int = 0
    part: int | None = None
    parts: int = 0
    run: int = 1
    fences: dict[str, int] = field(default_factory=dict)
    gone: bool = False
    seen: Seen | None = None


def check(redis: Any, store: Store, jobs: dict[str, Known]) -> None:
    """Compare Redis with what was seen after the last step, and with itself. Raises AssertionError."""
    totals: Counter[Status] = Counter()
    for known in jobs.values():
        seen = None if known.gone else look(redis, store, known.id)
        if seen is None:
            assert known.gone or (known.seen and known.seen.job.terminal), f"{known.id} is lost"
            known.gone = True
            forgotten(redis, known.id)
            continue
        _consistent(seen)
        if known.seen:
            _legal(known.seen, seen)
        assert seen.job.run == known.run
        if seen.job.terminal:
            closed(redis, store, seen, batch_lives=known.part is not None and _lives(jobs, seen.job.batch))
        known.seen = seen
    for known in jobs.values():
        if known.part is None and known.seen:
            totals[known.seen.job.status] += 1
        if known.seen and not known.gone:
            _told(known, jobs)
    _counted(redis, store, totals)
    _placed(redis, jobs)


def look(redis: Any, store: Store, job_id: str) -> Seen | None:
    """Read a job with one round trip for its sets."""
    job = store.job(job_id)
    if job is None:
        return None
    key = f"lh:job:{job_id}"
    pipe = redis.pipeline()
    pipe.hkeys(f"{key}:chunks")
    pipe.zrange(f"{key}:pending", 0, -1)
    pipe.smembers(f"{key}:inflight")
    pipe.hgetall(f"{key}:results")
    pipe.hkeys(f"{key}:dead")
    pipe.xrange(f"{key}:events")
    added, pending, inflight, done, dead, events = pipe.execute()
    told = [
        (
            entry[b"kind"].decode(),
            int(entry[b"part"]) if b"part" in entry else None,
            int(entry.get(b"chunk", -1)),
        )
        for _, entry in events
    ]
    results = {int(index): value for index, value in done.items()}
    planned, waiting, flying = (set(map(int, found)) for found in (added, pending, inflight))
    return Seen(job, planned, waiting, flying, results, set(map(int, dead)), told)


def _consistent(seen: Seen) -> None:
    """Every chunk is in one set, and the totals are those of the sets."""
    done = set(seen.done)
    places = [seen.pending, seen.inflight, done, seen.dead]
    if not seen.job.terminal:
        assert sum(map(len, places)) == len(seen.added), f"{places} of {seen.added}"
    assert set.union(*places) <= seen.added
    assert not done & seen.dead
    assert seen.job.parts or seen.job.done_ms == 1000 * len(done), "every chunk has 1000 ms"
    assert (seen.job.started_ms is None) <= (seen.job.status != Status.RUNNING)
    if seen.job.total is not None and not seen.job.parts:
        assert seen.job.total == len(seen.added)


def _legal(before: Seen, after: Seen) -> None:
    """Within one run nothing is taken back; between two, no result is."""
    assert after.job.run >= before.job.run
    assert before.added <= after.added
    for index, value in before.done.items():
        assert after.done.get(index) == value, f"the result of chunk {index} was written again"
    if after.job.run > before.job.run:
        assert before.job.status is Status.FAILED
        return
    assert before.dead <= after.dead
    told = before.events[: len(before.events) - (before.job.batch != "")]
    assert after.events[: len(told)] == told
    if before.job.terminal:
        assert after.job.status is before.job.status, "a terminal state is final"
        assert (after.dead, after.done) == (before.dead, before.done)
    if before.job.status is Status.RUNNING:
        assert after.job.status is not Status.QUEUED


def _told(known: Known, jobs: dict[str, Known]) -> None:
    """The stream has what may be told, in order, and one end if the job has ended."""
    seen = known.seen
    assert seen is not None
    ends = ["terminal"] * seen.job.terminal
    if known.part is not None:
        return
    if not known.parts:
        assert [index for kind, _, index in seen.events if kind == "segments"] == tellable(seen)
        assert [kind for kind, _, _ in seen.events if kind != "segments"] == ends
        return
    assert [kind for kind, part, _ in seen.events if part is None] == ends
    parts = [part for part_id in seen.job.part_ids if (part := jobs[part_id].seen)]
    for part in parts:
        mine = [(kind, index) for kind, number, index in seen.events if number == part.job.part]
        assert [index for kind, index in mine if kind == "segments"] == tellable(part)
        ended = sum(kind == "end" for kind, _ in mine)
        assert ended <= part.job.terminal
        assert ended or seen.job.terminal or not part.job.terminal
    _summed(seen.job, parts)


def _summed(batch: Job, parts: list[Seen]) -> None:
    """The numbers of a batch are those of its recordings; its length is known with the last plan."""
    assert batch.done_ms == sum(part.job.done_ms for part in parts)
    if batch.terminal:
        return
    planned = all(part.job.total is not None or part.job.terminal for part in parts)
    assert (batch.total is not None) is planned
    if planned:
        assert batch.total == sum(part.job.total or len(part.done) for part in parts)
        assert batch.duration_ms == 1000 * batch.total


def tellable(seen: Seen) -> list[int]:
    """The indices 0, 1... that are done; of a job that has failed, all that are."""
    if seen.job.status is Status.FAILED:
        return sorted(seen.done)
    count = 0
    while count in seen.done:
        count += 1
    return list(range(count))


def closed(redis: Any, store: Store, seen: Seen, *, batch_lives: bool) -> None:
    """Of a job that has ended nothing is in line, all of it has a TTL, and its audio will go."""
    job_id = seen.job.id
    assert not seen.pending
    assert not seen.inflight
    assert batch_lives or redis.zscore("lh:sweep", job_id) is not None
    for key in redis.scan_iter(f"lh:job:{job_id}*", count=1000):
        name = key.decode()
        if name in (f"lh:job:{job_id}", *(f"lh:job:{job_id}:{part}" for part in PARTS)) and not batch_lives:
            assert redis.pttl(key) >= 0, f"{name} has no TTL"
    assert store.transcribed_ms(seen.job) <= 1000 * sum(1 for _ in seen.done) or seen.job.parts


PARTS = ("chunks", "pending", "inflight", "results", "dead", "leases", "events", "partial", "workers")


def _lives(jobs: dict[str, Known], job_id: str) -> bool:
    batch = jobs[job_id]
    return not batch.gone and (batch.seen is None or not batch.seen.job.terminal)


def forgotten(redis: Any, job_id: str) -> None:
    """Of a job whose retention is over only deliveries that are not settled are left."""
    left = list(redis.scan_iter(f"lh:job:{job_id}:*", count=1000))
    left += redis.keys(f"lh:job:{job_id}")
    assert set(left) <= {f"lh:job:{job_id}:outbox".encode()}, left


def _counted(redis: Any, store: Store, totals: Counter[Status]) -> None:
    counts = store.counts("longhand")
    assert {status: count for status, count in counts.items() if count} == dict(totals)
    waiting = sum(int(count) for count in redis.hvals("lh:waiting"))
    assert waiting == totals[Status.QUEUED]
    assert all(int(count) >= 0 for count in redis.hvals("lh:waiting"))


def _placed(redis: Any, jobs: dict[str, Known]) -> None:
    """Only what lives is in line, and whatever is in flight has a lease that can run out."""
    live = {
        id_ for id_, known in jobs.items() if not known.gone and known.seen and not known.seen.job.terminal
    }
    leases = {stage: _members(redis, f"lh:leases:{stage}") for stage in ("ingest", "transcribe", "assemble")}
    for key in redis.scan_iter("lh:line:*:*", count=1000):
        assert _members(redis, key) <= live, key
    assert _members(redis, "lh:deadlines") == live, "every job that lives has a deadline, and no other"
    assert _members(redis, "lh:attended") <= live
    for members in leases.values():
        assert {member.rpartition("/")[0] for member in members} <= live
    flying = {f"{id_}/{index}" for id_ in live if (seen := jobs[id_].seen) for index in seen.inflight}
    assert leases["transcribe"] == flying


def _members(redis: Any, key: Any) -> set[str]:
    return {member.decode() for member in redis.zrange(key, 0, -1)}


def live(known: Known) -> bool:
    """Whether the job had not ended after the last step."""
    return not known.gone and known.seen is not None and known.seen.job.status not in TERMINAL
