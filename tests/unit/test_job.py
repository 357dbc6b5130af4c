"""The job as a value: which changes of status are legal, and what survives its way through JSON and Redis."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.job import Job, Options, Request, Status

ROW = {
    "endpoint": "longhand",
    "account": "us",
    "status": "queued",
    "run": "1",
    "created_ms": "1000",
    "deadline_ms": "5000",
}

options = st.builds(
    Options,
    language=st.none() | st.sampled_from(["he", "en"]),
    task=st.sampled_from(["transcribe", "translate"]),
    patience=st.floats(0, 4),
    temperature=st.floats(0, 2) | st.lists(st.floats(0, 2)),
    initial_prompt=st.none() | st.text() | st.lists(st.integers()),
    suppress_tokens=st.lists(st.integers()),
    vad_filter=st.just(True),
    vad_parameters=st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False)),
)
requests = st.builds(Request, url=st.text(), model=st.text(), options=options)


@pytest.mark.parametrize("status", Status)
def test_a_job_is_terminal_in_four_states(status: Status) -> None:
    job = Job.from_row("j", {**ROW, "status": status})
    assert job.terminal == (status in {"succeeded", "failed", "canceled", "expired"})


@given(requests)
def test_a_request_survives_json(request: Request) -> None:
    assert Request.from_json(request.to_json()) == request


def test_text_is_stored_readable() -> None:
    assert "שלום" in Request("https://a.test/x", "m", Options(initial_prompt="שלום")).to_json()


@pytest.mark.parametrize(
    ("model", "language", "multilingual", "known", "pinned"),
    [
        ("large", None, False, "", False),
        ("large", "he", False, "he", True),
        ("large", None, True, "", True),
        ("tiny.en", None, False, "en", True),
    ],
)
def test_a_language_is_pinned_when_it_is_given_implied_or_free(
    model: str, language: str | None, multilingual: bool, known: str, pinned: bool
) -> None:
    request = Request("https://a.test/x", model, Options(language=language, multilingual=multilingual))
    assert (request.language, request.pinned) == (known, pinned)


def test_a_fresh_row_has_only_what_was_asked() -> None:
    job = Job.from_row("j", ROW)
    assert job == Job("j", "longhand", "us", Status.QUEUED, 1, None, "j", 1000, 5000, 0)
    assert (job.total, job.duration_ms, job.started_ms, job.announced_ms, job.finished_ms) == (None,) * 5


def test_a_full_row_is_read_whole() -> None:
    request = Request("https://a.test/x", "m")
    row = {
        **ROW,
        "status": "failed",
        "request": request.to_json(),
        "recording_id": "הקלטה",
        "execution_timeout_ms": "7",
        "started_ms": "1100",
        "announced_ms": "1200",
        "finished_ms": "1300",
        "language": "he",
        "total": "0",
        "duration_ms": "0",
        "done_ms": "9",
        "warnings": json.dumps(["w"]),
        "code": "not_media",
        "error": "no",
        "meta": json.dumps({"model": "m"}),
    }
    assert Job.from_row("j", row) == Job(
        id="j",
        endpoint="longhand",
        account="us",
        status=Status.FAILED,
        run=1,
        request=request,
        recording_id="הקלטה",
        created_ms=1000,
        deadline_ms=5000,
        execution_timeout_ms=7,
        started_ms=1100,
        announced_ms=1200,
        finished_ms=1300,
        language="he",
        total=0,
        duration_ms=0,
        done_ms=9,
        warnings=("w",),
        code="not_media",
        error="no",
        meta={"model": "m"},
    )
