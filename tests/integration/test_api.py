"""The HTTP API in RunPod's shape, spoken to with plain requests."""

import base64
import time

import pytest

from dispatcher.client import segments_of
from tests.conftest import KEY, Eventually, Receiver, Stack
from tests.endpoint import Api, completed
from tests.hosts import connections, listening, port_of

HEALTH_KEYS = {
    "jobs": {"completed", "failed", "inProgress", "inQueue", "retried"},
    "workers": {"idle", "initializing", "ready", "running", "throttled", "unhealthy"},
}


@pytest.fixture
def api(stack: Stack) -> Api:
    return Api(stack.machine.url)


def test_run_answers_with_an_id_in_the_queue(stack: Stack, receiver: Receiver, api: Api) -> None:
    answer = api("POST", "run", json={"input": stack.input(receiver, "run", 11)})
    assert answer.status_code == 200
    assert answer.json() == {"id": answer.json()["id"], "status": "IN_QUEUE"}
    assert answer.json()["id"].endswith("-u1")
    # The id is the job's from this moment on.
    assert api("GET", f"status/{answer.json()['id']}").status_code == 200


def test_a_status_object_of_each_method(
    stack: Stack, receiver: Receiver, eventually: Eventually, api: Api
) -> None:
    job_id = completed(stack, receiver, eventually, "status")
    shown = api("GET", f"status/{job_id}").json()
    ours = {"duration", "language", "language_probability", "model", "engine"}
    assert set(shown) - ours == {"id", "status", "delayTime", "executionTime", "workerId", "output"}
    assert isinstance(shown["delayTime"], int)
    assert isinstance(shown["executionTime"], int)
    for operation in ("status", "status-sync"):
        for method in ("GET", "POST"):
            assert api(method, f"{operation}/{job_id}").json() == shown
            assert api(method, f"{operation}/{job_id}?ttl=1000&wait=1000").json() == shown


def test_the_output_is_the_concatenation_of_the_stream(stack: Stack, receiver: Receiver, api: Api) -> None:
    job_id = stack.client.submit(stack.input(receiver, "stream", 31, "slow:50"))
    pages = list(api.pages(job_id))
    assert all(set(page) >= {"status", "stream"} for page in pages)
    assert [page["status"] for page in pages] == ["IN_PROGRESS"] * (len(pages) - 1) + ["COMPLETED"]
    items = [item for page in pages for item in page["stream"]]
    assert all(set(item) == {"output"} for item in items)
    assert len(items) == 3
    shown = api("GET", f"status/{job_id}").json()
    assert [item["output"] for item in items] == shown["output"]
    # What was read is gone; a client that asks once more sees the end again.
    again = api("POST", f"stream/{job_id}").json()
    assert (again["status"], again["stream"]) == ("COMPLETED", [])


def test_a_cursor_reads_again_and_moves_nothing(
    stack: Stack, receiver: Receiver, eventually: Eventually, api: Api
) -> None:
    job_id = completed(stack, receiver, eventually, "cursor")
    whole = api("GET", f"stream/{job_id}?cursor=0").json()
    assert len(whole["stream"]) == 3
    assert api("GET", f"stream/{job_id}?cursor=0").json() == whole
    rest = api("GET", f"stream/{job_id}?cursor={whole['cursor']}").json()
    assert (rest["status"], rest["stream"]) == ("COMPLETED", [])
    assert api("GET", f"stream/{job_id}").json()["stream"] == whole["stream"]


def test_an_idle_stream_is_held_and_answers_before_clients_give_up(
    stack: Stack, receiver: Receiver, api: Api
) -> None:
    job_id = stack.client.submit(stack.input(receiver, "idle", 11, "slow:1700"))
    started_s = time.monotonic()
    page = api("GET", f"stream/{job_id}").json()
    held_s = time.monotonic() - started_s
    short = api("POST", f"stream/{job_id}?wait=200").json()
    short_s = time.monotonic() - started_s - held_s
    api("POST", f"cancel/{job_id}")
    assert (page["status"], page["stream"]) == ("IN_PROGRESS", [])
    assert 3 < held_s < 9
    assert (short["status"], short["stream"]) == ("IN_PROGRESS", [])
    assert short_s < 2


