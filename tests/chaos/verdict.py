"""What was promised, held against what was seen. Pure: every broken promise is a sentence."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dispatcher.client import segments_of
from tests.chaos.books import Count
from tests.chaos.customer import Run, Seen
from tests.chaos.schedule import Kind

Segments = list[dict[str, Any]]

# How a run may end, by its number; a cancellation may come too late.
ENDS: dict[Kind, tuple[tuple[str, ...], ...]] = {
    Kind.PLAIN: (("COMPLETED",),),
    Kind.BATCH: (("COMPLETED",),),
    Kind.DEADLY: (("COMPLETED",),),
    Kind.CANCEL: (("CANCELLED", "COMPLETED"),),
    Kind.RETRY: (("FAILED",), ("COMPLETED",)),
    Kind.MISSING: (("FAILED",),),
    Kind.SLOW: (("FAILED",),),
}
CODES = {Kind.RETRY: "chunk_failed", Kind.MISSING: "source_refused", Kind.SLOW: "execution_timeout"}
# What a webhook says of a run that ended so.
TOLD = {"COMPLETED": "completed", "FAILED": "transcription_failed", "CANCELLED": "transcription_failed"}


@dataclass(slots=True)
class Arrival:
    """One request at the receiver: the event's id and number in its run, its body, the answer it got."""

    event: str
    body: dict[str, Any]
    status: int

    @property
    def run(self) -> int:
        return int(self.event.rsplit("_", 2)[1])

    @property
    def number(self) -> int:
        return int(self.event.rsplit("_", 1)[1])

    @property
    def terminal(self) -> bool:
        return bool(self.body["status"] != "transcribing")


@dataclass(slots=True)
class Evidence:
    """`references`: the segments of each recording from an undisturbed run.

    `commits`: how often a worker said that a chunk of a job is done, by (job, index). `books`: what Redis has
    counted of jobs that have ended, by job.
    """

    seen: list[Seen]
    references: list[Segments]
    arrivals: list[Arrival]
    commits: dict[tuple[str, int], int] = field(default_factory=dict)
    books: dict[str, list[Count]] = field(default_factory=dict)


def broken(evidence: Evidence) -> Iterator[str]:
    """Every promise that was not kept."""
    by_job: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in evidence.arrivals:
        by_job[arrival.body["job_id"]].append(arrival)
    ids = [seen.job_id for seen in evidence.seen if seen.job_id]
    if len(set(ids)) < len(ids):
        yield "two errands were given the same job"
    for stranger in sorted(set(by_job) - set(ids)):
        yield f"job {stranger} was told of, and nobody has its id"
    for (job_id, index), times in sorted(evidence.commits.items()):
        if times > 1:
            yield f"job {job_id}: chunk {index} was committed {times} times"
    for job_id, counts in sorted(evidence.books.items()):
        for count in counts:
            if count.counted != count.there:
                yield f"job {job_id}: committed {count.counted} {count.what}, and {count.there} are there"
    if ids and not any(evidence.books.values()):
        yield "nobody looked into the books"
    for seen in evidence.seen:
        for sentence in _broken_of(seen, by_job[seen.job_id], evidence.references):
            yield f"job {seen.job_id} ({seen.errand.kind} {seen.errand.number}): {sentence}"


def _broken_of(seen: Seen, arrivals: list[Arrival], references: Sequence[Segments]) -> Iterator[str]:
    if seen.problem:
        yield f"was not seen to its end: {seen.problem}"
        return
    if seen.stream_errors:
        yield f"/stream answered with {sorted(set(seen.stream_errors))}"
    ends = ENDS[seen.errand.kind]
    if len(seen.runs) > len(ends):
        yield f"had {len(seen.runs)} runs"
        return
    if len(seen.runs) < len(ends):
        yield f"ended {seen.runs[-1].end['status']} in run {len(seen.runs)} of {len(ends)}"
    recordings = [references[recording] for recording in seen.errand.recordings]
    for number, (run, expected) in enumerate(zip(seen.runs, ends, strict=False), start=1):
        for sentence in _broken_of_run(seen, run, expected, recordings):
            yield f"run {number}: {sentence}"
        told = [arrival for arrival in arrivals if arrival.run == number]
        for sentence in _broken_events(run, told, recordings):
            yield f"run {number}: {sentence}"


