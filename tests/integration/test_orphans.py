"""Blobs of attempts that died or lost: none outlives its job, whenever it was stored."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from tasks import endings, reaper
from tasks.app import create_app
from tasks.blobs import Blobs
from tasks.context import Context, build
from tasks.errors import LeaseLost, NotMedia
from tasks.job import NewJob, Options, Request, Status
from tasks.leases import INGEST, TRANSCRIBE, Lease
from tasks.settings import Settings, child_environment
from tests.bench import NEW, REQUEST, Bench, chunk
from tests.conftest import BUCKET, Receiver, write_recording
from tests.machines.warp import pass_time

# An attempt whose process is killed when a chunk of it is stored, and not in the plan yet.
ATTEMPT = """
import os, signal, sys
from tasks import leases
from tasks.context import of_process
from tasks.heartbeat import Heartbeat
from tasks.ingest import ingest_recording

context, index = of_process(), int(sys.argv[1])
add = context.leases.add_chunk

def dies(lease, chunk):
    if chunk.index == index:
        os.kill(os.getpid(), signal.SIGKILL)
    return add(lease, chunk)

context.leases.add_chunk = dies
lease = leases.Lease("j", leases.INGEST, leases.INGEST, sys.argv[2])
job = context.store.job("j")
with Heartbeat(context.leases, lease, context.settings) as heartbeat:
    ingest_recording(context, job.request, job.endpoint, lease, heartbeat)
"""


@pytest.fixture(params=["folder", "s3"])
def context(request: pytest.FixtureRequest, redis: Redis, settings: Settings) -> Context:
    changes: dict[str, object] = {"durable_accept": False, "first_chunks_ms": ()}
    if request.param == "s3":
        request.getfixturevalue("s3")
        changes["blob_url"] = BUCKET
    assert redis.dbsize() == 0
    settings = settings.model_copy(update=changes)
    return build(settings, create_app(settings))


def stored(blobs: Blobs, job_id: str = "j") -> list[str]:
    """The names of all blobs of the job, without their suffixes."""
    blobs._fs.invalidate_cache()
    return sorted(Path(path).stem for path in blobs._fs.find(blobs._path(job_id)))


def begun(context: Context, receiver: Receiver) -> Lease:
    write_recording(receiver.folder / "talk.wav", 61)
    request = Request(f"{receiver.url}/talk.wav", "multi", Options(language="he"), chunk_ms=10_000)
    assert context.store.create(NewJob("j", "longhand", "us", request, 60_000, 0))
    lease = context.leases.claim("j", INGEST, INGEST)
    assert isinstance(lease, Lease)
    return lease


def killed(context: Context, lease: Lease, index: int) -> None:
    """The lease's attempt, in a process of its own, between storing a chunk and planning it."""
    ran = subprocess.run(
        [sys.executable, "-c", ATTEMPT, str(index), lease.fence],
        env=child_environment(context.settings),
        check=False,
        timeout=60,
    )
    assert ran.returncode == -9


def test_a_blob_of_an_attempt_that_was_killed_goes_with_its_job(context: Context, receiver: Receiver) -> None:
    lease = begun(context, receiver)
    killed(context, lease, 1)
    assert stored(context.blobs) == ["00000-1", "00001-1"]
    assert len(context.store.chunks("j")) == 1
    bench = Bench(context.leases._redis, context.settings)
    bench.expire(INGEST, INGEST)
    again = bench.claim(INGEST, INGEST)
    killed(context, again, 5)
    assert "00000-2" not in stored(context.blobs), "the chunk has a blob already"
    assert "00005-2" in stored(context.blobs)
    for index in range(5):
        bench.commit(bench.claim(TRANSCRIBE, str(index)))
    bench.finish()
    pass_time(bench.redis, context.settings.retention_ms + 1_000)
    reaper.tick(context)
    assert stored(context.blobs) == []


