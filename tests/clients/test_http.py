"""Requests that clients other than ours send: RunPod's for Go asks by POST, with an empty body."""

from pathlib import Path

import pytest

from dispatcher.client import segments_of
from tests.conftest import KEY, Eventually, Receiver, Stack
from tests.endpoint import Api, completed

# A body of JSON is announced, and there is none.
EMPTY = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


def test_9_post(stack: Stack, receiver: Receiver, eventually: Eventually, http: Api) -> None:
    """9: POST of `/status`, `/status-sync` and `/stream`, without a body, is as good as GET."""
    job_id = completed(stack, receiver, eventually, "posted")
    for path in (
        f"status/{job_id}",
        f"status-sync/{job_id}?wait=1000",
        f"stream/{job_id}?wait=1000&cursor=0",
    ):
        by_get, by_post = http("GET", path), http("POST", path, headers=EMPTY)
        assert (by_post.status_code, by_post.json()) == (200, by_get.json())


def test_9_empty_bodies(stack: Stack, receiver: Receiver, http: Api, tmp_path: Path) -> None:
    """9, 13: `/cancel`, `/purge-queue` and `/retry` need no body; `/retry` begins a stream again."""
    good = tmp_path / "good"
    job_id = http.run(stack.input(receiver, "retry", 31, f"fail-until:1:{good}"))
    read = list(http.pages(job_id))
    text = segments_of([item["output"] for page in read for item in page["stream"]])
    assert len(text) == 8, "all but the chunk that is missing"
    assert http("GET", f"status/{job_id}").json()["status"] == "FAILED"
    good.touch()
    with stack.stopped("transcribe"):
        answer = http("POST", f"retry/{job_id}", headers=EMPTY)
        assert (answer.status_code, answer.json()) == (200, {"id": job_id, "status": "IN_QUEUE"})
        shown = http("GET", f"status/{job_id}").json()
        assert "error" not in shown
        assert "output" not in shown
    read = list(http.pages(job_id))
    assert len(segments_of([item["output"] for page in read for item in page["stream"]])) == 12
    assert http("POST", f"cancel/{job_id}", headers=EMPTY).json()["status"] == "COMPLETED"
    assert http("POST", "purge-queue", headers=EMPTY).status_code == 200


def test_13_retry_of_a_success(stack: Stack, receiver: Receiver, eventually: Eventually, http: Api) -> None:
    """13: `/retry` of a job that has succeeded is an error 400, and changes nothing."""
    job_id = completed(stack, receiver, eventually, "retry-done")
    assert http("POST", f"retry/{job_id}", headers=EMPTY).status_code == 400
    assert http("GET", f"status/{job_id}").json()["status"] == "COMPLETED"


@pytest.mark.parametrize("header", [KEY, f"Bearer {KEY}", f"bearer {KEY}"])
def test_10_keys(http: Api, header: str) -> None:
    """10: a key is taken with and without `Bearer`, in either case."""
    assert http("GET", "health", headers={"Authorization": header}).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_10_wrong_keys(http: Api, headers: dict[str, str]) -> None:
    """10: a missing or wrong key is an error 401, in JSON."""
    answer = http("GET", "health", headers=headers)
    assert (answer.status_code, answer.json()["status"]) == (401, 401)


@pytest.mark.parametrize("operation", ["status", "status-sync", "stream"])
def test_11_unknown_job(http: Api, operation: str) -> None:
    """11: an unknown job is an error 404 without a `status`, which asyncio would take for the job's."""
    answer = http("GET", f"{operation}/no-such-job")
    assert answer.status_code == 404
    assert "status" not in answer.json()


def test_12_unknown_job(http: Api) -> None:
    """12: `/cancel` of an unknown job is an error 404."""
    assert http("POST", "cancel/no-such-job", headers=EMPTY).status_code == 404


def test_12_cancel_in_the_queue(stack: Stack, receiver: Receiver, http: Api) -> None:
    """12: `/cancel` of a queued job ends it."""
    with stack.stopped("io"):
        job_id = http.run(stack.input(receiver, "cancel-queued", 11))
        assert http("POST", f"cancel/{job_id}", headers=EMPTY).json()["status"] == "CANCELLED"
        assert http("GET", f"status/{job_id}").json()["status"] == "CANCELLED"


def test_19_a_single_recording(stack: Stack, receiver: Receiver, http: Api) -> None:
    """19: entries of a job with one recording have no `index`, those of a list of one have."""
    job_input = stack.input(receiver, "one", 11)
    for url, indices in ((job_input["url"], {None}), ([job_input["url"]], {0})):
        pages = http.pages(http.run({**job_input, "url": url}))
        entries = [entry for page in pages for item in page["stream"] for entry in item["output"]]
        assert {entry.get("index") for entry in entries} == indices