def test_a_waiting_stream_wakes_with_the_first_item(stack: Stack, receiver: Receiver, api: Api) -> None:
    job_id = stack.client.submit(stack.input(receiver, "woken", 11, "slow:200"))
    started_s = time.monotonic()
    page = api("GET", f"stream/{job_id}?wait=60000").json()
    assert len(page["stream"]) == 1
    assert time.monotonic() - started_s < 20


def test_a_failed_jobs_stream_drains_and_ends(
    stack: Stack, receiver: Receiver, eventually: Eventually, api: Api
) -> None:
    job_id = stack.client.submit(stack.input(receiver, "stream-failed", 31, "fail:2"))
    eventually(lambda: stack.ended(job_id))
    pages = list(api.pages(job_id))
    assert pages[-1]["status"] == "COMPLETED"
    assert len([item for page in pages for item in page["stream"]]) == 2
    shown = api("GET", f"status/{job_id}").json()
    assert set(shown) == {"id", "status", "delayTime", "executionTime", "workerId", "error", "code"}
    assert shown["status"] == "FAILED"
    assert isinstance(shown["error"], str)


def test_cancel_ends_the_stream(stack: Stack, receiver: Receiver, api: Api) -> None:
    job_id = stack.client.submit(stack.input(receiver, "stream-canceled", 61, "slow:300"))
    assert api("GET", f"stream/{job_id}?wait=20000").json()["stream"]
    for body in ("{}", ""):
        headers = {"Authorization": KEY, "Content-Type": "application/json"}
        answer = api("POST", f"cancel/{job_id}", headers=headers, data=body)
        assert answer.status_code == 200
        assert (answer.json()["id"], answer.json()["status"]) == (job_id, "CANCELLED")
    pages = list(api.pages(job_id))
    assert pages[-1]["status"] == "COMPLETED"
    shown = api("GET", f"status/{job_id}").json()
    assert set(shown) == {"id", "status", "delayTime", "executionTime", "workerId"}


def test_cancel_leaves_an_ended_job_as_it_is(
    stack: Stack, receiver: Receiver, eventually: Eventually, api: Api
) -> None:
    job_id = completed(stack, receiver, eventually, "cancel-late")
    before = api("GET", f"status/{job_id}").json()
    answer = api("POST", f"cancel/{job_id}")
    assert (answer.status_code, answer.json()["status"]) == (200, "COMPLETED")
    assert api("GET", f"status/{job_id}").json() == before
    refused = api.run({})
    assert api("POST", f"cancel/{refused}").json()["status"] == "FAILED"


def test_runsync_waits_for_the_output(stack: Stack, receiver: Receiver, api: Api) -> None:
    answer = api("POST", "runsync", json={"input": stack.input(receiver, "sync", 21)})
    assert answer.status_code == 200
    shown = answer.json()
    assert shown["id"].startswith("sync-")
    assert shown["status"] == "COMPLETED"
    assert len(segments_of(shown["output"])) == 8
    assert api("GET", f"status/{shown['id']}").json() == shown


def test_nobody_waits_for_a_detached_job(stack: Stack, receiver: Receiver, api: Api) -> None:
    body = {"input": stack.input(receiver, "sync-detached", 31, "slow:800", detach=True)}
    assert api("POST", "runsync?wait=60000", json=body).json()["status"] in ("IN_QUEUE", "IN_PROGRESS")


