"""Several recordings in one job: each on its own, told together, each item with the recording's number."""

import base64
import functools
from dataclasses import replace
from typing import Any

import pytest
import requests

from dispatcher.client import segments_of
from tasks import endings
from tasks.errors import NotMedia
from tasks.job import Request
from tasks.leases import ASSEMBLE, INGEST, Refused
from tests.bench import HOOK, NEW, RECEIVER, Bench, chunk
from tests.conftest import KEY, Eventually, Receiver, Stack


def batch(stack: Stack, receiver: Receiver, name: str, seconds: list[int], **fields: Any) -> dict[str, Any]:
    """A job's input with a recording of each length."""
    inputs = [stack.input(receiver, f"{name}{number}", each) for number, each in enumerate(seconds)]
    return {**inputs[0], "url": [each["url"] for each in inputs], "recording_id": name, **fields}


def entries(output: list[Any], kind: str, index: int) -> list[dict[str, Any]]:
    return [entry for item in output for entry in item if (entry["type"], entry["index"]) == (kind, index)]


def segments(output: list[Any], index: int) -> list[dict[str, Any]]:
    return [segment for entry in entries(output, "segments", index) for segment in entry["data"]]


def test_every_recording_is_transcribed_and_its_items_bear_its_index(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    job_id = stack.client.submit(batch(stack, receiver, "both", [21, 11]))
    shown = eventually(lambda: stack.ended(job_id), 40)
    assert shown["status"] == "COMPLETED"
    assert all("index" in entry for item in shown["output"] for entry in item)
    for index, seconds in ((0, 21), (1, 11)):
        alone = stack.client.submit(stack.input(receiver, f"both{index}", seconds))
        single = eventually(functools.partial(stack.ended, alone), 40)
        assert segments(shown["output"], index) == segments_of(single["output"])
        last = entries(shown["output"], "progress", index)[-1]["data"]
        assert last["extra"]["processed_seconds"] == seconds
        # Unknown, which is 0, where the last chunk was done before the plan was complete.
        assert last["step_fraction"] == (1.0 if last["extra"]["total_seconds"] else 0.0)
    assert shown["duration"] == pytest.approx(32.0)
    eventually(lambda: receiver.statuses("both")[-1:] == ["completed"])
    assert receiver.statuses("both") == ["transcribing"] * (len(receiver.statuses("both")) - 1) + [
        "completed"
    ]
    shares = [body["progress"]["fraction"] for body in receiver.bodies("both")[1:-1]]
    assert shares == sorted(shares, key=lambda share: share or 0)
    told = receiver.bodies("both")[-1]
    assert told["job_id"] == job_id
    assert [(source["index"], source["duration"]) for source in told["sources"]] == [(0, 21.0), (1, 11.0)]
    assert [s["index"] for s in told["transcription"]] == [0] * 8 + [1] * 4


def test_a_recording_that_fails_leaves_the_others_alone(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    job_input = batch(stack, receiver, "half", [11, 11, 11])
    job_input["url"][1] = f"{receiver.url}/404"
    job_id = stack.client.submit(job_input)
    shown = eventually(lambda: stack.ended(job_id), 40)
    assert shown["status"] == "COMPLETED"
    (error,) = entries(shown["output"], "error", 1)
    assert "404" in error["data"]
    assert [len(segments(shown["output"], index)) for index in range(3)] == [4, 0, 4]
    eventually(lambda: receiver.statuses("half")[-1:] == ["completed"])
    sources = receiver.bodies("half")[-1]["sources"]
    assert [source.get("code") for source in sources] == [None, "source_refused", None]


def test_one_in_a_list_is_a_batch_and_streaming_off_gives_one_item(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    job_id = stack.client.submit(batch(stack, receiver, "one", [11]))
    shown = eventually(lambda: stack.ended(job_id), 40)
    assert {entry["index"] for item in shown["output"] for entry in item} == {0}
    job_id = stack.client.submit(batch(stack, receiver, "whole", [11, 21], streaming=False))
    (item,) = eventually(lambda: stack.ended(job_id), 40)["output"]
    assert [len(found) for found in item["result"]] == [4, 8]


def test_blobs_come_in_a_list_too(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    stack.input(receiver, "blob", 11)
    data = base64.b64encode((receiver.folder / "blob.wav").read_bytes()).decode()
    arguments = {"blob": [data, data]}
    job_id = stack.client.submit({"type": "blob", "transcribe_args": arguments, "chunk_seconds": 10})
    shown = eventually(lambda: stack.ended(job_id), 40)
    assert segments(shown["output"], 0) == segments(shown["output"], 1) != []
    eventually(lambda: not list((stack.folder / "blobs").glob(f"{job_id}*")), what="the sweep")


def test_cancel_ends_every_recording(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    job_input = batch(stack, receiver, "stop", [61, 61], transcribe_args={"initial_prompt": "slow:1000"})
    job_id = stack.client.submit(job_input)
    eventually(lambda: stack.client.status(job_id)["status"] == "IN_PROGRESS")
    assert stack.client.cancel(job_id)["status"] == "CANCELLED"
    for part in range(2):
        assert stack.redis.hget(f"lh:job:{job_id}.{part}", "status") == b"canceled"
    eventually(lambda: stack.store.slots("transcribe")[1] == 0, what="the end of the work")


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ({"url": ["https://a.test/x", ""]}, "no_source"),
        ({"url": []}, "no_source"),
        ({"url": ["https://a.test/x", "ftp://a.test/x"]}, "unsupported_scheme"),
        ({"url": ["https://a.test/x"] * 1001}, "invalid_input"),
        ({"blob": ["UklGRg==", "%%%"]}, "invalid_input"),
        ({"url": ["https://a.test/x"], "blob": ["UklGRg=="]}, "invalid_input"),
    ],
)
def test_a_list_with_a_mistake_is_refused_as_a_whole(stack: Stack, source: dict[str, Any], code: str) -> None:
    job_id = stack.client.submit(source)
    shown = stack.client.status(job_id)
    assert (shown["status"], shown["code"]) == ("FAILED", code)
    assert not list((stack.folder / "blobs").glob(f"{job_id}*"))


def test_a_part_cannot_be_addressed_and_is_not_listed(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    before = stack.client.health()["jobs"]["completed"]
    job_id = stack.client.submit(batch(stack, receiver, "listed", [11, 11]))
    eventually(lambda: stack.ended(job_id), 40)
    url = f"{stack.machine.url}/v2/longhand/status/{job_id}.0"
    assert requests.get(url, headers={"Authorization": KEY}, timeout=10).status_code == 404
    assert not any(job["id"].startswith(f"{job_id}.") for job in stack.client.jobs(1000))
    assert stack.client.health()["jobs"]["completed"] == before + 1


def test_progress_is_that_of_all(stack: Stack, receiver: Receiver) -> None:
    job_input = batch(stack, receiver, "shown", [31, 31], transcribe_args={"initial_prompt": "slow:100"})
    shares = list(stack.client.progress(stack.client.submit(job_input)))
    assert shares == sorted(shares)
    assert any(0 < share < 1 for share in shares)


# In Redis


@pytest.fixture
def parts(bench: Bench) -> Bench:
    """A batch `j` of two recordings of one chunk each."""
    requests_ = tuple(Request(f"https://a.test/{n}", "multi", index=n) for n in range(2))
    new = type(NEW)(**{**{name: getattr(NEW, name) for name in NEW.__slots__}, "parts": requests_})
    assert bench.store.create(new)
    return bench


def run_part(bench: Bench, part: str) -> None:
    ingest = bench.claim(INGEST, INGEST, part)
    bench.leases.add_chunk(ingest, chunk(0))
    bench.leases.seal(ingest, 1, 1000, "[]")
    bench.transcribe_of(part, 0)
    bench.claim(ASSEMBLE, ASSEMBLE, part)


def end_part(bench: Bench, part: str) -> None:
    ending = endings.failed(part, "", bench.store.now_ms(), NotMedia("bad"))
    assert bench.store.finish(part, ending)[0]


def fail(bench: Bench) -> None:
    assert bench.store.finish("j", endings.failed("j", "", bench.store.now_ms(), NotMedia("bad")))[0]


def succeed(bench: Bench, part: str) -> None:
    job = bench.job(part)
    assert job.request
    transcript = bench.store.transcript(job)
    ending = endings.succeeded(job, job.request, transcript, "multi", bench.store.now_ms())
    assert bench.store.finish(part, ending)[0]


def told(bench: Bench) -> list[tuple[int | None, int]]:
    return [(event.part, event.index) for event in bench.store.events("j")]


def test_the_next_run_of_a_batch_keeps_what_succeeded(parts: Bench) -> None:
    run_part(parts, "j.0")
    succeed(parts, "j.0")
    fail(parts)
    assert parts.store.retry("j") == "queued"
    assert told(parts) == [(0, 0), (0, -1)]
    assert parts.job("j.0").status == "succeeded"
    assert all(parts.redis.pttl(key) == -1 for key in parts.redis.scan_iter("lh:job:j.0*"))
    assert parts.leases.hand_out_ingests() == ["j.1"]
    run_part(parts, "j.1")
    succeed(parts, "j.1")
    assert told(parts) == [(0, 0), (0, -1), (1, 0), (1, -1)]
    assert parts.leases.reap().assemble == ["j"]
    assert parts.claim(ASSEMBLE, ASSEMBLE)


def test_the_next_run_of_a_batch_keeps_the_chunks_of_what_did_not(parts: Bench) -> None:
    run_part(parts, "j.0")
    fail(parts)
    assert parts.store.retry("j") == "queued"
    assert told(parts) == [(0, 0)]
    assert parts.claim(ASSEMBLE, ASSEMBLE, "j.0"), "all its chunks were done"
    assert parts.leases.hand_out_ingests() == ["j.1"]


@pytest.mark.parametrize("whole", [True, False], ids=["the batch fails", "the recording fails"])
def test_a_failure_tells_of_all_that_is_done_in_a_recording(parts: Bench, whole: bool) -> None:
    ingest = parts.claim(INGEST, INGEST, "j.0")
    for index in range(3):
        parts.leases.add_chunk(ingest, chunk(index))
    for index in (0, 2):
        parts.transcribe_of("j.0", index)
    run_part(parts, "j.1")
    before = [(0, 0), (1, 0)]
    assert told(parts) == before
    if whole:
        fail(parts)
        assert told(parts) == [*before, (0, 2), (None, -1)]
    else:
        end_part(parts, "j.0")
        assert told(parts) == [*before, (0, 2), (0, -1)]
        fail(parts)
        assert told(parts) == [*before, (0, 2), (0, -1), (None, -1)], "and tells of it once"


def test_a_batch_of_which_all_was_done_is_only_assembled_again(parts: Bench) -> None:
    for part in ("j.0", "j.1"):
        run_part(parts, part)
        succeed(parts, part)
    fail(parts)
    assert parts.store.retry("j") == "complete"
    assert parts.claim(ASSEMBLE, ASSEMBLE)


def test_the_progress_of_a_batch_is_that_of_all_its_recordings(bench: Bench) -> None:
    requests_ = tuple(Request(f"https://a.test/{n}", "multi", index=n) for n in range(3))
    assert bench.store.create(replace(NEW, parts=requests_, webhook_url=HOOK, receiver=RECEIVER))
    ingests = [bench.claim(INGEST, INGEST, f"j.{part}") for part in range(3)]
    bench.announce("j.1")
    for part, ingest in enumerate(ingests[:2]):
        for index in range(2):
            bench.leases.add_chunk(ingest, chunk(index))
        bench.transcribe_of(f"j.{part}", 0)
    for ingest in ingests[:2]:
        bench.leases.seal(ingest, 2, 2000, "[]")
    end_part(bench, "j.2")
    bench.transcribe_of("j.0", 1)
    assert [what for what, _ in bench.written()] == [
        "transcribing",
        "progress 1 of None",
        "progress 2 of None",
        "progress 3 of 4.0",
    ]
    fail(bench)
    assert bench.store.retry("j") == "queued"
    assert bench.claim(INGEST, INGEST, "j.2")
    bench.announce("j.0")
    bench.transcribe_of("j.1", 1)
    # The third begins again: the length is not known any more.
    assert bench.written()[-1][0] == "progress 4 of None"


def test_a_failed_batch_is_tried_again(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    job_input = batch(stack, receiver, "again", [61, 11], transcribe_args={"initial_prompt": "slow:200"})
    job_id = stack.client.submit(job_input)
    eventually(lambda: len(stack.store.events(job_id)) > 2, 40)
    ending = endings.failed(job_id, "again", stack.store.now_ms(), NotMedia("bad"))
    assert stack.store.finish(job_id, ending)[0]
    answer = stack.client.request("POST", f"retry/{job_id}", json={})
    assert answer.json() == {"id": job_id, "status": "IN_QUEUE"}
    shown = eventually(lambda: stack.ended(job_id), 60)
    assert shown["status"] == "COMPLETED"
    for index, seconds in ((0, 61), (1, 11)):
        alone = stack.client.submit(stack.input(receiver, f"again{index}", seconds))
        single = eventually(functools.partial(stack.ended, alone), 40)
        assert segments(shown["output"], index) == segments_of(single["output"])


def test_a_batch_runs_with_its_first_part_and_is_assembled_after_its_last(parts: Bench) -> None:
    assert sorted(parts.leases.hand_out_ingests()) == ["j.0"]
    assert parts.job().status == "queued"
    run_part(parts, "j.0")
    assert parts.job().status == "running"
    end_part(parts, "j.0")
    assert parts.leases.reap().assemble == []
    end_part(parts, "j.1")
    assert parts.leases.reap().assemble == ["j"]
    assert [(event.part, event.index) for event in parts.store.events("j")] == [(0, 0), (0, -1), (1, -1)]


def test_a_batch_itself_is_never_ingested(parts: Bench) -> None:
    assert parts.leases.claim("j", INGEST, INGEST) == Refused("unknown")
    assert parts.job().status == "queued"


def test_a_part_is_kept_until_its_batch_has_ended(parts: Bench) -> None:
    run_part(parts, "j.0")
    end_part(parts, "j.0")
    kept = [key for key in parts.redis.scan_iter("lh:job:j.0*") if not key.endswith(b":outbox")]
    assert kept
    assert {parts.redis.pttl(key) for key in kept} == {-1}
    assert parts.finish()[0]
    assert all(parts.redis.pttl(key) > 0 for key in kept)


def test_a_batch_that_ends_takes_its_parts_with_it(parts: Bench) -> None:
    run_part(parts, "j.0")
    assert parts.finish()[0]
    for part in ("j.0", "j.1"):
        assert parts.job(part).status == "canceled"
        assert 0 < parts.redis.pttl(f"lh:job:{part}") <= parts.settings.retention_ms
    assert parts.places() == []
    assert parts.leases.hand_out_ingests() == []
    counts = parts.store.counts("longhand")
    assert sum(counts.values()) == 1, "a batch is one job"
