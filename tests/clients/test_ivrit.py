"""ivrit, in every version that people have."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dispatcher.client import segments_of
from tasks.events import verify_seed
from tests.clients.conftest import Client
from tests.clients.leases import leases_of
from tests.clients.scripts import LOAD, TRANSCRIBE, TRANSCRIBE_ASYNC
from tests.conftest import SECRET, Eventually, Receiver, Stack


def expected(stack: Stack, eventually: Eventually, job_input: dict[str, Any]) -> list[str]:
    """The texts of the same recording by our own client."""
    job_id = stack.client.submit({**job_input, "transcribe_args": {"language": "he"}})
    shown = eventually(lambda: stack.ended(job_id), 40)
    return [segment["text"] for segment in segments_of(shown["output"])]


def given(stack: Stack, receiver: Receiver, name: str, seconds: int = 31, **arguments: Any) -> dict[str, Any]:
    job_input = stack.input(receiver, name, seconds)
    return {"url": job_input["url"], "arguments": {"chunk_seconds": 10, **arguments}}


def is_old(client: Client) -> bool:
    return client.name.endswith("0.1.8")


def endpoint_of(client: Client) -> str:
    """The endpoint that speaks a version's dialect."""
    return "old" if is_old(client) else "longhand"


def test_16_17_transcript(stack: Stack, receiver: Receiver, eventually: Eventually, ivrit: Client) -> None:
    """16, 17: `transcribe` gives every segment with words and language, in the dialect of its version."""
    endpoint = endpoint_of(ivrit)
    asked = given(stack, receiver, "whole")
    told = ivrit.run(TRANSCRIBE, endpoint=endpoint, **asked)
    assert told["texts"] == expected(stack, eventually, stack.input(receiver, "whole", 31))
    assert len(told["texts"]) == 12
    assert set(told["words"]) == {2}
    assert told["language"] == "he"


def test_16_wrong_dialect(stack: Stack, receiver: Receiver, ivrit: Client) -> None:
    """16: a version that cannot read the typed dialect raises an error; it is never silently empty."""
    told = ivrit.run(TRANSCRIBE, endpoint="longhand", **given(stack, receiver, "typed"))
    assert ("error" in told) == is_old(ivrit)
    if not is_old(ivrit):
        assert len(told["texts"]) == 12


def of_failures(client: Client) -> str:
    """The endpoint on which a version hears of a failure.

    0.2.4 and 0.2.6 take what they have for the whole, unless the stream ends with what they cannot read.
    """
    return {"0.1.8": "old", "0.2.7": "longhand"}.get(client.name.split()[1], "loud")


def tells_of_failure(error: str) -> bool:
    """Whether a client gives the reason; or the status alone, where all happened between two of its looks."""
    return "could not be transcribed" in error or "unexpected job status 'FAILED'" in error


def test_16_18_failure(stack: Stack, receiver: Receiver, ivrit: Client) -> None:
    """16, 18: a job that fails in the middle raises an error (0.2.4, 0.2.6: where `poison` is on)."""
    before = len(ivrit.door.calls)
    asked = given(stack, receiver, "failing", initial_prompt="fail:2")
    told = ivrit.run(TRANSCRIBE, endpoint=of_failures(ivrit), **asked)
    assert tells_of_failure(told["error"])
    assert "HTTPError" not in told["error"]
    # It cancels what has ended, and hears of no second error.
    calls = ivrit.door.calls[before:]
    assert [call.status for call in calls if "/cancel/" in call.path] == [200]
    assert {call.status for call in calls} == {200}


def test_21_async_failure(stack: Stack, receiver: Receiver, ivrit: Client) -> None:
    """21: `transcribe_async` of a job that fails in the middle raises an error."""
    asked = given(stack, receiver, "failing-async", initial_prompt="fail:2")
    told = ivrit.run(TRANSCRIBE_ASYNC, endpoint=of_failures(ivrit), **asked)
    assert tells_of_failure(told["error"])


