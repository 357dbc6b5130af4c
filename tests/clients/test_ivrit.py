"""ivrit, in every version that people have."""

from typing import Any

from dispatcher.client import segments_of
from tasks.events import verify_seed
from tests.clients.conftest import Client
from tests.conftest import SECRET, Eventually, Receiver, Stack

LOAD = """
import os, ivrit
key, endpoint = os.environ["KEY"], given["endpoint"]
model = ivrit.load_model(engine="runpod", model="multi", api_key=key, endpoint_id=endpoint)
"""
TRANSCRIBE = (
    LOAD
    + """
try:
    found = model.transcribe(url=given["url"], language="he", **given["arguments"])
    segments = found["segments"]
    told = {"texts": [s.text for s in segments], "words": [len(s.words or []) for s in segments]}
    told["language"] = found.get("language")
except Exception as error:
    told = {"error": f"{type(error).__name__}: {error}"}
print(json.dumps(told))
"""
)


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


def test_transcript(stack: Stack, receiver: Receiver, eventually: Eventually, ivrit: Client) -> None:
    """16, 17: `transcribe` gives every segment with words and language, in the dialect of its version."""
    endpoint = "old" if is_old(ivrit) else "longhand"
    asked = given(stack, receiver, "whole")
    told = ivrit.run(TRANSCRIBE, endpoint=endpoint, **asked)
    assert told["texts"] == expected(stack, eventually, stack.input(receiver, "whole", 31))
    assert len(told["texts"]) == 12
    assert set(told["words"]) == {2}
    assert told["language"] == "he"


def test_wrong_dialect(stack: Stack, receiver: Receiver, ivrit: Client) -> None:
    """16: a version that cannot read the typed dialect raises an error; it is never silently empty."""
    told = ivrit.run(TRANSCRIBE, endpoint="longhand", **given(stack, receiver, "typed"))
    assert ("error" in told) == is_old(ivrit)
    if not is_old(ivrit):
        assert len(told["texts"]) == 12


def test_failure(stack: Stack, receiver: Receiver, ivrit: Client) -> None:
    """16, 18: a job that fails in the middle raises an error (0.2.4, 0.2.6: where `poison` is on)."""
    # Those two take what they have for the whole, unless the stream ends with what they cannot read.
    endpoint = {"0.1.8": "old", "0.2.7": "longhand"}.get(ivrit.name.split()[1], "loud")
    asked = given(stack, receiver, "failing", initial_prompt="fail:2")
    told = ivrit.run(TRANSCRIBE, endpoint=endpoint, **asked)
    assert "could not be transcribed" in told["error"]


def test_refused(stack: Stack, receiver: Receiver, ivrit: Client) -> None:
    """10: a wrong key is told as one."""
    script = TRANSCRIBE.replace('key, endpoint = os.environ["KEY"]', 'key, endpoint = "wrong"')
    told = ivrit.run(script, endpoint="longhand", **given(stack, receiver, "refused", 11))
    assert "Invalid RunPod API key" in told["error"]


def test_webhooks(stack: Stack, receiver: Receiver, eventually: Eventually, ivrit: Client) -> None:
    """23: `webhook_url` and `recording_id` of `transcribe` send signed webhooks."""
    endpoint = "old" if is_old(ivrit) else "longhand"
    name = f"הקלטה {ivrit.name}"
    hook = {"webhook_url": f"{receiver.url}/hook", "recording_id": name}
    told = ivrit.run(TRANSCRIBE, endpoint=endpoint, **given(stack, receiver, "hooked", 21, **hook))
    assert len(told["texts"]) == 8
    eventually(lambda: receiver.statuses(name)[-1:] == ["completed"])
    assert receiver.statuses(name)[0] == "transcribing"
    assert all(verify_seed(SECRET, body, headers["x-webhook-signature"]) for headers, body in receiver.posts)


def test_readme(stack: Stack, receiver: Receiver, eventually: Eventually, ivrit: Client) -> None:
    """2.2, 23: the README of the seed template: a file of one's own, webhooks, text and segments."""
    script = """
import os, ivrit
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
    endpoint = "old" if is_old(ivrit) else "longhand"
    name = f"readme-{ivrit.name}"
    path = str(receiver.folder / "readme.wav")
    told = ivrit.run(script, endpoint=endpoint, path=path, hook=f"{receiver.url}/hook", name=name)
    assert told["text"].strip()
    assert len(told["segments"]) == 4
    eventually(lambda: receiver.statuses(name)[-1:] == ["completed"])


def test_breaking_off(stack: Stack, receiver: Receiver, eventually: Eventually, ivrit: Client) -> None:
    """22: leaving the generator after the first segment cancels the job."""
    endpoint = "old" if is_old(ivrit) else "longhand"
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
    assert ivrit.run(script, endpoint=endpoint, **asked)["text"]

    def canceled() -> bool:
        return any(
            job["status"] == "CANCELLED" for job in stack.client.jobs(50) if job["recording_id"] == name
        )

    eventually(canceled, what="the cancellation")


def test_async(stack: Stack, receiver: Receiver, ivrit: Client) -> None:
    """21: `transcribe_async` gives every segment."""
    endpoint = "old" if is_old(ivrit) else "longhand"
    script = (
        LOAD
        + """
import asyncio
async def main():
    found = model.transcribe_async(url=given["url"], language="he", **given["arguments"])
    return [s.text async for s in found]
print(json.dumps(asyncio.run(main())))
"""
    )
    assert len(ivrit.run(script, endpoint=endpoint, **given(stack, receiver, "async", 31))) == 12


def test_progress(stack: Stack, receiver: Receiver, newest: Client) -> None:
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


def test_batch(stack: Stack, receiver: Receiver, newest: Client) -> None:
    """19: a list gives a result for each, and an error for the one that failed."""
    script = (
        LOAD
        + """
found = model.transcribe(url=given["urls"], language="he", **given["arguments"])
print(json.dumps([r.get("error") or len(r["segments"]) for r in found]))
"""
    )
    asked = given(stack, receiver, "listed", 21)
    urls = [asked["url"], f"{receiver.url}/404", asked["url"]]
    told = newest.run(script, endpoint="longhand", urls=urls, arguments=asked["arguments"])
    assert (told[0], told[2]) == (8, 8)
    assert "404" in str(told[1])


def test_batch_of_one(stack: Stack, receiver: Receiver, newest: Client) -> None:
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
