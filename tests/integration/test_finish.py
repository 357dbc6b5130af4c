"""The end of a job in a real Redis: it comes once, is told once, and leaves nothing behind."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from tasks import endings, events
from tasks.errors import NotMedia
from tasks.job import Status
from tasks.leases import ASSEMBLE, INGEST, TRANSCRIBE, Refused
from tasks.outbox import Attempt
from tests.bench import HOOK, NEW, RECEIVER, Bench


def test_a_job_ends_once(bench: Bench) -> None:
    bench.planned()
    error = NotMedia("a web page")
    assert bench.store.finish("j", endings.failed("j", "j", bench.store.now_ms(), error)) == (True, ())
    job = bench.job()
    assert (job.status, job.code, job.error) == (Status.FAILED, "not_media", "a web page")
    assert job.finished_ms is not None
    assert bench.finish() == (False, ())
    assert bench.job() == job
    assert bench.redis.xlen("lh:job:j:events") == 1
    assert bench.store.finish("no", bench.canceled()) == (False, ())
    assert bench.store.job("no") is None


def test_the_meta_of_an_ending_is_the_jobs(bench: Bench) -> None:
    bench.planned()
    bench.store.finish("j", replace(bench.canceled(), meta=json.dumps({"model": "m"})))
    assert bench.job().meta == {"model": "m"}


def test_a_stage_ends_a_job_only_while_it_holds_its_lease(bench: Bench) -> None:
    old = bench.ready_to_assemble()
    bench.expire(ASSEMBLE, ASSEMBLE)
    new = bench.claim(ASSEMBLE, ASSEMBLE)
    ending = replace(bench.canceled(), status=Status.SUCCEEDED)
    assert bench.store.finish("j", ending, stage=ASSEMBLE, fence=old.fence) == (False, ())
    assert bench.job().status is Status.RUNNING
    assert bench.store.finish("j", ending, stage=ASSEMBLE, fence=new.fence) == (True, ())
    assert bench.job().status is Status.SUCCEEDED


def test_a_queued_job_can_be_canceled(bench: Bench) -> None:
    bench.store.create(NEW)
    assert bench.places() == ["lh:deadlines", "lh:line:ingest:1/us"]
    assert bench.finish() == (True, ())
    assert bench.places() == []
    assert bench.leases.hand_out_ingests() == []
    assert bench.leases.claim("j", INGEST, INGEST) == Refused("gone")


def with_ingest(bench: Bench) -> None:
    bench.planned(webhook_url=HOOK)


def with_everything(bench: Bench) -> None:
    """Chunks done, dead, leased, rung for and waiting; deliveries; a place in line."""
    bench.planned(chunks=5, webhook_url=HOOK)
    bench.store.announce("j", "{}")
    bench.commit(bench.claim(TRANSCRIBE, "0"))
    bench.leases.release(bench.claim(TRANSCRIBE, "1"), NotMedia())
    bench.claim(TRANSCRIBE, "2")
    assert bench.hand_out() == [("j", 3)]


def to_assemble(bench: Bench) -> None:
    bench.ready_to_assemble(webhook_url=HOOK)


@pytest.mark.parametrize("prepare", [with_ingest, with_everything, to_assemble])
@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.CANCELED])
def test_nothing_of_an_ended_job_stays(
    bench: Bench, prepare: Callable[[Bench], None], status: Status
) -> None:
    prepare(bench)
    assert bench.places()
    bench.store.finish("j", replace(bench.canceled(), status=status))
    assert bench.places() == []
    retention_ms = bench.settings.retention_ms
    rows = [key.decode() for key in bench.redis.scan_iter("lh:job:j*")]
    assert "lh:job:j" in rows
    for key in rows:
        # The list of deliveries that wait ends with the last of them.
        if key != "lh:job:j:outbox":
            assert 0 < bench.redis.pttl(key) <= retention_ms, key
    while delivery := bench.outbox.claim(RECEIVER, "drain"):
        bench.outbox.settle(delivery, "delivered", Attempt(1, 200, 1), "fast")
    kept = {key.decode().split(":")[1] for key in bench.redis.scan_iter("lh:*") if bench.redis.pttl(key) < 0}
    assert kept <= {"jobs", "counts", "waiting", "clock", "sweep"}, (
        "what is left belongs to no single job, or is pruned"
    )


def test_audio_may_go_at_once_only_after_success(bench: Bench) -> None:
    for job_id, status in (("a", Status.SUCCEEDED), ("b", Status.FAILED)):
        bench.planned(job_id)
        bench.store.finish(job_id, replace(bench.canceled(job_id), status=status))
    assert bench.leases.reap().sweep == ["a"]
    assert bench.leases.reap().sweep == ["a"], "again until it is done"
    bench.leases.swept("a")
    assert bench.leases.reap().sweep == []
    for job_id in ("a", "b"):
        wait_ms = bench.redis.zscore("lh:sweep", job_id) - bench.store.now_ms()
        assert 0.9 * bench.settings.retention_ms < wait_ms <= bench.settings.retention_ms + 1, "once more"


@pytest.mark.parametrize(("announced", "status"), [(False, "error"), (True, "transcription_failed")])
def test_a_failure_is_told_by_whether_transcription_was_announced(
    bench: Bench, announced: bool, status: str
) -> None:
    bench.planned(webhook_url=HOOK)
    if announced:
        bench.store.announce("j", events.transcribing("j", "j", bench.store.now_ms()))
        delivery = bench.outbox.claim(RECEIVER, "drain")
        assert delivery is not None
        bench.outbox.settle(delivery, "delivered", Attempt(1, 200, 1), "fast")
    ending = endings.failed("j", "j", bench.store.now_ms(), NotMedia())
    assert bench.store.finish("j", ending) == (True, (RECEIVER,))
    told = bench.outbox.claim(RECEIVER, "drain")
    assert told is not None
    assert json.loads(told.body)["status"] == status