def test_runsync_and_status_sync_give_up_waiting(stack: Stack, receiver: Receiver, api: Api) -> None:
    started_s = time.monotonic()
    body = {"input": stack.input(receiver, "sync-late", 11, "slow:800")}
    shown = api("POST", "runsync?wait=1000", json=body).json()
    again = api("GET", f"status-sync/{shown['id']}?wait=500").json()
    waited_s = time.monotonic() - started_s
    ended = api("POST", f"status-sync/{shown['id']}?wait=30000").json()
    assert shown["status"] in ("IN_QUEUE", "IN_PROGRESS")
    assert again["status"] in ("IN_QUEUE", "IN_PROGRESS")
    assert 1.4 < waited_s < 5
    assert ended["status"] == "COMPLETED"


def test_without_streaming_there_is_one_item(
    stack: Stack, receiver: Receiver, eventually: Eventually, api: Api
) -> None:
    job_id = completed(stack, receiver, eventually, "whole", streaming=False)
    pages = list(api.pages(job_id))
    (item,) = [item["output"] for page in pages for item in page["stream"]]
    assert set(item) == {"result"}
    assert len(item["result"]) == 1
    assert len(item["result"][0]) == 12
    shown = api("GET", f"status/{job_id}").json()
    assert shown["output"] == [item]


def test_a_recording_can_come_along(
    stack: Stack, receiver: Receiver, eventually: Eventually, api: Api
) -> None:
    by_url = completed(stack, receiver, eventually, "along")
    data = base64.b64encode((receiver.folder / "along.wav").read_bytes()).decode()
    by_blob = api.run({"type": "blob", "chunk_seconds": 10, "transcribe_args": {"blob": data}})
    shown = eventually(lambda: stack.ended(by_blob), 20)
    assert shown["status"] == "COMPLETED"
    # Progress may differ: it depends on whether all was cut when the first chunk was done.
    assert segments_of(shown["output"]) == segments_of(stack.client.status(by_url)["output"])
    # The audio is in the blob store and never in Redis.
    assert data[:100] not in str(stack.redis.hgetall(f"lh:job:{by_blob}"))


def test_the_platforms_other_fields_are_taken_and_secrets_never_shown(
    stack: Stack, receiver: Receiver, eventually: Eventually, api: Api
) -> None:
    s3 = {"accessId": "an-id", "accessSecret": "s3-secret", "bucketName": "b"}
    with listening() as storage:
        job_id = api.run(
            stack.input(receiver, "fields", 11),
            policy={"executionTimeout": 60_000, "ttl": 600_000, "lowPriority": True},
            s3Config={**s3, "endpointUrl": f"http://127.0.0.1:{port_of(storage)}"},
            webhookV2="x",
            unknown=1,
        )
        eventually(lambda: "completed" in receiver.statuses("fields"))
        # The stack may reach private addresses: nothing but the field's being ignored keeps it from there.
        assert connections(storage) == 0
    told = api("GET", f"status/{job_id}").text + "".join(body.decode() for _, body in receiver.posts)
    assert "s3-secret" not in told


def test_health_has_every_key_and_counts(
    stack: Stack, receiver: Receiver, eventually: Eventually, api: Api
) -> None:
    before = api("GET", "health").json()
    assert {name: set(value) for name, value in before.items()} == HEALTH_KEYS
    assert before["workers"]["ready"] == 2
    completed(stack, receiver, eventually, "healthy")
    api.run({})
    after = api("GET", "health").json()
    assert after["jobs"]["completed"] > before["jobs"]["completed"]
    assert after["jobs"]["failed"] > before["jobs"]["failed"]


def test_jobs_lists_the_callers_newest_first(stack: Stack, receiver: Receiver, api: Api) -> None:
    first = api.run(stack.input(receiver, "listed-1", 11))
    second = api.run(stack.input(receiver, "listed-2", 11))
    rows = api("GET", "jobs?limit=2").json()["jobs"]
    assert [(row["id"], row["recording_id"]) for row in rows] == [(second, "listed-2"), (first, "listed-1")]
    others = api("GET", "jobs", headers={"Authorization": "another-key"}).json()["jobs"]
    assert not {first, second} & {row["id"] for row in others}
    assert api("GET", "jobs?limit=0").status_code == 400
