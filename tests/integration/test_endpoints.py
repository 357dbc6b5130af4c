"""An endpoint of its own: its jobs get its defaults, and are found under its name only."""

import functools

import pytest
import requests

from dispatcher.client import Client, segments_of
from tests.conftest import KEY, Eventually, Receiver, Stack

HOUR_MS = 3_600_000


@pytest.fixture
def old(stack: Stack) -> Client:
    """A client of the endpoint `old`: dialect v1, low priority, kept for an hour."""
    return Client(f"{stack.machine.url}/v2/old", KEY)


def test_jobs_get_the_defaults_of_their_endpoint(
    stack: Stack, old: Client, receiver: Receiver, eventually: Eventually
) -> None:
    job_id = old.submit(stack.input(receiver, "kept", 21))
    eventually(lambda: old.status(job_id)["status"] == "COMPLETED", 40, "its end")
    output = old.status(job_id)["output"]
    assert all("type" not in entry for item in output for entry in item)
    assert len(segments_of(output)) == 8
    assert stack.redis.hget(f"lh:job:{job_id}", "cost") == b"4"
    for part in ("", ":results", ":events"):
        assert 0 < stack.redis.pttl(f"lh:job:{job_id}{part}") <= HOUR_MS
    assert old.health()["jobs"]["completed"] == 1


def test_a_job_says_otherwise_itself(
    stack: Stack, old: Client, receiver: Receiver, eventually: Eventually
) -> None:
    job_input = stack.input(receiver, "otherwise", 11, stream_format="v2")
    job_id = old.submit(job_input, policy={"lowPriority": False})
    eventually(lambda: old.status(job_id)["status"] == "COMPLETED", 40, "its end")
    assert {entry["type"] for item in old.status(job_id)["output"] for entry in item} == {
        "segments",
        "progress",
    }
    assert stack.redis.hget(f"lh:job:{job_id}", "cost") == b"1"


def test_a_job_is_found_under_its_endpoint_only(
    stack: Stack, old: Client, receiver: Receiver, eventually: Eventually
) -> None:
    job_id = old.submit(stack.input(receiver, "found", 11))
    eventually(functools.partial(old.status, job_id))
    for endpoint, status in (("old", 200), ("longhand", 404), ("none", 404)):
        url = f"{stack.machine.url}/v2/{endpoint}/status/{job_id}"
        assert requests.get(url, headers={"Authorization": KEY}, timeout=10).status_code == status


def test_what_fails_is_kept_as_long(stack: Stack, old: Client, eventually: Eventually) -> None:
    job_id = old.submit({"url": "ftp://a.test/x"})
    assert 0 < stack.redis.pttl(f"lh:job:{job_id}") <= HOUR_MS
    due_ms = stack.redis.zscore("lh:sweep", job_id)
    assert isinstance(due_ms, float)
    assert 0 < due_ms - stack.store.now_ms() <= HOUR_MS
    eventually(lambda: old.status(job_id)["code"] == "unsupported_scheme")
