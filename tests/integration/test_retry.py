"""`/retry` and `/purge-queue`: the next run of a failed job keeps what is done; a queue is emptied."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from dispatcher.client import segments_of
from tasks import endings
from tasks.errors import NotMedia
from tasks.leases import ASSEMBLE, INGEST, TRANSCRIBE, Beat, Refused
from tests.bench import HOOK, Bench, chunk
from tests.conftest import KEY, OTHERS_KEY, Eventually, Receiver, Stack


def post(stack: Stack, operation: str, key: str = KEY) -> requests.Response:
    url = f"{stack.machine.url}/v2/longhand/{operation}"
    headers = {"Authorization": key, "Content-Type": "application/json"}
    # As clients do it: a body of JSON is announced, and there is none.
    return requests.post(url, headers=headers, timeout=10)


def chunks_done(stack: Stack, job_id: str) -> list[int]:
    """The chunks that were transcribed for a job, in the order of time."""
    lines = (stack.folder / "logs" / "transcribe.log").read_text().splitlines()
    told = [json.loads(line) for line in lines if '"chunk_done"' in line]
    return [line["chunk"] for line in told if line["job_id"] == job_id]


def test_a_retry_redoes_what_is_missing_and_nothing_else(
    stack: Stack, receiver: Receiver, eventually: Eventually, tmp_path: Path
) -> None:
    good = tmp_path / "good"
    job_input = stack.input(receiver, "retried", 41, prompt=f"fail-until:2:{good}")
    job_id = stack.client.submit(job_input)
    shown = eventually(lambda: stack.ended(job_id), 40, "the end of the first run")
    assert (shown["status"], shown["code"]) == ("FAILED", "chunk_failed")
    eventually(lambda: "transcription_failed" in receiver.statuses("retried"))
    before = chunks_done(stack, job_id)
    assert sorted(before) == [0, 1, 3]

    good.touch()
    answer = post(stack, f"retry/{job_id}")
    assert (answer.status_code, answer.json()) == (200, {"id": job_id, "status": "IN_QUEUE"})
    shown = eventually(lambda: stack.ended(job_id), 40, "the end of the second run")
    assert shown["status"] == "COMPLETED"
    assert "error" not in shown
    assert chunks_done(stack, job_id) == [*before, 2]
    segments = segments_of(shown["output"])
    assert len(segments) == 4 * 4
    assert [s["start"] for s in segments] == sorted(s["start"] for s in segments)
    page = requests.get(
        f"{stack.machine.url}/v2/longhand/stream/{job_id}", headers={"Authorization": KEY}, timeout=20
    ).json()
    assert segments_of([item["output"] for item in page["stream"]]) == segments, "from the start again"

    eventually(lambda: "completed" in receiver.statuses("retried"), what="the second end")
    ids = [headers["webhook-id"] for headers, _ in receiver.posts]
    assert {id_.rsplit("_", 2)[1] for id_ in ids} == {"1", "2"}, "a run has ids of its own"
    statuses = receiver.statuses("retried")
    assert statuses.index("transcription_failed") < statuses.index("completed")
    assert post(stack, f"retry/{job_id}").status_code == 400
    eventually(lambda: not (stack.folder / "blobs" / job_id).exists(), what="the sweep")


def test_a_job_that_failed_before_its_plan_was_made_starts_from_the_beginning(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    job_input = stack.input(receiver, "late", 11)
    hidden = receiver.folder / "late.wav"
    audio = hidden.read_bytes()
    hidden.unlink()
    job_id = stack.client.submit(job_input)
    shown = eventually(lambda: stack.ended(job_id), 40, "the end of the first run")
    assert (shown["status"], shown["code"]) == ("FAILED", "source_refused")
    hidden.write_bytes(audio)
    assert post(stack, f"retry/{job_id}").status_code == 200
    shown = eventually(lambda: stack.ended(job_id), 40, "the end of the second run")
    assert shown["status"] == "COMPLETED"
    assert shown["delayTime"] < 30_000, "counted from the retry"


@pytest.mark.parametrize("operation", ["retry", "cancel"])
def test_what_is_not_there_cannot_be_changed(stack: Stack, operation: str) -> None:
    answer = post(stack, f"{operation}/no-such-job")
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


def test_only_a_failed_job_with_a_valid_input_is_retried(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    refused = stack.client.submit({"url": "ftp://a.test/x"})
    done = stack.client.submit(stack.input(receiver, "done", 11))
    eventually(lambda: stack.ended(done), 40)
    for job_id in (refused, done):
        before = stack.client.status(job_id)
        answer = post(stack, f"retry/{job_id}")
        assert (answer.status_code, answer.json()["code"]) == (400, "not_failed")
        assert stack.client.status(job_id) == before
    assert post(stack, f"retry/{refused}", OTHERS_KEY).status_code == 404


def test_a_purge_cancels_what_waits_and_nothing_else(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    busy = stack.client.submit(stack.input(receiver, "busy", 61, prompt="slow:300"))
    eventually(lambda: stack.client.status(busy)["status"] == "IN_PROGRESS")
    # They wait: all that ingests is stopped.
    with stack.stopped("io"):
        waiting = [stack.client.submit(stack.input(receiver, f"purged{n}", 11)) for n in range(3)]
        others = post_as_others(stack, stack.input(receiver, "theirs", 11))
        answer = post(stack, "purge-queue")
        assert (answer.status_code, answer.json()) == (200, {"removed": 3, "status": "completed"})
        assert [stack.client.status(job_id)["status"] for job_id in waiting] == ["CANCELLED"] * 3
        assert post(stack, "purge-queue").json()["removed"] == 0
    purged = ("purged0", "purged1", "purged2")
    eventually(lambda: [receiver.statuses(name) for name in purged] == [["transcription_failed"]] * 3)
    assert eventually(lambda: stack.ended(busy), 60)["status"] == "COMPLETED"
    eventually(lambda: receiver.statuses("theirs")[-1:] == ["completed"], 40, f"the others' {others}")


def post_as_others(stack: Stack, job_input: dict[str, Any]) -> str:
    url = f"{stack.machine.url}/v2/longhand/run"
    answer = requests.post(url, json={"input": job_input}, headers={"Authorization": OTHERS_KEY}, timeout=10)
    return str(answer.json()["id"])


# In Redis


@pytest.fixture
def failed(bench: Bench) -> Bench:
    """A job of three chunks of which 0 is done and 1 dead; it has failed."""
    bench.planned(chunks=3, webhook_url=HOOK)
    bench.seal()
    bench.announce()
    bench.commit(bench.claim(TRANSCRIBE, "0"))
    bench.leases.release(bench.claim(TRANSCRIBE, "1"), NotMedia("bad"), 0)
    assert bench.store.dead("j")
    ending = endings.failed("j", "j", bench.store.now_ms(), NotMedia("bad"))
    assert bench.store.finish("j", ending)[0]
    return bench


def test_the_next_run_has_what_is_done_and_everything_else_is_pending(failed: Bench) -> None:
    assert failed.store.retry("j") == "queued"
    job = failed.job()
    assert (job.run, job.status, job.error, job.announced_ms, job.started_ms) == (2, "queued", "", None, None)
    assert failed.sets() == {"pending": {1, 2}, "inflight": set(), "done": {0}, "dead": set()}
    assert [event.index for event in failed.store.events("j")] == [0]
    assert failed.store.cursor("j") == "0"
    for key in failed.redis.scan_iter("lh:job:j*"):
        assert failed.redis.pttl(key) == -1, key
    assert failed.redis.zscore("lh:sweep", "j") is None
    assert failed.store.retry("j") == "other", "once"


def test_it_becomes_running_with_its_first_chunk(failed: Bench) -> None:
    failed.store.retry("j")
    assert failed.hand_out() == [("j", 1), ("j", 2)]
    failed.claim(TRANSCRIBE, "1")
    assert failed.job().status == "running"
    assert failed.job().started_ms is not None
    assert isinstance(failed.leases.claim("j", INGEST, INGEST), Refused)


def test_who_worked_for_the_last_run_cannot_write(bench: Bench) -> None:
    bench.planned(chunks=2)
    late = bench.claim(TRANSCRIBE, "0")
    ending = endings.failed("j", "j", bench.store.now_ms(), NotMedia("bad"))
    bench.store.finish("j", ending)
    bench.store.retry("j")
    assert bench.leases.beat(late) is Beat.ENDED
    bench.claim(INGEST, INGEST)
    assert bench.leases.beat(late) is Beat.LOST


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_starts_are_counted_anew(failed: Bench, failures: int) -> None:
    failed.store.retry("j")
    for _ in range(failures - 1):
        failed.store.finish("j", endings.failed("j", "j", failed.store.now_ms(), NotMedia("bad")))
        failed.store.retry("j")
    for _ in range(failed.settings.max_starts):
        failed.claim(TRANSCRIBE, "1")
        failed.expire(TRANSCRIBE, "1")
        failed.leases.reap()
    assert failed.leases.claim("j", TRANSCRIBE, "1") == Refused("dead")


def test_a_job_whose_chunks_are_all_done_needs_its_end_only(bench: Bench) -> None:
    bench.ready_to_assemble()
    bench.store.finish("j", endings.failed("j", "j", bench.store.now_ms(), NotMedia("bad")))
    assert bench.store.retry("j") == "complete"
    lease = bench.claim(ASSEMBLE, ASSEMBLE)
    assert bench.job().status == "running"
    assert bench.store.finish("j", bench.canceled(), stage=ASSEMBLE, fence=lease.fence)[0]


def test_a_purge_ends_only_what_has_not_begun(bench: Bench) -> None:
    bench.planned()
    assert [job.id for job in bench.store.queued("longhand", "us")] == []
    assert bench.store.finish("j", bench.canceled(), stage="queued") == (False, ())


def test_a_job_whose_plan_was_written_in_part_goes_on_with_it(bench: Bench) -> None:
    bench.planned(chunks=2)
    ending = endings.failed("j", "j", bench.store.now_ms(), NotMedia("bad"))
    bench.store.finish("j", ending)
    bench.store.retry("j")
    assert bench.hand_out() == [], "nothing before its ingest"
    ingest = bench.claim(INGEST, INGEST)
    chunks = [replace(chunk(index), blob="of this run") for index in range(2)]
    assert not any(bench.leases.add_chunk(ingest, each) for each in chunks), "both were there"
    assert bench.hand_out() == [("j", 0), ("j", 1)]
