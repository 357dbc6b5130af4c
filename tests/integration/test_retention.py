"""Once retention is over nothing of a job is left, however it ended."""

from dataclasses import replace

from tasks import endings
from tasks.errors import ChunkFailed, Unexpected
from tasks.leases import ASSEMBLE, INGEST, TRANSCRIBE, Lease
from tasks.outbox import Attempt
from tasks.store import QUEUED
from tests.bench import HOOK, NEW, RECEIVER, REQUEST, Bench, chunk
from tests.machines.warp import pass_time

JOBS = 300
KINDS = 6
# One key for each account, endpoint, stage or receiver at the most, or a list of ids that loses its old ones.
BOUNDED = (
    "lh:audio:",
    "lh:circuit:",
    "lh:clock:",
    "lh:counts:",
    "lh:dead:",
    "lh:deliveries:",
    "lh:reaped",
    "lh:waiting",
)


def lived(bench: Bench, number: int) -> None:
    """A job of one of the kinds, from its beginning to its end."""
    job_id, kind = f"j{number}", number % KINDS
    new = replace(NEW, id=job_id, webhook_url=HOOK, receiver=RECEIVER)
    if kind == 0:
        assert bench.store.create(new)
        assert bench.store.finish(job_id, bench.canceled(job_id), stage=QUEUED)[0]
        return
    if kind == 1:
        assert bench.store.create(replace(new, parts=(REQUEST, REQUEST)))
        planned(bench, f"{job_id}.0")
        assert bench.store.finish(job_id, bench.canceled(job_id))[0]
        return
    assert bench.store.create(new)
    planned(bench, job_id)
    if kind == 2:
        job = bench.job(job_id)
        assert bench.store.finish(job_id, endings.expired(job, bench.store.now_ms()))[0]
        return
    if kind == 3:
        lease = bench.claim(TRANSCRIBE, "0", job_id)
        bench.leases.release(lease, ChunkFailed("no"))
        failed(bench, job_id)
        return
    bench.transcribe_of(job_id, 0)
    if kind == 4:
        failed(bench, job_id)
        assert bench.store.retry(job_id) == "queued"
    bench.transcribe_of(job_id, 1)
    lease = bench.claim(ASSEMBLE, ASSEMBLE, job_id)
    job = bench.job(job_id)
    ending = endings.succeeded(job, REQUEST, bench.store.transcript(job), "m", bench.store.now_ms())
    assert bench.store.finish(job_id, ending, stage=ASSEMBLE, fence=lease.fence)[0]


def planned(bench: Bench, job_id: str) -> None:
    """A plan of two chunks; the first of them is announced, and its worker has told how far it is."""
    ingest = bench.claim(INGEST, INGEST, job_id)
    for index in range(2):
        bench.leases.add_chunk(ingest, chunk(index))
    bench.leases.seal(ingest, 2, 2000, "[]")
    bench.store.announce(job_id, "{}")
    lease = bench.leases.claim(job_id, TRANSCRIBE, "0")
    assert isinstance(lease, Lease)
    bench.leases.beat(lease, 500)
    bench.leases.release(lease, None)


def failed(bench: Bench, job_id: str) -> None:
    ending = endings.failed(job_id, "r", bench.store.now_ms(), Unexpected("no"))
    assert bench.store.finish(job_id, ending)[0]


def told(bench: Bench) -> None:
    """Every delivery ends, one way or another."""
    number = 0
    while delivery := bench.outbox.claim(RECEIVER, "drain"):
        outcome = ("delivered", "dead", "gone")[number % 3]
        bench.outbox.settle(delivery, outcome, Attempt(1, 500, 1), "unknown")  # type: ignore[arg-type]
        number += 1


def swept(bench: Bench) -> None:
    """All audio that may go has gone."""
    while sweep := bench.leases.reap().sweep:
        for job_id in sweep:
            bench.leases.swept(job_id)


def test_nothing_is_left_of_jobs_whose_retention_is_over(bench: Bench) -> None:
    for number in range(JOBS):
        lived(bench, number)
    told(bench)
    swept(bench)
    assert bench.redis.dbsize() > JOBS
    assert bench.redis.zcard("lh:jobs") == JOBS, "a job is listed for as long as it is kept"
    pass_time(bench.redis, bench.settings.retention_ms + 1_000)
    swept(bench)
    keys = [key.decode() for key in bench.redis.scan_iter(count=1000)]
    assert [key for key in keys if not key.startswith(BOUNDED)] == []
    assert len(keys) <= 2 * len(BOUNDED)
    assert bench.redis.hgetall("lh:waiting") == {b"us": b"0"}
    pass_time(bench.redis, bench.settings.retention_ms + 8 * 24 * 3600 * 1000)
    bench.leases.reap()
    lists = ("lh:dead:us", "lh:deliveries:us")
    assert [bench.redis.zcard(key) for key in lists] == [0, 0], "the lists lose their old ones"
