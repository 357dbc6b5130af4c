"""The main job through real processes: API, Celery workers, Redis, webhooks; only the engine is a fake."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import requests
from redis import Redis
from standardwebhooks import Webhook

from dispatcher.client import segments_of
from dispatcher.schemas import parse_input
from tasks.events import verify_seed
from tasks.job import NewJob
from tests.conftest import KEY, SECRET, Eventually, Receiver, Stack
from tests.fake_engine import COUNTS


def finished(stack: Stack, eventually: Eventually, job_id: str, within_s: float = 40) -> dict[str, Any]:
    shown: dict[str, Any] = eventually(lambda: stack.ended(job_id), within_s, f"the end of {job_id}")
    return shown


def test_a_recording_becomes_a_transcript_with_webhooks_in_order(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    job_id = stack.client.submit(stack.input(receiver, "plain", 41))
    shown = finished(stack, eventually, job_id)
    assert shown["status"] == "COMPLETED"
    segments = segments_of(shown["output"])
    assert len(segments) == 4 * 4
    assert [s["start"] for s in segments] == sorted(s["start"] for s in segments)
    assert segments[-1]["end"] <= 41.0
    assert {s["extra_data"]["language"] for s in segments} == {"he"}
    eventually(lambda: "completed" in receiver.statuses("plain"))
    statuses = receiver.statuses("plain")
    assert statuses[0] == "transcribing"
    assert statuses.count("completed") == 1
    assert statuses[-1] == "completed"
    last = receiver.bodies("plain")[-1]
    assert last["job_id"] == job_id
    assert last["transcription"] == segments
    fractions = [body["progress"]["fraction"] for body in receiver.bodies("plain") if body.get("progress")]
    known = [fraction for fraction in fractions if fraction is not None]
    assert known == sorted(known)


def test_every_webhook_carries_both_signatures(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    stack.client.submit(stack.input(receiver, "הקלטה", 11))
    eventually(lambda: "completed" in receiver.statuses("הקלטה"))
    for headers, body in receiver.posts:
        assert verify_seed(SECRET, body, headers["x-webhook-signature"])
        Webhook(SECRET.encode()).verify(body, headers)
    assert len({headers["webhook-id"] for headers, _ in receiver.posts}) == len(receiver.posts)


@pytest.mark.parametrize(("threshold", "pinned"), [(0.85, "he"), (0.95, "")])
def test_the_client_says_how_sure_a_chunk_must_be_of_its_language(
    stack: Stack, receiver: Receiver, eventually: Eventually, threshold: float, pinned: str
) -> None:
    # The fake engine is sure by 0.9.
    arguments = {"language_detection_threshold": threshold}
    job_input = stack.input(receiver, f"sure-{threshold}", 21, transcribe_args=arguments)
    shown = finished(stack, eventually, stack.client.submit(job_input))
    job = stack.store.job(shown["id"])
    assert job is not None
    assert (job.total, job.language) == (2, pinned)
    assert (shown["language"], shown["language_probability"]) == ("he", 0.9)


def test_both_workers_take_part(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    job_id = stack.client.submit(stack.input(receiver, "shared", 61, "slow:100"))
    finished(stack, eventually, job_id)
    assert len(stack.store.workers(job_id)) == 2


def test_a_killed_child_costs_nothing_but_time(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    undisturbed = stack.client.submit(stack.input(receiver, "calm", 31))
    marker = receiver.folder / "died"
    disturbed = stack.client.submit(stack.input(receiver, "killed", 31, f"die:1:{marker}"))
    first, second = finished(stack, eventually, undisturbed), finished(stack, eventually, disturbed)
    assert marker.exists()
    assert second["status"] == "COMPLETED"
    assert segments_of(second["output"]) == segments_of(first["output"])


def test_a_chunk_that_hangs_is_taken_over(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    marker = receiver.folder / "hung"
    job_id = stack.client.submit(stack.input(receiver, "hung", 21, f"hang:0:{marker}"))
    assert finished(stack, eventually, job_id)["status"] == "COMPLETED"
    assert stack.redis.hget(f"lh:job:{job_id}:leases", "0:deaths") == b"1", "it counts against the chunk"
    # The child that hung is ended, or it would be of no more use to anybody.
    hung = Path("/proc") / marker.read_text()
    eventually(lambda: not hung.exists())


def test_lost_messages_are_rung_again(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    job_id = stack.client.submit(stack.input(receiver, "lost", 41, "slow:150"))
    eventually(lambda: stack.store.chunks(job_id))
    broker = Redis.from_url(stack.machine.settings.redis_url)
    broker.flushdb()
    broker.close()
    assert finished(stack, eventually, job_id)["status"] == "COMPLETED"


def test_a_chunk_that_always_fails_fails_the_job_and_names_its_span(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    job_id = stack.client.submit(stack.input(receiver, "poison", 31, "fail:1"))
    shown = finished(stack, eventually, job_id)
    assert shown["status"] == "FAILED"
    assert shown["code"] == "chunk_failed"
    assert "chunk 1" in shown["error"]
    assert "engine_failed" in shown["error"]
    eventually(lambda: receiver.statuses("poison")[-1:] == ["transcription_failed"])


def test_a_chunk_that_fails_once_is_tried_again(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    marker = receiver.folder / "failed"
    job_id = stack.client.submit(stack.input(receiver, "once", 21, f"fail-once:1:{marker}"))
    assert finished(stack, eventually, job_id)["status"] == "COMPLETED"
    assert marker.exists()


def test_what_was_counted_in_chunks_is_told_with_the_status(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    arguments = {"initial_prompt": "counted", "temperature": [0.0, 0.4]}
    job_id = stack.client.submit(stack.input(receiver, "counted", 31, transcribe_args=arguments))
    shown = finished(stack, eventually, job_id)
    chunks = len(stack.store.chunks(job_id))
    assert chunks >= 3
    assert shown["quality"] == {**{name: chunks * count for name, count in COUNTS.items()}, "sampled": True}
    plain = stack.client.submit(stack.input(receiver, "plain", 21))
    assert "quality" not in finished(stack, eventually, plain)


def test_cancel_stops_the_work_and_says_so(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    job_id = stack.client.submit(stack.input(receiver, "canceled", 61, "slow:400"))
    eventually(lambda: stack.client.status(job_id)["status"] == "IN_PROGRESS" and stack.store.chunks(job_id))
    assert stack.client.cancel(job_id)["status"] == "CANCELLED"
    assert stack.client.cancel(job_id)["status"] == "CANCELLED"
    eventually(lambda: receiver.statuses("canceled")[-1:] == ["transcription_failed"])
    assert receiver.bodies("canceled")[-1]["code"] == "canceled"
    done = len(stack.store.results(job_id))
    other = stack.client.submit(stack.input(receiver, "after", 21))
    finished(stack, eventually, other)
    assert len(stack.store.results(job_id)) == done


def test_a_run_that_takes_too_long_fails_in_the_platforms_words(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    job_input = stack.input(receiver, "late", 61, "slow:900")
    job_id = stack.client.submit(job_input, policy={"executionTimeout": 5_000})
    shown = finished(stack, eventually, job_id)
    assert (shown["status"], shown["error"]) == ("FAILED", "executionTimeout exceeded")


def test_a_job_past_its_ttl_expires(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    job_id = stack.client.submit(stack.input(receiver, "expired", 61, "slow:400"), policy={"ttl": 3_600_000})
    eventually(lambda: stack.store.chunks(job_id))
    # Age the stored stamps rather than wait for them.
    stack.redis.hset(f"lh:job:{job_id}", "deadline_ms", 1)
    stack.redis.zadd("lh:deadlines", {job_id: 1})
    eventually(lambda: receiver.statuses("expired")[-1:] == ["transcription_failed"], 40)
    for operation in ("status", "status-sync", "cancel", "retry"):
        method = "POST" if operation in ("cancel", "retry") else "GET"
        url = f"{stack.machine.url}/v2/longhand/{operation}/{job_id}"
        answer = requests.request(method, url, headers={"Authorization": KEY}, timeout=10)
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found"), operation
    url = f"{stack.machine.url}/v2/longhand/stream/{job_id}"
    answer = requests.get(url, headers={"Authorization": KEY}, timeout=10)
    assert (answer.status_code, answer.json()["status"]) == (200, "COMPLETED"), "never an error here"
    assert receiver.bodies("expired")[-1]["code"] == "expired"


def test_a_webhook_is_tried_again_under_the_same_id(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answers = [500, 503]
    stack.client.submit(stack.input(receiver, "retried", 11))
    eventually(lambda: "completed" in receiver.statuses("retried"))
    ids = [headers["webhook-id"] for headers, _ in receiver.posts]
    assert ids[0] == ids[1] == ids[2]
    assert receiver.statuses("retried")[:3] == ["transcribing"] * 3
    assert len({body for _, body in receiver.posts[:3]}) == 1


def test_a_killed_deliverer_loses_no_webhook(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    os.kill(stack.machine.pids()["deliver"], signal.SIGKILL)
    stack.client.submit(stack.input(receiver, "undelivered", 11))
    said: list[str] = []

    def arrived() -> bool:
        stack.machine.tick(said.append)
        return "completed" in receiver.statuses("undelivered")

    eventually(arrived, 40)
    assert any("deliver" in line for line in said)


def test_a_job_that_was_stored_but_never_rung_for_runs(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    parsed = parse_input({"url": f"{receiver.url}/stored.wav"}, stack.machine.settings)
    stack.input(receiver, "stored", 11)
    new = NewJob("stored-u1", "longhand", "tests", parsed.request, 60_000, 0)
    assert stack.store.create(new)
    assert finished(stack, eventually, "stored-u1")["status"] == "COMPLETED"


def test_blobs_go_when_their_job_has_succeeded(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    job_id = stack.client.submit(stack.input(receiver, "swept", 21))
    finished(stack, eventually, job_id)
    eventually(lambda: not (stack.folder / "blobs" / job_id).exists(), what="the sweep")
    assert not any((stack.folder / "tmp").iterdir())


@pytest.mark.parametrize("operation", ["status", "stream"])
def test_another_accounts_job_is_not_found(
    stack: Stack, receiver: Receiver, eventually: Eventually, operation: str
) -> None:
    job_id = stack.client.submit(stack.input(receiver, f"mine-{operation}", 11))
    finished(stack, eventually, job_id)
    answer = requests.get(
        f"{stack.machine.url}/v2/longhand/{operation}/{job_id}",
        headers={"Authorization": "Bearer another-key"},
        timeout=10,
    )
    assert answer.status_code == 404
    assert "status" not in answer.json()
