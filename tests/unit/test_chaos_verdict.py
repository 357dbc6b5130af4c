"""The judge of the chaos suite: it says nothing of a good run, and of each thing that is wrong."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.books import Count
from tests.chaos.customer import Run, Seen
from tests.chaos.schedule import Errand, Kind, errands, strikes
from tests.chaos.verdict import Arrival, Evidence, broken

SEGMENTS = [{"text": text, "start": float(start), "end": start + 1.0} for start, text in enumerate("abc")]


def entry(segments: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"type": "segments", "data": segments, **more}


def event(number: int, body: dict[str, Any], status: int = 200, run: int = 1, job: str = "j") -> Arrival:
    return Arrival(f"evt_{job}_{run}_{number}", {"job_id": job, **body}, status)


def good(kind: Kind = Kind.PLAIN, *, drains: bool = False) -> Evidence:
    """A job of one recording that was told right."""
    end = {"status": "COMPLETED", "output": [[entry(SEGMENTS[:2])], [entry(SEGMENTS[2:])]]}
    run = Run([entry(SEGMENTS[:2]), {"type": "progress", "data": {}}, entry(SEGMENTS[2:])], 0, end, end)
    seen = Seen(Errand(0, 0, kind, (0,), 0, drains), "j", [run])
    arrivals = [
        event(1, {"status": "transcribing"}),
        event(2, {"status": "completed", "transcription": SEGMENTS}),
    ]
    return Evidence([seen], [SEGMENTS], arrivals, {("j", 0): 1}, {"j": [Count("ms of j", 3_000, 3_000)]})


def failed() -> Evidence:
    """A job that failed where it should, after its first segment."""
    end = {"status": "FAILED", "code": "execution_timeout", "error": "executionTimeout exceeded"}
    seen = Seen(Errand(0, 0, Kind.SLOW, (0,), 0, False), "j", [Run([entry(SEGMENTS[:1])], 0, end, end)])
    told, books = [event(1, {"status": "transcription_failed"})], {"j": [Count("ms of j", 1_000, 1_000)]}
    return Evidence([seen], [SEGMENTS], told, books=books)


@pytest.mark.parametrize("evidence", [good(), good(drains=True), good(Kind.CANCEL), failed()])
def test_says_nothing_of_what_is_right(evidence: Evidence) -> None:
    assert list(broken(evidence)) == []


def test_lets_what_had_no_answer_be_drained_again() -> None:
    evidence = good(drains=True)
    run = evidence.seen[0].runs[0]
    run.entries = [run.entries[0], *run.entries]
    assert "streamed" in next(broken(evidence))
    run.unanswered = 1
    assert list(broken(evidence)) == []


def lose_a_segment(evidence: Evidence) -> None:
    evidence.seen[0].runs[0].entries = [entry(SEGMENTS[:2])]


def repeat_a_segment(evidence: Evidence) -> None:
    evidence.seen[0].runs[0].entries.append(entry(SEGMENTS[2:]))


def turn_segments_around(evidence: Evidence) -> None:
    evidence.seen[0].runs[0].entries.reverse()


def lose_output(evidence: Evidence) -> None:
    evidence.seen[0].runs[0].end["output"].pop()


def change_the_end(evidence: Evidence) -> None:
    evidence.seen[0].runs[0].later = {"status": "FAILED"}


def fail(evidence: Evidence) -> None:
    evidence.seen[0].runs[0].end["status"] = "FAILED"


def end_twice(evidence: Evidence) -> None:
    evidence.arrivals.append(event(3, {"status": "completed", "transcription": SEGMENTS}))


def never_take_the_end(evidence: Evidence) -> None:
    evidence.arrivals[-1].status = 500


def tell_after_the_end(evidence: Evidence) -> None:
    evidence.arrivals.append(evidence.arrivals[0])


def tell_two_things(evidence: Evidence) -> None:
    evidence.arrivals.append(event(2, {"status": "completed", "transcription": SEGMENTS[:1]}))


def tell_another_end(evidence: Evidence) -> None:
    evidence.arrivals[-1].body["status"] = "transcription_failed"


def tell_another_transcript(evidence: Evidence) -> None:
    evidence.arrivals[-1].body["transcription"] = SEGMENTS[1:]


def tell_of_a_stranger(evidence: Evidence) -> None:
    evidence.arrivals.append(event(1, {"status": "transcribing"}, job="k"))


def commit_twice(evidence: Evidence) -> None:
    evidence.commits["j", 0] = 2


def write_twice_what_no_log_tells(evidence: Evidence) -> None:
    evidence.books["j"] = [Count("ms of j", 4_000, 3_000)]


def lose_the_books(evidence: Evidence) -> None:
    evidence.books.clear()


def answer_a_stream_with_an_error(evidence: Evidence) -> None:
    evidence.seen[0].stream_errors.append(503)


def lose_the_job(evidence: Evidence) -> None:
    evidence.seen[0].problem = "too late"


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lose_a_segment, "streamed 2 segments of 3"),
        (repeat_a_segment, "streamed 4 segments of 3"),
        (turn_segments_around, "streamed 'c' as segment 0, where 'a' was said"),
        (lose_output, "has as its output 2 segments of 3"),
        (change_the_end, "and later as"),
        (fail, "ended FAILED and not COMPLETED"),
        (end_twice, "has 2 terminal events"),
        (never_take_the_end, "its terminal event was never taken"),
        (tell_after_the_end, "was told out of order: [1, 2, 1]"),
        (tell_two_things, "an event was told in two ways"),
        (tell_another_end, "was told to be transcription_failed, and is COMPLETED"),
        (tell_another_transcript, "was told another transcript"),
        (tell_of_a_stranger, "job k was told of, and nobody has its id"),
        (commit_twice, "chunk 0 was committed 2 times"),
        (write_twice_what_no_log_tells, "committed 4000 ms of j, and 3000 are there"),
        (lose_the_books, "nobody looked into the books"),
        (answer_a_stream_with_an_error, "/stream answered with [503]"),
        (lose_the_job, "was not seen to its end: too late"),
    ],
)
def test_says_what_is_wrong(spoil: Callable[[Evidence], None], sentence: str) -> None:
    evidence = good()
    spoil(evidence)
    assert any(sentence in found for found in broken(evidence))


def test_a_failed_job_has_its_code_and_no_wrong_segment() -> None:
    evidence = failed()
    evidence.seen[0].runs[0].end["code"] = "internal_error"
    evidence.seen[0].runs[0].entries = [entry([SEGMENTS[2], SEGMENTS[0]])]
    found = " ".join(broken(evidence))
    assert "failed with internal_error" in found
    assert "streamed 'c' as segment 0, where 'a' was said, or out of order" in found


def test_a_failed_job_may_have_gaps() -> None:
    evidence = failed()
    evidence.seen[0].runs[0].entries = [entry([SEGMENTS[0], SEGMENTS[2]])]
    assert list(broken(evidence)) == []


@pytest.mark.parametrize(
    ("streamed", "right"), [("ac", True), ("ab", True), ("bc", True), ("", True), ("b", False)]
)
def test_of_a_job_with_a_chunk_that_failed_all_others_are_told(streamed: str, right: bool) -> None:
    evidence = good(Kind.RETRY)
    end = {"status": "FAILED", "code": "chunk_failed", "error": "chunk 1"}
    told = [segment for segment in SEGMENTS if str(segment["text"]) in streamed]
    evidence.seen[0].runs.insert(0, Run([entry(told)], 0, end, end))
    found = " ".join(broken(evidence))
    assert ("not all but those of one chunk" in found) is not right


def test_a_job_that_is_to_be_tried_again_fails_first() -> None:
    assert any("in run 1 of 2" in found for found in broken(good(Kind.RETRY)))


def test_a_seed_says_all() -> None:
    one, same, other = (random.Random(seed) for seed in (1, 1, 2))
    blows = [strikes(rng, 60_000, (500, 2_500)) for rng in (one, same, other)]
    assert blows[0] == blows[1] != blows[2]
    assert errands(one, 60_000, 700, 5) == errands(same, 60_000, 700, 5) != errands(other, 60_000, 700, 5)