def test_10_wrong_key(stack: Stack, receiver: Receiver, ivrit: Client) -> None:
    """10: a wrong key is told as one."""
    script = TRANSCRIBE.replace('key, endpoint = os.environ["KEY"]', 'key, endpoint = "wrong"')
    told = ivrit.run(script, endpoint="longhand", **given(stack, receiver, "refused", 11))
    assert "Invalid RunPod API key" in told["error"]


def test_23_webhooks(stack: Stack, receiver: Receiver, eventually: Eventually, ivrit: Client) -> None:
    """23: `webhook_url` and `recording_id` of `transcribe` send signed webhooks."""
    endpoint = endpoint_of(ivrit)
    name = f"הקלטה {ivrit.name}"
    hook = {"webhook_url": f"{receiver.url}/hook", "recording_id": name}
    told = ivrit.run(TRANSCRIBE, endpoint=endpoint, **given(stack, receiver, "hooked", 21, **hook))
    assert len(told["texts"]) == 8
    eventually(lambda: receiver.statuses(name)[-1:] == ["completed"])
    assert receiver.statuses(name)[0] == "transcribing"
    assert all(verify_seed(SECRET, body, headers["x-webhook-signature"]) for headers, body in receiver.posts)


def test_23_readme(stack: Stack, receiver: Receiver, eventually: Eventually, ivrit: Client) -> None:
    """2.2, 23: the README of the seed template: a file of one's own, webhooks, text and segments."""
    script = """
import ivrit
model = ivrit.load_model(
    engine="runpod",
    model="multi",
    api_key=os.environ["KEY"],
    endpoint_id=given["endpoint"]
)
result = model.transcribe(
    path=given["path"],
    language="he",
    webhook_url=given["hook"],
    recording_id=given["name"]
)
print(json.dumps({"text": result["text"], "segments": [str(segment) for segment in result['segments']]}))
"""
    stack.input(receiver, "readme", 21)
    endpoint = endpoint_of(ivrit)
    name = f"readme-{ivrit.name}"
    path = str(receiver.folder / "readme.wav")
    told = ivrit.run(script, endpoint=endpoint, path=path, hook=f"{receiver.url}/hook", name=name)
    assert told["text"].strip()
    assert len(told["segments"]) == 4
    eventually(lambda: receiver.statuses(name)[-1:] == ["completed"])


def test_22_leaving(stack: Stack, receiver: Receiver, eventually: Eventually, ivrit: Client) -> None:
    """22: leaving the generator after the first segment cancels the job, and its workers stop."""
    script = (
        LOAD
        + """
found = model.transcribe(url=given["url"], language="he", stream=True, **given["arguments"])
first = next(iter(found))
found.close()
print(json.dumps({"text": first.text}))
"""
    )
    name = f"broken {ivrit.name}"
    asked = given(stack, receiver, "broken", 121, initial_prompt="slow:300", recording_id=name)
    assert ivrit.run(script, endpoint=endpoint_of(ivrit), **asked)["text"]
    (job,) = [job for job in stack.client.jobs(50) if job["recording_id"] == name]
    assert [call.status for call in ivrit.door.of("cancel", job["id"])] == [200]
    assert job["status"] == "CANCELLED"
    eventually(lambda: not leases_of(stack, job["id"]), what="the end of the work")


def test_21_async(stack: Stack, receiver: Receiver, ivrit: Client) -> None:
    """21: `transcribe_async` gives every segment."""
    told = ivrit.run(TRANSCRIBE_ASYNC, endpoint=endpoint_of(ivrit), **given(stack, receiver, "async", 31))
    assert len(told["texts"]) == 12


@pytest.mark.parametrize("script", [TRANSCRIBE, TRANSCRIBE_ASYNC], ids=["sync", "async"])
def test_21_restart(
    stack: Stack, receiver: Receiver, eventually: Eventually, ivrit: Client, script: str
) -> None:
    """21: where the API starts again meanwhile, behind a proxy that waits for it, nothing is missing."""
    asked = given(stack, receiver, "restarted", 121, initial_prompt="slow:300")
    before = len(ivrit.door.calls)
    with ThreadPoolExecutor() as pool:
        told = pool.submit(ivrit.run, script, endpoint=endpoint_of(ivrit), **asked)
        eventually(lambda: len([c for c in ivrit.door.calls[before:] if "/stream/" in c.path]) > 1, 60)
        old = stack.machine.pids()["api"]
        os.kill(old, signal.SIGTERM)

        def again() -> bool:
            stack.machine.tick(print)
            return stack.machine.pids().get("api", old) != old

        eventually(again, 30, "the start of the API")
        after = len(ivrit.door.calls)
        result = told.result()
        assert "error" not in result, result
        assert len(result["texts"]) == 48
    assert any("/stream/" in call.path for call in ivrit.door.calls[after:])
    calls = ivrit.door.calls[before:]
    assert {call.status for call in calls} <= {0, 200}
    assert not [call for call in calls if "/cancel/" in call.path]


