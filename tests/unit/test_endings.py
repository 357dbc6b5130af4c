"""How jobs end: each ending's row, and the exact bodies its receiver gets."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tasks import endings
from tasks.errors import NotMedia, SourceChanged
from tasks.job import Job, Options, Request, Status
from tasks.transcript import Segment, Transcript, Word

NOW_MS = 1_700_000_000_123
STAMP = "2023-11-14T22:13:20.123Z"
REQUEST = Request("https://a.test/x", "m")
JOB = Job("j", "longhand", "us", Status.RUNNING, 1, REQUEST, "הקלטה", 1, 2, 0)
WORD = Word(" שלום", 1500, 2000, 0.9)
TRANSCRIPT = Transcript((Segment("שלום", 1500, 2000, (WORD,), "he"),), 61_500, "he", ("no silence",))


def read(body: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(body)
    assert body == json.dumps(fields, sort_keys=True), "receivers sign what they parse and dump again"
    return fields


def test_a_batch_is_told_with_the_index_of_each_recording() -> None:
    failed = replace(JOB, id="j.1", part=1, status=Status.FAILED, error="a web page", code="not_media")
    done = replace(JOB, id="j.0", status=Status.SUCCEEDED)
    heard = [(done, TRANSCRIPT), (failed, Transcript((), 7_000))]
    ending = endings.batch_succeeded(replace(JOB, parts=2), heard, "org/m", NOW_MS)
    body = read(ending.body)
    assert [segment["index"] for segment in body["transcription"]] == [0]
    assert body["sources"] == [
        {"index": 0, "language": "he", "duration": 61.5},
        {"index": 1, "error": "a web page", "code": "not_media"},
    ]
    assert (body["language"], body["duration"]) == ("he", 61.5)
    assert json.loads(ending.meta) == {
        "language": "he",
        "model": "org/m",
        "engine": "faster-whisper",
        "duration": 61.5,
    }
    large = endings.batch_succeeded(JOB, heard, "m", NOW_MS, link=endings.Link("https://a.test/l", 10))
    assert read(large.body)["transcription_url"] == "https://a.test/l"
    assert "transcription" not in read(large.body)


def test_a_transcript_is_told_whole() -> None:
    ending = endings.succeeded(JOB, REQUEST, TRANSCRIPT, "org/m", NOW_MS)
    segment = {
        "text": "שלום",
        "start": 1.5,
        "end": 2.0,
        "speakers": [],
        "words": [{"word": " שלום", "start": 1.5, "end": 2.0, "probability": 0.9, "speaker": None}],
        "extra_data": {"language": "he"},
    }
    assert read(ending.body) == {
        "job_id": "j",
        "recording_id": "הקלטה",
        "status": "completed",
        "timestamp": STAMP,
        "language": "he",
        "duration": 61.5,
        "transcription": [segment],
        "warnings": ["no silence"],
    }
    # An empty recording is never announced, and yet it is completed.
    assert ending.body_before == ending.body
    assert (ending.status, ending.code, ending.error) == (Status.SUCCEEDED, "", "")
    made_by = {"model": "org/m", "engine": "faster-whisper"}
    assert json.loads(ending.meta) == {"language": "he", **made_by, "warnings": ["no silence"]}


def test_a_language_that_was_detected_is_told_with_its_probability() -> None:
    detected = replace(TRANSCRIPT, language_probability=0.83)
    ending = endings.succeeded(JOB, REQUEST, detected, "org/m", NOW_MS)
    assert (
        read(ending.body)["language_probability"] == json.loads(ending.meta)["language_probability"] == 0.83
    )
    done = replace(JOB, id="j.0", status=Status.SUCCEEDED)
    batch = endings.batch_succeeded(replace(JOB, parts=1), [(done, detected)], "m", NOW_MS)
    assert read(batch.body)["sources"][0]["language_probability"] == 0.83
    assert "language_probability" not in read(endings.succeeded(JOB, REQUEST, TRANSCRIPT, "m", NOW_MS).body)


def test_each_segment_is_told_with_its_own_language() -> None:
    both = (Segment("a", 0, 1, (), "fr"), Segment("b", 1, 2, (), "he"))
    body = read(endings.succeeded(JOB, REQUEST, replace(TRANSCRIPT, segments=both), "m", NOW_MS).body)
    assert [segment["extra_data"]["language"] for segment in body["transcription"]] == ["fr", "he"]


def test_what_was_counted_is_told_in_order_and_sampling_is_flagged() -> None:
    counted = replace(TRANSCRIPT, counts={"windows": 4, "fallback_windows": 1})
    counts = {"fallback_windows": 1, "windows": 4}
    ending = endings.succeeded(JOB, REQUEST, counted, "m", NOW_MS)
    assert json.loads(ending.meta)["quality"] == counts
    assert ending.meta == endings.succeeded(JOB, REQUEST, counted, "m", NOW_MS).meta
    sampling = replace(REQUEST, options=Options(temperature=0.4))
    ending = endings.succeeded(JOB, sampling, counted, "m", NOW_MS)
    assert json.loads(ending.meta)["quality"] == {**counts, "sampled": True}
    # Receivers of webhooks and readers of segments get no field that they do not know.
    assert "quality" not in ending.body
    parts = [
        (replace(JOB, id=f"j.{part}", part=part, request=request), counted)
        for part, request in enumerate([REQUEST, sampling])
    ]
    batch = endings.batch_succeeded(replace(JOB, parts=2), parts, "m", NOW_MS)
    assert json.loads(batch.meta)["quality"] == {"fallback_windows": 2, "windows": 8, "sampled": True}


def test_words_and_extra_data_are_left_out_on_request() -> None:
    request = replace(REQUEST, options=Options(word_timestamps=False), extra_data=False)
    (segment,) = read(endings.succeeded(JOB, request, TRANSCRIPT, "m", NOW_MS).body)["transcription"]
    assert (segment["words"], segment["extra_data"]) == ([], {})


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (NotMedia("this is a web page"), "not_media", "this is a web page"),
        (SourceChanged(), "source_changed", SourceChanged.__doc__),
    ],
)
def test_a_failure_is_called_error_only_if_transcription_never_began(
    error: NotMedia | SourceChanged, code: str, sentence: str
) -> None:
    ending = endings.failed("j", "r", NOW_MS, error)
    shared = {"job_id": "j", "recording_id": "r", "timestamp": STAMP, "code": code, "error": sentence}
    assert read(ending.body) == shared | {"status": "transcription_failed"}
    assert read(ending.body_before) == shared | {"status": "error"}
    assert (ending.status, ending.code, ending.error, ending.meta) == (Status.FAILED, code, sentence, "{}")


def test_a_job_canceled_or_expired_fails_by_its_own_code() -> None:
    for ending, status in (
        (endings.canceled(JOB, NOW_MS), Status.CANCELED),
        (endings.expired(JOB, NOW_MS), Status.EXPIRED),
    ):
        body = read(ending.body)
        assert (body["status"], body["code"]) == ("transcription_failed", status.value)
        assert body["error"] == ending.error
        assert body["recording_id"] == "הקלטה"
        assert ending.body_before == ending.body
        assert (ending.status, ending.code) == (status, status.value)
