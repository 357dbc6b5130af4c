"""The `webhook` of /run: told once of the end, in the platform's shape and as often as the platform."""

import json
from typing import Any

import pytest
import requests

from tests.conftest import KEY, Eventually, Receiver, Stack


def run(stack: Stack, **body: Any) -> requests.Response:
    url = f"{stack.machine.url}/v2/longhand/run"
    return requests.post(url, json=body, headers={"Authorization": KEY}, timeout=10)


def told(receiver: Receiver) -> list[dict[str, Any]]:
    return [json.loads(body) for _, body in receiver.posts]


def test_the_end_is_told_as_status_shows_it_with_input_and_webhook(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    webhook = f"{receiver.url}/done?שם=a"
    # A client's own storage: accepted as on the platform, and neither used nor told.
    storage = {"accessId": "id", "accessSecret": "s3cret", "bucketName": "b", "endpointUrl": receiver.url}
    job_input = stack.input(receiver, "callback", 21)
    del job_input["webhook_url"]
    job_id = run(stack, input=job_input, webhook=webhook, s3Config=storage).json()["id"]
    (body,) = eventually(lambda: told(receiver), 40, "the callback")
    shown = stack.client.status(job_id)
    assert body == {**shown, "input": job_input, "webhook": webhook}
    assert (body["status"], len(body["output"]) > 0) == ("COMPLETED", True)
    assert {"delayTime", "executionTime", "workerId"} <= body.keys()
    ((headers, raw),) = receiver.posts
    assert "x-webhook-signature" not in headers
    assert b"s3cret" not in raw
    (entry,) = stack.client.webhooks(job_id=job_id)
    assert (entry["kind"], entry["receiver"]) == ("callback", receiver.url)


def test_both_kinds_of_webhook_of_one_job(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    run(stack, input=stack.input(receiver, "both", 11), webhook=f"{receiver.url}/done")
    eventually(lambda: any("output" in body for body in told(receiver)), 40, "the callback")
    eventually(lambda: any(body["status"] == "completed" for body in told(receiver)), what="the last event")
    callbacks = [body for body in told(receiver) if "output" in body]
    assert len(callbacks) == 1


@pytest.mark.parametrize(
    ("job_input", "status"),
    [({"url": "ftp://a.test/x"}, "FAILED"), ("no object", "FAILED"), ({"blob": "%%%"}, "FAILED")],
)
def test_a_failure_is_told_too(
    stack: Stack, receiver: Receiver, eventually: Eventually, job_input: object, status: str
) -> None:
    run(stack, input=job_input, webhook=f"{receiver.url}/done")
    (body,) = eventually(lambda: told(receiver), what="the callback")
    assert body["status"] == status
    assert body["error"]
    assert body["input"] == ({} if job_input == {"blob": "%%%"} else job_input), "without the recording"


def test_a_cancellation_is_told(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    job_input = stack.input(receiver, "cancel-told", 61, prompt="slow:500")
    del job_input["webhook_url"]
    job_id = run(stack, input=job_input, webhook=f"{receiver.url}/done").json()["id"]
    eventually(lambda: stack.client.status(job_id)["status"] == "IN_PROGRESS")
    stack.client.cancel(job_id)
    (body,) = eventually(lambda: told(receiver), what="the callback")
    assert body["status"] == "CANCELLED"


def hurry(stack: Stack, receiver: Receiver, job_id: str) -> dict[str, Any]:
    """The job's callback, made due if it waits."""
    (entry,) = stack.client.webhooks(job_id=job_id)
    if entry["state"] == "waiting":
        stack.redis.zadd(f"lh:receiver:tests|{receiver.url}", {entry["id"]: 1}, xx=True)
        stack.redis.zadd("lh:receivers", {f"tests|{receiver.url}": 1})
    return entry


def test_two_more_tries_ten_seconds_apart_and_only_200_is_success(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answers = [204, 500]
    job_id = run(stack, input={"url": "ftp://a.test/x"}, webhook=f"{receiver.url}/done").json()["id"]
    eventually(lambda: receiver.posts, what="the first try")
    (entry,) = stack.client.webhooks(job_id=job_id)
    eventually(lambda: stack.client.webhook(entry["id"])["state"] == "waiting")
    shown = stack.client.webhook(entry["id"])
    (attempt,) = shown["attempts_made"]
    answered_ms = attempt["at_ms"] + attempt["duration_ms"]
    assert 10_000 <= shown["due_ms"] - answered_ms < 11_000, "it is due so long after it was written down"
    eventually(lambda: hurry(stack, receiver, job_id)["state"] == "delivered", what="the third try")
    assert len(receiver.posts) == 3
    assert len({body for _, body in receiver.posts}) == 1


def test_after_the_third_it_is_a_dead_letter(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answers = [410] * 3
    job_id = run(stack, input={"url": "ftp://a.test/x"}, webhook=f"{receiver.url}/done").json()["id"]
    eventually(lambda: hurry(stack, receiver, job_id)["state"] == "dead", what="the dead letter")
    assert len(receiver.posts) == 3
    (entry,) = stack.client.webhooks(state="dead", job_id=job_id)
    assert entry["attempts"] == 3


@pytest.mark.parametrize(
    ("webhook", "code"),
    [
        (7, "invalid_input"),
        (["https://a.test"], "invalid_input"),
        ("ftp://a.test/", "unsupported_scheme"),
        ("http://user:secret@a.test/", "invalid_input"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_at_once(stack: Stack, webhook: object, code: str) -> None:
    answer = run(stack, input={"url": "https://a.test/x"}, webhook=webhook)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert "webhook" in answer.json()["detail"]
    assert "secret" not in answer.text


def test_a_callback_outlives_neither_job_nor_retention(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    with stack.stopped("deliver"):
        answer = run(stack, input={"url": "ftp://a.test/x"}, webhook=f"{receiver.url}/done")
        job_id = answer.json()["id"]
        stack.redis.delete(f"lh:job:{job_id}")
    (entry,) = eventually(lambda: stack.client.webhooks(job_id=job_id))

    def attempts() -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = stack.client.webhook(entry["id"])["attempts_made"]
        return made

    (attempt,) = eventually(attempts, what="an attempt")
    assert (attempt["status"], attempt["error"]) == (0, "The job is kept no longer.")
    assert receiver.posts == []
