import base64
import hashlib
import hmac
import json
import time
from datetime import datetime
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from tasks.errors import Canceled, ConfigurationError, NoSource, NotMedia
from tasks.events import (
    Progress,
    completed,
    failed,
    progressed,
    rfc3339,
    signature_headers,
    transcribing,
    verify_seed,
)
from tasks.transcript import Transcript

patient = settings(deadline=None)

NOW_MS = 1_769_860_800_007
SECRET = "סוד: not base64!"
BODY = completed(
    "job1",
    "rec1",
    NOW_MS,
    Transcript((), 1_500, "he"),
    [{"text": "שלום עולם", "start": 0.0, "end": 1.5}],
).encode()

any_text = st.text(st.characters(), max_size=40)  # lone surrogates included
lengths = st.none() | st.integers(0, 10**9)
progresses = st.builds(Progress, st.integers(0, 10**9), lengths, st.integers(0, 999), lengths, lengths)


def reference_key(secret: str) -> str:
    return "whsec_" + base64.b64encode(secret.encode()).decode()


def unix_now() -> int:
    # The reference library holds the timestamp against the wall clock.
    return int(time.clock_gettime(time.CLOCK_REALTIME))


def test_bodies() -> None:
    assert json.loads(transcribing("job1", "rec1", NOW_MS)) == {
        "job_id": "job1",
        "recording_id": "rec1",
        "status": "transcribing",
        "timestamp": "2026-01-31T12:00:00.007Z",
    }
    progress = Progress(30_000, 90_000, 1, 3, 4_500)
    assert json.loads(progressed("job1", "rec1", NOW_MS, progress)) == {
        **json.loads(transcribing("job1", "rec1", NOW_MS)),
        "progress": {
            "fraction": 0.3333,
            "audio_seconds_done": 30.0,
            "audio_seconds_total": 90.0,
            "chunks_done": 1,
            "chunks_total": 3,
            "eta_seconds": 4.5,
        },
    }
    assert json.loads(BODY) == {
        "job_id": "job1",
        "recording_id": "rec1",
        "status": "completed",
        "timestamp": "2026-01-31T12:00:00.007Z",
        "transcription": [{"text": "שלום עולם", "start": 0.0, "end": 1.5}],
        "language": "he",
        "duration": 1.5,
    }


@pytest.mark.parametrize("status", ["error", "transcription_failed"])
def test_failure_bodies(status: Literal["error", "transcription_failed"]) -> None:
    assert json.loads(failed("job1", "rec1", NOW_MS, status, Canceled("The client canceled it."))) == {
        "job_id": "job1",
        "recording_id": "rec1",
        "status": status,
        "timestamp": "2026-01-31T12:00:00.007Z",
        "code": "canceled",
        "error": "The client canceled it.",
    }


def test_a_recording_without_an_id_goes_by_the_job_id() -> None:
    assert json.loads(transcribing("job1", "", NOW_MS))["recording_id"] == "job1"


def test_body_is_the_text_the_seed_signs() -> None:
    assert transcribing("j", "הקלטה", 0) == (
        '{"job_id": "j", "recording_id": "\\u05d4\\u05e7\\u05dc\\u05d8\\u05d4", '
        '"status": "transcribing", "timestamp": "1970-01-01T00:00:00.000Z"}'
    )


@patient
@given(any_text, any_text, any_text, progresses)
def test_parsing_and_dumping_again_gives_the_same_bytes(a: str, b: str, c: str, progress: Progress) -> None:
    bodies = [
        transcribing(a, b, NOW_MS),
        progressed(a, b, NOW_MS, progress),
        completed(
            a,
            b,
            NOW_MS,
            Transcript((), 1, c),
            [{"text": c, "start": 0.1, "words": [], "extra_data": {"language": c}}],
        ),
        failed(a, b, NOW_MS, "error", NoSource(c)),
    ]
    for body in bodies:
        assert body.isascii()
        assert json.dumps(json.loads(body), sort_keys=True) == body


@pytest.mark.parametrize("text", ["\ud800", "a\udc80b", "\udc00\ud800"])
def test_a_lone_surrogate_survives_signing_and_parsing(text: str) -> None:
    body = failed("job1", text, NOW_MS, "error", NotMedia(text))
    parsed = json.loads(body)
    assert (parsed["recording_id"], parsed["error"]) == (text, text)
    headers = signature_headers([SECRET], "evt_job1_1_1", 1, body.encode())
    again = json.dumps(parsed, sort_keys=True).encode()
    assert verify_seed(SECRET, again, headers["X-Webhook-Signature"])


