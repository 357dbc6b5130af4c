"""How a job can end: its last state, its error, and the bodies that report it to its receiver."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks import events
from tasks.errors import Canceled, Expired, LonghandError
from tasks.job import Job, Request, Status
from tasks.model_names import FASTER_WHISPER
from tasks.transcript import Transcript, segment_to_wire, sums


@dataclass(frozen=True, slots=True)
class Ending:
    """`body` is sent where transcription was announced to the receiver, `body_before` where it never was."""

    status: Status
    body: str
    body_before: str
    code: str = ""
    error: str = ""
    meta: str = "{}"


@dataclass(frozen=True, slots=True)
class Link:
    """Where else a transcript can be read, for bodies of more than so many bytes."""

    url: str
    above_bytes: int


def completed_body(job: Job, request: Request, transcript: Transcript, now_ms: int) -> str:
    """Body of the event that carries the transcript."""
    return events.completed(job.id, job.recording_id, now_ms, transcript, _wire(request, transcript))


def batch_body(job: Job, heard: list[tuple[Job, Transcript]], now_ms: int) -> str:
    """Body of the event that carries a batch's transcripts, each segment with its recording's `index`."""
    wire, sources = [], []
    for part, transcript in heard:
        about: dict[str, object] = {"index": part.part}
        if part.status is Status.SUCCEEDED and part.request:
            wire += [{**segment, "index": part.part} for segment in _wire(part.request, transcript)]
            about |= {**transcript.language_to_wire(), "duration": transcript.duration_ms / 1000}
            about |= transcript.gaps_to_wire()
        else:
            about |= {"error": part.error, "code": part.code}
        sources.append(about)
    return events.completed(job.id, job.recording_id, now_ms, _outline(heard), wire, sources=sources)


def succeeded(
    job: Job,
    request: Request,
    transcript: Transcript,
    model: str,
    now_ms: int,
    *,
    engine: str = FASTER_WHISPER,
    link: Link | None = None,
) -> Ending:
    """The transcript is whole. A `link` replaces it in a body that would be too large."""
    body = completed_body(job, request, transcript, now_ms)
    if link and len(body) > link.above_bytes:
        body = events.completed_elsewhere(job.id, job.recording_id, now_ms, transcript, link.url)
    made_by = {"model": model, "engine": engine}
    meta = {**transcript.language_to_wire(), **made_by, **transcript.gaps_to_wire()}
    # Some are known only when all chunks are decoded.
    warnings = {"warnings": transcript.warnings} if transcript.warnings else {}
    return _succeeded(body, meta | warnings | _quality([transcript], sampled=request.options.samples))


def batch_succeeded(
    job: Job,
    heard: list[tuple[Job, Transcript]],
    model: str,
    now_ms: int,
    *,
    engine: str = FASTER_WHISPER,
    link: Link | None = None,
) -> Ending:
    """Every recording of a batch has ended, well or not; what failed is told with the rest."""
    body, outline = batch_body(job, heard, now_ms), _outline(heard)
    if link and len(body) > link.above_bytes:
        body = events.completed_elsewhere(job.id, job.recording_id, now_ms, outline, link.url)
    made_by = {"model": model, "engine": engine}
    meta = {"language": outline.language, **made_by, "duration": outline.duration_ms / 1000}
    gaps = [
        {"index": part.part, **gap.to_wire()}
        for part, transcript in heard
        if part.status is Status.SUCCEEDED
        for gap in transcript.gaps
    ]
    sampled = any(part.request.options.samples for part, _ in heard if part.request)
    quality = _quality([transcript for _, transcript in heard], sampled=sampled)
    return _succeeded(body, meta | ({"gaps": gaps} if gaps else {}) | quality)


def _succeeded(body: str, meta: Mapping[str, object]) -> Ending:
    return Ending(Status.SUCCEEDED, body, body, meta=json.dumps(meta))


def _quality(transcripts: Sequence[Transcript], *, sampled: bool) -> dict[str, object]:
    """The field `quality`: what was counted, and `sampled` where it cannot be reproduced."""
    counts = sums(transcript.counts for transcript in transcripts)
    quality: dict[str, object] = {**counts, **({"sampled": True} if sampled else {})}
    return {"quality": quality} if quality else {}


def _outline(heard: list[tuple[Job, Transcript]]) -> Transcript:
    """Length of all recordings of a batch, and the language of the first that has one; no segments."""
    duration_ms = sum(transcript.duration_ms for part, transcript in heard if part.status is Status.SUCCEEDED)
    language = next((transcript.language for _, transcript in heard if transcript.language), "")
    return Transcript((), duration_ms, language)


def _wire(request: Request, transcript: Transcript) -> list[dict[str, object]]:
    words = request.options.word_timestamps
    return [
        segment_to_wire(segment, extra_data=request.extra_data, words=words)
        for segment in transcript.segments
    ]


def failed(job_id: str, recording_id: str, now_ms: int, error: LonghandError) -> Ending:
    """Says `error` to the receiver if transcription never began, else `transcription_failed`."""
    body = events.failed(job_id, recording_id, now_ms, "transcription_failed", error)
    body_before = events.failed(job_id, recording_id, now_ms, "error", error)
    return Ending(Status.FAILED, body, body_before, error.code, str(error))


def canceled(job: Job, now_ms: int) -> Ending:
    return _stopped(job, now_ms, Status.CANCELED, Canceled())


def expired(job: Job, now_ms: int) -> Ending:
    return _stopped(job, now_ms, Status.EXPIRED, Expired())


def _stopped(job: Job, now_ms: int, status: Status, error: LonghandError) -> Ending:
    body = events.failed(job.id, job.recording_id, now_ms, "transcription_failed", error)
    return Ending(status, body, body, error.code, str(error))
