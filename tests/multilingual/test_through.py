"""Hebrew and others all the way: API, workers with the real model, webhook, every format."""

import hashlib
import hmac
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dispatcher.client import segments_of
from dispatcher.local import Plan, port_of
from tasks.formats import FORMATS
from tests.conftest import SECRET, Eventually, Receiver, Stack, fake_settings, stack_of
from tests.multilingual.assets import MODELS, ROOT
from tests.multilingual.conftest import Say
from tests.multilingual.synthesis import spaced, wav
from tests.speech import silence

pytestmark = pytest.mark.timeout(400)

LONG_S = 300


@pytest.fixture(scope="module")
def real(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose two workers run Whisper base."""
    settings = fake_settings(
        engine="tasks.engine:FasterWhisperEngine",
        model="base",
        model_dir=MODELS,
        device="cpu",
        data_dir=tmp_path_factory.mktemp("real"),
        webhook_secret=SECRET,
    )
    plan = Plan(port=port_of("127.0.0.1", 0), workers=2, redis_url=redis_url)
    with stack_of(settings, plan) as running:
        yield running


def transcribed(
    real: Stack,
    receiver: Receiver,
    eventually: Eventually,
    recording: bytes,
    name: str,
    *,
    chunk_seconds: int = 20,
    **arguments: Any,
) -> dict[str, Any]:
    """The status object of a job that has ended, whose webhook has arrived."""
    (receiver.folder / f"{name}.wav").write_bytes(recording)
    job_id = real.client.submit(
        {
            "url": f"{receiver.url}/{name}.wav",
            "webhook_url": f"{receiver.url}/hook",
            "recording_id": name,
            "chunk_seconds": chunk_seconds,
            "transcribe_args": {"beam_size": 1, **arguments},
        }
    )
    shown = eventually(lambda: real.ended(job_id), LONG_S, name)
    assert shown["status"] == "COMPLETED", shown
    eventually(lambda: "completed" in receiver.statuses(name), LONG_S, "the webhook")
    return dict(shown)


def languages(shown: dict[str, Any]) -> list[str]:
    return [segment["extra_data"]["language"] for segment in segments_of(shown["output"])]


def test_hebrew_goes_through_unchanged(
    real: Stack, receiver: Receiver, eventually: Eventually, say: Say, tmp_path: Path
) -> None:
    # A chunk of silence passes the turn on, the next one pins Hebrew, and so the last one is in Hebrew, too.
    audio = np.concatenate([silence(24), spaced([say("he"), say("he"), say("en")])])
    shown = transcribed(real, receiver, eventually, wav(audio), "hebrew")
    assert (shown["language"], shown["engine"], shown["model"]) == ("he", "faster-whisper", "base")
    assert 0.5 <= shown["language_probability"] <= 1
    assert set(languages(shown)) == {"he"}
    job = real.store.job(shown["id"])
    assert job is not None
    assert (job.language, job.total is not None and job.total >= 3) == ("he", True)

    segments = segments_of(shown["output"])
    texts = [segment["text"] for segment in segments]
    assert "תודה" in " ".join(texts)
    letters = [letter for letter in "".join(texts) if letter.isalpha()]
    right_to_left = [letter for letter in letters if unicodedata.bidirectional(letter) == "R"]
    assert len(right_to_left) > 0.7 * len(letters)
    for segment in segments:
        assert "".join(word["word"] for word in segment["words"]).strip() == segment["text"]

    headers, body = next(post for post in receiver.posts if b'"status": "completed"' in post[1])
    told = json.loads(body)
    assert told["transcription"] == segments
    assert (told["language"], told["language_probability"]) == ("he", shown["language_probability"])
    # As the template's README verifies it.
    again = json.dumps(told, sort_keys=True).encode()
    signature = hmac.new(SECRET.encode(), again, hashlib.sha256).hexdigest()
    assert headers["x-webhook-signature"] == signature

    for form in FORMATS:
        printed = result(real, tmp_path, shown["id"], form)
        # Nothing is added, turned round or normalised: players do that.
        assert not [letter for letter in printed if unicodedata.category(letter) == "Cf"]
        if form == "json":
            assert [segment["text"] for segment in json.loads(printed)["segments"]] == texts
            continue
        lines = printed.replace("\t", "\n").splitlines()
        assert [line for line in lines if line in texts] == texts


def result(real: Stack, folder: Path, job_id: str, form: str) -> str:
    """What `longhand result` prints, which is UTF-8 whatever the terminal."""
    printed = subprocess.run(
        [sys.executable, "-m", "dispatcher.cli", "result", job_id, "--format", form],
        cwd=ROOT,
        env={
            **os.environ,
            "LONGHAND_API_URL": f"{real.machine.url}/v2/longhand",
            "HOME": str(folder),
            "PYTHONUTF8": "1",
        },
        capture_output=True,
        check=True,
    )
    return printed.stdout.decode("utf-8")


def test_every_window_in_its_own_language(
    real: Stack, receiver: Receiver, eventually: Eventually, say: Say, tmp_path: Path
) -> None:
    audio = spaced([say("en"), say("en"), say("de")])
    options = {"chunk_seconds": 60, "multilingual": True, "chunk_length": 16}
    shown = transcribed(real, receiver, eventually, wav(audio), "both", **options)
    assert list(dict.fromkeys(languages(shown))) == ["en", "de"]
    segments = json.loads(result(real, tmp_path, shown["id"], "json"))["segments"]
    written = [segment.get("language", shown["language"]) for segment in segments]
    assert written == languages(shown)
    assert "language_probability" not in shown
    told = receiver.bodies("both")[-1]["transcription"]
    assert told == segments_of(shown["output"])


def test_german_is_translated(real: Stack, receiver: Receiver, eventually: Eventually, say: Say) -> None:
    shown = transcribed(real, receiver, eventually, wav(spaced([say("de")])), "german", task="translate")
    assert (shown["language"], set(languages(shown))) == ("de", {"de"})
    assert "good morning" in segments_of(shown["output"])[0]["text"].lower()