def _broken_of_run(
    seen: Seen, run: Run, expected: tuple[str, ...], recordings: list[Segments]
) -> Iterator[str]:
    status = run.end["status"]
    if status not in expected:
        yield f"ended {status} and not {' or '.join(expected)}: {run.end.get('error')}"
        return
    if run.later != run.end:
        yield f"had ended as {_brief(run.end)}, and later as {_brief(run.later)}"
    code = run.end.get("code")
    if status == "FAILED" and code != CODES[seen.errand.kind]:
        yield f"failed with {code}: {run.end.get('error')}"
    for index, reference in enumerate(recordings):
        only = index if seen.errand.kind is Kind.BATCH else None
        streamed = _of(run.entries, only)
        if seen.errand.drains and run.unanswered:
            streamed = _without_repeats(streamed)
        if status == "COMPLETED":
            if streamed != reference:
                yield f"streamed {_difference(streamed, reference)}"
            if (output := _of([*_entries(run.end["output"])], only)) != reference:
                yield f"has as its output {_difference(output, reference)}"
        elif status == "FAILED":
            yield from _broken_of_failed(seen.errand.kind, streamed, reference)
        elif streamed != reference[: len(streamed)]:
            yield f"streamed {_difference(streamed, reference[: len(streamed)])}"


def _broken_of_failed(kind: Kind, streamed: Segments, reference: Segments) -> Iterator[str]:
    """What was finished is told in order, whatever is missing before it: one chunk, if that failed."""
    rest = iter(reference)
    if any(segment not in rest for segment in streamed):
        yield f"streamed {_difference(streamed, reference)}, or out of order"
    elif kind is Kind.RETRY and not _lacks_one_span(streamed, reference):
        yield f"streamed {len(streamed)} segments of {len(reference)}, and not all but those of one chunk"


def _lacks_one_span(streamed: Segments, reference: Segments) -> bool:
    same = 0
    while same < len(streamed) and streamed[same] == reference[same]:
        same += 1
    # What comes behind is the end of the recording.
    return streamed[same:] == reference[len(reference) - len(streamed) + same :]


def _broken_events(run: Run, told: list[Arrival], recordings: list[Segments]) -> Iterator[str]:
    terminal = {arrival.event for arrival in told if arrival.terminal}
    if len(terminal) != 1:
        yield f"has {len(terminal)} terminal events"
        return
    if not any(arrival.status == 200 for arrival in told if arrival.terminal):
        yield "its terminal event was never taken"
    bodies = defaultdict(set)
    for arrival in told:
        bodies[arrival.event].add(json.dumps(arrival.body, sort_keys=True))
    if any(len(found) > 1 for found in bodies.values()):
        yield "an event was told in two ways"
    numbers = [arrival.number for arrival in told]
    if numbers != sorted(numbers):
        yield f"was told out of order: {numbers}"
    body = next(arrival.body for arrival in told if arrival.terminal)
    expected = TOLD[run.end["status"]]
    # What never began to be transcribed fails as an `error`.
    if body["status"] != expected and not (body["status"] == "error" and expected == TOLD["FAILED"]):
        yield f"was told to be {body['status']}, and is {run.end['status']}"
    if body["status"] == "completed":
        wanted = sorted(_plain(segment) for reference in recordings for segment in reference)
        if sorted(_plain(segment) for segment in body["transcription"]) != wanted:
            yield "was told another transcript"


def _plain(segment: dict[str, Any]) -> tuple[float, float, str]:
    return segment["start"], segment["end"], segment["text"]


def _entries(output: list[Any]) -> Iterator[dict[str, Any]]:
    for item in output:
        yield from item


def _of(entries: list[dict[str, Any]], index: int | None) -> Segments:
    """The segments, of all or of one recording of a batch."""
    return segments_of([[entry for entry in entries if index is None or entry.get("index") == index]])


def _without_repeats(segments: Segments) -> Segments:
    """Each only once: after a read without an answer, what it may have held is told again."""
    found: Segments = []
    for segment in segments:
        if segment not in found:
            found.append(segment)
    return found


def _difference(found: Segments, wanted: Segments) -> str:
    for place, (one, other) in enumerate(zip(found, wanted, strict=False)):
        if one != other:
            return f"{one['text']!r} as segment {place}, where {other['text']!r} was said"
    return f"{len(found)} segments of {len(wanted)}"


def _brief(shown: dict[str, Any]) -> str:
    return str({name: value for name, value in shown.items() if name != "output"})
