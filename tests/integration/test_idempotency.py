"""`Idempotency-Key`: the same request again is the same job, however often and whenever it comes."""

import base64
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from redis import Redis

from tasks.endings import failed
from tasks.errors import Unexpected
from tasks.idempotency import AlreadyAccepted, Once
from tests.bench import NEW, Bench
from tests.conftest import KEY, OTHERS_KEY, Eventually, Receiver, Stack

URL = {"url": "ftp://a.test/x"}


def post(stack: Stack, body: Any, key: str | None, **fields: Any) -> requests.Response:
    """Calls /run, or `operation`, as a client of ours does with `requests`."""
    operation, account = fields.get("operation", "run"), fields.get("account", KEY)
    headers = {"Authorization": f"Bearer {account}"} | ({"Idempotency-Key": key} if key is not None else {})
    url = f"{stack.machine.url}/v2/{fields.get('endpoint', 'longhand')}/{operation}"
    return requests.post(url, json=body, headers=headers, timeout=60)


def jobs(stack: Stack) -> set[bytes]:
    found: Any = stack.redis.zrange("lh:jobs", 0, -1)
    return set(found)


def blobs(stack: Stack) -> set[Path]:
    return {path for path in (stack.folder / "blobs").rglob("*") if path.is_file()}


def test_the_same_request_is_the_same_job_from_its_beginning_to_its_end(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    body = {"input": stack.input(receiver, "idem", 31)}
    with stack.stopped("io"):
        first = post(stack, body, "k-1")
        again = post(stack, body, "k-1")
        assert (again.status_code, again.json()) == (200, first.json())
    job_id = first.json()["id"]
    ended = eventually(lambda: stack.ended(job_id), 60)
    assert ended["status"] == "COMPLETED"
    assert post(stack, body, "k-1").json()["id"] == job_id
    whole = post(stack, body, "k-1", operation="runsync").json()
    assert whole == stack.client.status(job_id)
    assert receiver.statuses("idem").count("completed") <= 1


def test_another_body_is_a_conflict_and_another_caller_is_not(stack: Stack) -> None:
    first = post(stack, {"input": URL}, "k-2").json()["id"]
    before = jobs(stack)
    refused = post(stack, {"input": URL, "policy": {}}, "k-2")
    assert refused.status_code == 409
    assert refused.json() == {
        "status": 409,
        "title": "Conflict",
        "code": "idempotency_conflict",
        "detail": "This `Idempotency-Key` came with another body before: use a new key for a new job.",
    }
    assert jobs(stack) == before
    others = [
        post(stack, {"input": URL}, "k-2", account=OTHERS_KEY),
        post(stack, {"input": URL}, "k-2", endpoint="old"),
        post(stack, {"input": URL}, "k-3"),
        post(stack, {"input": URL}, None),
    ]
    assert len({first, *(answer.json()["id"] for answer in others)}) == 5


@pytest.mark.parametrize("key", ["", "a b", "k" * 256, "\u00e9", "a\tb"])
def test_what_is_no_key_is_told(stack: Stack, key: str) -> None:
    before = jobs(stack)
    answer = requests.post(
        f"{stack.machine.url}/v2/longhand/run",
        json={"input": URL},
        headers={"Authorization": KEY, "Idempotency-Key": key.encode()},
        timeout=10,
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")
    assert "255" in answer.json()["detail"]
    assert jobs(stack) == before


@pytest.mark.parametrize("items", [1, 2])
def test_fifty_at_a_time_are_one_job_with_one_recording(stack: Stack, receiver: Receiver, items: int) -> None:
    """Case 19. A request that lost has stored its recording already, and takes it away again."""
    stack.input(receiver, "fifty", 11)
    blob = base64.b64encode((receiver.folder / "fifty.wav").read_bytes()).decode()
    body = {"input": {"blob": blob if items == 1 else [blob] * items}}
    jobs_before, blobs_before = jobs(stack), blobs(stack)
    with stack.stopped("io"), ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: post(stack, body, f"fifty-{items}"), range(50)))
        assert {answer.status_code for answer in answers} == {200}
        (job_id,) = {answer.json()["id"] for answer in answers}
        assert jobs(stack) - jobs_before == {job_id.encode()}
        assert len(blobs(stack) - blobs_before) == items
        assert requests.post(
            f"{stack.machine.url}/v2/longhand/cancel/{job_id}", headers={"Authorization": KEY}, timeout=10
        ).ok


def test_a_refused_input_is_one_job_too(stack: Stack) -> None:
    ids = {post(stack, {"input": {"url": 7}}, "k-4").json()["id"] for _ in range(3)}
    (job_id,) = ids
    assert stack.client.status(job_id)["status"] == "FAILED"


def test_a_key_is_kept_as_long_as_its_job(bench: Bench, redis: Redis) -> None:
    once = Once.of("k", "us", "longhand", "digest")
    key = f"lh:once:{once.key}"
    assert bench.store.create(replace(NEW, once=once))
    with pytest.raises(AlreadyAccepted):
        bench.store.create(replace(NEW, id="k", once=once))
    assert redis.pttl(key) == -1
    bench.store.finish("j", failed("j", "r", bench.store.now_ms(), Unexpected()))
    assert redis.pexpiretime(key) == redis.pexpiretime("lh:job:j") > 0
    assert bench.store.retry("j") == "queued"
    assert redis.pttl(key) == -1
    bench.finish()
    assert redis.pexpiretime(key) == redis.pexpiretime("lh:job:j") > 0
    redis.delete("lh:job:j")
    assert bench.store.create(replace(NEW, id="k", once=once)), "a job that is gone is nobody's answer"
