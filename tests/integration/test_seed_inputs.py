"""The inputs that the ivrit.ai template's own files and clients send, unchanged, through the RunPod handler.

From github.com/ivrit-ai/runpod-serverless: README.md, test_input.json (two of its versions), infer.mjs and
examples/transcribe.py; what `ivrit` makes of the README's calls is in its audio.py. Only addresses differ.
"""

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from dispatcher.client import segments_of
from tests.conftest import Eventually, Receiver, Stack, write_recording
from tests.fake_platform import FakePlatform, serving
from tests.handling import ended, handling, new_id

TURBO = "ivrit-ai/whisper-large-v3-turbo-ct2"
# Stand for the address and the bytes of a recording, and the address for webhooks.
URL, BLOB, HOOK = "<your URL>", "<your file>", "https://your-backend.com/api/webhook"
ID = "unique-recording-id-123"


def by_ivrit(kind: str, value: str, *, options: bool = True, **arguments: Any) -> dict[str, Any]:
    """What ivrit sends for `model.transcribe(..., language="he", **arguments)`."""
    asked: dict[str, Any] = {"language": "he", "diarize": False, "verbose": False, kind: value, **arguments}
    if options:
        output = {"word_timestamps": True, "extra_data": True}
        asked |= {"diarization_args": None, "output_options": output}
    return {
        "type": kind,
        "model": TURBO,
        "engine": "faster-whisper",
        "streaming": True,
        "transcribe_args": asked,
    }


EXAMPLES: dict[str, dict[str, Any]] = {
    "test_input.json": {"type": "url", "url": URL, "streaming": False},
    "test_input.json, older; infer.mjs": {"type": "url", "url": URL},
    "examples/transcribe.py": {
        "engine": "stable-whisper",
        "model": TURBO,
        "streaming": False,
        "transcribe_args": {"blob": BLOB},
    },
    "README, local file": by_ivrit("blob", BLOB),
    "README, URL": by_ivrit("url", URL),
    "README, URL, an older ivrit": by_ivrit("url", URL, options=False),
    "README, webhooks": by_ivrit("blob", BLOB, webhook_url=HOOK, recording_id=ID),
    "README, webhooks in the job input": {**by_ivrit("url", URL), "webhook_url": HOOK, "recording_id": ID},
}


@pytest.fixture(scope="module")
def platform(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePlatform]:
    folder = tmp_path_factory.mktemp("handler")
    with serving() as platform, handling(stack.machine.settings, platform, folder):
        yield platform


def filled(value: Any, fillings: dict[str, str]) -> Any:
    """An example with the recording and the receiver of this test."""
    if isinstance(value, dict):
        return {name: filled(part, fillings) for name, part in value.items()}
    return fillings.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_the_template(
    receiver: Receiver, eventually: Eventually, platform: FakePlatform, name: str
) -> None:
    recording = receiver.folder / "talk.wav"
    write_recording(recording, 11)
    blob = base64.b64encode(recording.read_bytes()).decode()
    fillings = {URL: f"{receiver.url}/talk.wav", BLOB: blob, HOOK: f"{receiver.url}/hook"}
    example, job_id = EXAMPLES[name], new_id("seed")
    platform.give(job_id, filled(example, fillings))
    result = ended(platform, eventually, job_id)
    assert set(result) == {"output"}, result
    if example.get("streaming", True):
        segments = segments_of(result["output"])
    else:
        (item,) = [item for item in result["output"] if isinstance(item, dict)]
        segments = item["result"][0]
    assert len(segments) == 4
    assert all(segment["words"] for segment in segments)
    assert {segment["extra_data"]["language"] for segment in segments} == {"he"}
    told = [body["status"] for body in receiver.bodies(ID) if "progress" not in body]
    assert told == (["transcribing", "completed"] if "webhooks" in name else [])