def test_17_progress(stack: Stack, receiver: Receiver, newest: Client) -> None:
    """17: `on_progress` gets fractions that never fall, each with its phase."""
    script = (
        LOAD
        + """
told = []
model.transcribe(url=given["url"], language="he", on_progress=told.append, **given["arguments"])
print(json.dumps(told))
"""
    )
    asked = given(stack, receiver, "progress", 31, initial_prompt="slow:50")
    told = newest.run(script, endpoint="longhand", **asked)
    decoded = [event["step_fraction"] for event in told if event["step"] == "decode"]
    assert decoded == sorted(decoded) != []
    assert {event["phase"] for event in told} == {"transcription"}


def test_19_batch(stack: Stack, receiver: Receiver, newest: Client) -> None:
    """19: a list gives a result for each, and an error for the one that failed."""
    script = (
        LOAD
        + """
found = model.transcribe(url=given["urls"], language="he", **given["arguments"])
print(json.dumps([{**r, "segments": len(r.get("segments", []))} for r in found]))
"""
    )
    asked = given(stack, receiver, "listed", 21)
    urls = [f"{receiver.url}/404", asked["url"], asked["url"]]
    bad, *good = newest.run(script, endpoint="longhand", urls=urls, arguments=asked["arguments"])
    assert [result["segments"] for result in good] == [8, 8]
    assert (bad["source"], bad["input"]) == ("url", urls[0])
    assert "404" in bad["error"]


def test_19_batch_streamed(stack: Stack, receiver: Receiver, newest: Client) -> None:
    """19: a list, streamed: each segment with its index, the error of one that failed among them."""
    script = (
        LOAD
        + """
found = model.transcribe(url=given["urls"], language="he", stream=True, **given["arguments"])
print(json.dumps([[index, isinstance(item, Exception), str(item)] for index, item in found]))
"""
    )
    asked = given(stack, receiver, "listed-stream", 21)
    urls = [f"{receiver.url}/404", asked["url"]]
    told = newest.run(script, endpoint="longhand", urls=urls, arguments=asked["arguments"])
    assert [index for index, failed, _ in told if failed] == [0]
    assert [index for index, failed, _ in told if not failed] == [1] * 8
    assert "404" in next(text for _, failed, text in told if failed)


def test_19_batch_async(stack: Stack, receiver: Receiver, newest: Client) -> None:
    """19: a list, by `transcribe_async`."""
    script = (
        LOAD
        + """
import asyncio
async def main():
    found = model.transcribe_async(url=given["urls"], language="he", **given["arguments"])
    return [[index, isinstance(item, Exception)] async for index, item in found]
print(json.dumps(asyncio.run(main())))
"""
    )
    asked = given(stack, receiver, "listed-async", 21)
    urls = [asked["url"], f"{receiver.url}/404"]
    told = newest.run(script, endpoint="longhand", urls=urls, arguments=asked["arguments"])
    assert sorted(told) == [[0, False]] * 8 + [[1, True]]


def test_19_batch_of_one(stack: Stack, receiver: Receiver, newest: Client) -> None:
    """19: a list of one is a batch, too."""
    script = (
        LOAD
        + """
found = model.transcribe(url=given["urls"], language="he", **given["arguments"])
print(json.dumps([len(r["segments"]) for r in found]))
"""
    )
    asked = given(stack, receiver, "single", 11)
    told = newest.run(script, endpoint="longhand", urls=[asked["url"]], arguments=asked["arguments"])
    assert told == [4]
