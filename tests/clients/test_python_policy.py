"""What RunPod's client for Python sends beside the input: `policy`, `webhook`, `s3Config`."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.clients.conftest import Client
from tests.clients.scripts import SYNC
from tests.conftest import Eventually, Receiver, Stack, receiving


def test_14_policy(stack: Stack, receiver: Receiver, python: Client) -> None:
    """14: `policy`: `executionTimeout` fails a job that runs too long; values below the least are raised."""
    told = python.run(
        SYNC
        + """
late = endpoint.run({"input": given["late"], "policy": {"executionTimeout": 5000}})
least = endpoint.run({"input": given["least"], "policy": {"ttl": 9999, "executionTimeout": 4999}})
for job in (late, least):
    job.output(timeout=60)
tell([raw(late), raw(least)])
""",
        late=stack.input(receiver, "late", 91, "slow:1500"),
        least=stack.input(receiver, "least", 11),
    )
    assert (told[0]["status"], told[0]["error"]) == ("FAILED", "executionTimeout exceeded")
    assert told[1]["id"]


def test_14_ttl(stack: Stack, receiver: Receiver, eventually: Eventually, python: Client) -> None:
    """14: `policy`: a job whose `ttl` passes in the queue is there no more: 404."""
    ask = SYNC + 'tell(endpoint.run({"input": given["input"], "policy": {"ttl": 10000}}).job_id)'
    look = (
        SYNC
        + """
try:
    tell(endpoint.rp_client.get("longhand/status/" + given["id"])["status"])
except Exception as error:
    tell(error.response.status_code)
"""
    )
    with stack.stopped("io"):
        job_id = python.run(ask, input=stack.input(receiver, "forgotten", 11))
        assert python.run(look, id=job_id) in ("IN_QUEUE", 404)
        eventually(lambda: python.run(look, id=job_id) == 404, 60, "the end of its ttl")


WEBHOOK = (
    SYNC
    + """
job = endpoint.run({"input": given["input"], "webhook": given["webhook"]})
job.output(timeout=60)
tell(raw(job))
"""
)


def settled_delivery(stack: Stack, eventually: Eventually, job_id: str) -> dict[str, Any]:
    """The platform's webhook of a job, once nothing more will be tried."""

    def settled() -> dict[str, Any] | None:
        (entry,) = stack.client.webhooks(job_id=job_id)
        return stack.client.webhook(entry["id"]) if entry["state"] in ("delivered", "dead") else None

    found: dict[str, Any] = eventually(settled, 60, "the last try")
    return found


def test_15_webhook(stack: Stack, receiver: Receiver, eventually: Eventually, python: Client) -> None:
    """15: `webhook` gets the status with `input` and `webhook`, once, of a success and of a failure."""
    done = stack.input(receiver, "told", 11)
    del done["webhook_url"]
    for job_input, status in ((done, "COMPLETED"), ({"url": "ftp://a.test/x"}, "FAILED")):
        receiver.posts.clear()
        webhook = f"{receiver.url}/{status}"
        shown = python.run(WEBHOOK, input=job_input, webhook=webhook)
        assert settled_delivery(stack, eventually, shown["id"])["state"] == "delivered"
        ((_, body),) = receiver.posts
        assert json.loads(body) == {**shown, "input": job_input, "webhook": webhook}
        assert shown["status"] == status


def test_15_webhook_again(
    stack: Stack, receiver: Receiver, eventually: Eventually, tmp_path: Path, python: Client
) -> None:
    """15: a receiver that answers 500 is asked again 10 s later, three times in all."""
    (tmp_path / "other").mkdir()
    with receiving(Receiver(tmp_path / "other")) as other:
        receiver.answers, other.answers = [500, 500, 200], [500] * 9
        wrong = {"url": "ftp://a.test/x"}
        first, second = (
            python.run(WEBHOOK, input=wrong, webhook=f"{place.url}/told") for place in (receiver, other)
        )
        settled = [settled_delivery(stack, eventually, shown["id"]) for shown in (first, second)]
        assert [delivery["state"] for delivery in settled] == ["delivered", "dead"]
        assert (len(receiver.posts), len(other.posts)) == (3, 3)
    for delivery in settled:
        times_ms = [attempt["at_ms"] for attempt in delivery["attempts_made"]]
        assert all(after - before >= 10_000 for before, after in pairwise(times_ms))


def test_24_other_fields(stack: Stack, receiver: Receiver, eventually: Eventually, python: Client) -> None:
    """24: `webhook`, `policy` and `s3Config` beside the input are accepted; `s3Config` is never told."""
    job_input = stack.input(receiver, "storage", 11)
    told = python.run(
        SYNC
        + """
job = endpoint.run({
    "input": given["input"],
    "webhook": given["webhook"],
    "policy": {"executionTimeout": 600000, "ttl": 3600000, "lowPriority": True},
    "s3Config": {"accessId": "id", "accessSecret": "s3cret", "bucketName": "b", "endpointUrl": "https://s3.test"},
})
job.output(timeout=60)
tell(raw(job))
""",
        input=job_input,
        webhook=f"{receiver.url}/told",
    )
    assert told["status"] == "COMPLETED"
    bodies = eventually(lambda: [body for _, body in receiver.posts if b'"output"' in body], 40)
    assert len(bodies) == 1
    assert "s3cret" not in json.dumps(told)
    assert not any(b"s3cret" in body or b"s3Config" in body for _, body in receiver.posts)