def test_a_blob_that_came_after_the_sweep_goes_with_the_job(context: Context, receiver: Receiver) -> None:
    """Of a process that froze before, and died after: nobody was told."""
    lease = begun(context, receiver)
    bench = Bench(context.leases._redis, context.settings)
    context.store.finish("j", replace(bench.canceled(), status=Status.SUCCEEDED))
    reaper.tick(context)
    context.blobs.put(f"j/00000-{lease.fence}.flac", b"late")
    reaper.tick(context)
    assert stored(context.blobs) == ["00000-1"]
    pass_time(bench.redis, context.settings.retention_ms + 1_000)
    reaper.tick(context)
    assert stored(context.blobs) == []
    assert bench.redis.zcard("lh:sweep") == bench.redis.zcard("lh:jobs") == 0


HOUR_MS = 3_600_000


def batch(context: Context) -> Bench:
    """A batch `j` of two recordings, one chunk of the first of which is stored and planned."""
    bench = Bench(context.leases._redis, context.settings)
    ttl_ms = 200 * HOUR_MS
    assert bench.store.create(replace(NEW, parts=(REQUEST, REQUEST), ttl_ms=ttl_ms, execution_timeout_ms=0))
    ingest = bench.claim(INGEST, INGEST, "j.0")
    context.blobs.put("j.0/00000-1", b"chunk")
    bench.leases.add_chunk(ingest, chunk(0))
    bench.leases.seal(ingest, 1, 1000, "[]")
    return bench


def fails(bench: Bench, job_id: str) -> None:
    assert bench.store.finish(job_id, endings.failed(job_id, "r", bench.store.now_ms(), NotMedia()))[0]


def pass_hours(context: Context, hours: int) -> None:
    pass_time(context.leases._redis, hours * HOUR_MS)
    reaper.tick(context)


def test_audio_of_a_recording_that_failed_stays_as_long_as_its_batch(context: Context) -> None:
    bench = batch(context)
    fails(bench, "j.0")
    pass_hours(context, 10)
    with pytest.raises(LeaseLost):
        bench.leases.add_chunk(Lease("j.0", INGEST, INGEST, "1"), chunk(1))
    reaper.tick(context)
    fails(bench, "j.1")
    fails(bench, "j")
    pass_hours(context, 15)
    assert stored(context.blobs, "j.0") == ["00000-1"]
    assert bench.store.retry("j") == "queued"
    pass_hours(context, 30)
    assert stored(context.blobs, "j.0") == ["00000-1"], "it is done again"
    bench.finish()
    pass_hours(context, 23)
    assert stored(context.blobs, "j.0") == ["00000-1"]
    pass_hours(context, 2)
    assert stored(context.blobs, "j.0") == []
    assert bench.redis.zcard("lh:sweep") == bench.redis.zcard("lh:jobs") == 0


@pytest.mark.parametrize("again", [False, True])
def test_a_blob_that_came_after_the_sweep_of_a_recording_goes_with_its_batch(
    context: Context, *, again: bool
) -> None:
    bench = batch(context)
    bench.transcribe_of("j.0", 0)
    assert bench.store.finish("j.0", replace(bench.canceled("j.0"), status=Status.SUCCEEDED))[0]
    reaper.tick(context)
    assert stored(context.blobs, "j.0") == []
    if again:
        fails(bench, "j")
        reaper.tick(context)
        assert bench.store.retry("j") == "queued"
        pass_hours(context, 25)
    context.blobs.put("j.0/00000-1", b"late")
    pass_hours(context, 30)
    bench.finish()
    reaper.tick(context)
    context.blobs.put("j.0/00001-1", b"later")
    pass_hours(context, 25)
    assert stored(context.blobs, "j.0") == []
    assert bench.redis.zcard("lh:sweep") == bench.redis.zcard("lh:jobs") == 0


def test_another_job_of_the_same_id_keeps_its_audio(context: Context, receiver: Receiver) -> None:
    bench = Bench(context.leases._redis, context.settings)
    begun(context, receiver)
    bench.finish()
    pass_time(bench.redis, context.settings.retention_ms + 1_000)
    begun(context, receiver)
    context.blobs.put("j/00000-1", b"new")
    reaper.tick(context)
    assert stored(context.blobs) == ["00000-1"]