def test_progress_of_unknown_length() -> None:
    assert Progress(30_500, None, 2, 9, 1_000).to_wire() == {
        "fraction": None,
        "audio_seconds_done": 30.5,
        "audio_seconds_total": None,
        "chunks_done": 2,
        "chunks_total": None,
        "eta_seconds": None,
    }


@pytest.mark.parametrize(
    ("done_ms", "total_ms", "fraction"), [(0, 0, 1.0), (0, 9, 0.0), (9, 9, 1.0), (10, 9, 1.0), (2, 3, 0.6667)]
)
def test_fraction(done_ms: int, total_ms: int, fraction: float) -> None:
    assert Progress(done_ms, total_ms, 0, 1, None).to_wire()["fraction"] == fraction


@given(progresses)
def test_fraction_is_a_fraction_or_null(progress: Progress) -> None:
    fraction = progress.to_wire()["fraction"]
    assert (fraction is None) == (progress.total_ms is None)
    assert fraction is None or 0 <= fraction <= 1


@given(st.integers(0, 4_102_444_800_000))
def test_timestamp_keeps_every_millisecond(unix_ms: int) -> None:
    text = rfc3339(unix_ms)
    assert len(text) == len("2026-01-31T12:00:00.007Z")
    moment = datetime.fromisoformat(text)
    assert int(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000 == unix_ms


def test_the_reference_library_verifies() -> None:
    headers = signature_headers([SECRET], "evt_job1_1_3", unix_now(), BODY)
    assert Webhook(reference_key(SECRET)).verify(BODY, headers) == json.loads(BODY)
    with pytest.raises(WebhookVerificationError):
        Webhook(reference_key(SECRET)).verify(BODY + b" ", headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(reference_key(SECRET)).verify(BODY, {**headers, "webhook-id": "evt_job1_2_3"})


@pytest.mark.parametrize("padding", ["", "="])
def test_a_whsec_secret_is_a_key_for_one_signature_and_a_literal_for_the_other(padding: str) -> None:
    secret = "whsec_" + base64.b64encode(b"five and twenty-one bytes!").decode().rstrip("=") + padding
    headers = signature_headers([secret], "evt_job1_1_3", unix_now(), BODY)
    Webhook(secret).verify(BODY, headers)
    literal = hmac.new(secret.encode(), BODY, hashlib.sha256).hexdigest()
    assert headers["X-Webhook-Signature"] == literal


def test_while_a_secret_is_rotated_either_one_verifies() -> None:
    headers = signature_headers(["new", "old"], "evt_job1_1_3", unix_now(), BODY)
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in ("new", "old"):
        Webhook(reference_key(secret)).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(reference_key("other")).verify(BODY, headers)
    assert verify_seed("new", BODY, headers["X-Webhook-Signature"])
    assert not verify_seed("old", BODY, headers["X-Webhook-Signature"])


@pytest.mark.parametrize("secrets", [[], [""]])
def test_without_a_secret_nothing_is_signed(secrets: list[str]) -> None:
    headers = signature_headers(secrets, "evt_job1_1_3", 17, BODY)
    assert headers == {"webhook-id": "evt_job1_1_3", "webhook-timestamp": "17"}


@pytest.mark.parametrize("secret", ["whsec_", "whsec_a b c", "whsec_a", "whsec_----", "whsec_סוד"])
def test_a_whsec_secret_that_is_no_base64_is_refused(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="WEBHOOK_SECRET"):
        signature_headers([secret], "evt_job1_1_3", 17, BODY)


def test_the_seeds_receiver_verifies_the_raw_body_and_the_parsed_one() -> None:
    signature = signature_headers([SECRET], "evt_job1_1_3", 17, BODY)["X-Webhook-Signature"]
    for signed in (BODY, json.dumps(json.loads(BODY), sort_keys=True).encode("utf-8")):
        assert hmac.new(SECRET.encode("utf-8"), signed, hashlib.sha256).hexdigest() == signature
        assert verify_seed(SECRET, signed, signature)


@given(st.text(min_size=1, max_size=20), st.binary(max_size=50), any_text)
def test_only_the_right_signature_verifies(secret: str, body: bytes, guess: str) -> None:
    right = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    assert verify_seed(secret, body, right)
    assert not verify_seed(secret, body, guess)
    assert not verify_seed(secret + "x", body, right)
    assert not verify_seed(secret, body + b"x", right)


def test_an_empty_secret_verifies_nothing() -> None:
    assert not verify_seed("", BODY, hmac.new(b"", BODY, hashlib.sha256).hexdigest())
