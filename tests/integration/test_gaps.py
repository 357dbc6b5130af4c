"""`allow_gaps`: a job is completed although a part of it could not be transcribed, and says which."""

from dataclasses import replace
from typing import Any

import pytest

from tasks import endings
from tasks.errors import ChunkFailed, EngineFailed, UnknownModel
from tasks.leases import INGEST, TRANSCRIBE
from tasks.transcript import Gap
from tests.bench import NEW, REQUEST, Bench, chunk
from tests.conftest import Eventually, Receiver, Stack

LONG_S = 120


def planned(bench: Bench, *, allow_gaps: bool) -> None:
    """A running job of three chunks."""
    assert bench.store.create(replace(NEW, request=replace(REQUEST, allow_gaps=allow_gaps)))
    ingest = bench.ingests["j"] = bench.claim(INGEST, INGEST)
    for index in range(3):
        bench.leases.add_chunk(ingest, chunk(index))
    bench.seal()


def give_up(bench: Bench, index: int) -> None:
    """A chunk that no other attempt can help."""
    bench.leases.release(bench.claim(TRANSCRIBE, str(index)), UnknownModel())


def emitted(bench: Bench) -> list[int]:
    return [event.index for event in bench.store.events("j")]


# The stream


def test_a_permitted_gap_is_passed_over(bench: Bench) -> None:
    planned(bench, allow_gaps=True)
    bench.commit(bench.claim(TRANSCRIBE, "0"))
    give_up(bench, 1)
    bench.commit(bench.claim(TRANSCRIBE, "2"))
    assert emitted(bench) == [0, 2]


def test_what_waits_behind_a_gap_goes_out_with_it(bench: Bench) -> None:
    planned(bench, allow_gaps=True)
    bench.commit(bench.claim(TRANSCRIBE, "1"))
    bench.commit(bench.claim(TRANSCRIBE, "2"))
    assert emitted(bench) == []
    give_up(bench, 0)
    assert emitted(bench) == [1, 2]


def test_a_gap_that_is_not_permitted_ends_the_stream(bench: Bench) -> None:
    planned(bench, allow_gaps=False)
    bench.commit(bench.claim(TRANSCRIBE, "0"))
    give_up(bench, 1)
    bench.commit(bench.claim(TRANSCRIBE, "2"))
    assert emitted(bench) == [0]


def test_a_job_that_fails_tells_of_all_that_is_done(bench: Bench) -> None:
    planned(bench, allow_gaps=False)
    bench.commit(bench.claim(TRANSCRIBE, "0"))
    give_up(bench, 1)
    bench.commit(bench.claim(TRANSCRIBE, "2"))
    assert bench.store.finish("j", endings.failed("j", "r", 1, ChunkFailed()))[0]
    # The last is its end.
    assert emitted(bench) == [0, 2, -1]
    assert bench.store.retry("j") == "queued"
    assert emitted(bench) == [0]
    bench.commit(bench.claim(TRANSCRIBE, "1"))
    assert emitted(bench) == [0, 1, 2]


def test_of_one_that_is_canceled_nothing_more_is_told(bench: Bench) -> None:
    planned(bench, allow_gaps=False)
    bench.commit(bench.claim(TRANSCRIBE, "1"))
    assert bench.finish()[0]
    assert emitted(bench) == [-1]


@pytest.mark.parametrize("gap", [True, False])
def test_the_audio_of_a_job_with_a_gap_is_kept(bench: Bench, gap: bool) -> None:
    planned(bench, allow_gaps=True)
    if gap:
        give_up(bench, 1)
    job = bench.job()
    assert job.request
    ending = endings.succeeded(job, job.request, bench.store.transcript(job), "m", bench.store.now_ms())
    assert bench.store.finish("j", ending)[0]
    assert bench.leases.reap().sweep == ([] if gap else ["j"])


def test_the_gaps_of_a_job(bench: Bench) -> None:
    planned(bench, allow_gaps=True)
    give_up(bench, 2)
    for _ in range(bench.settings.max_attempts):
        bench.leases.release(bench.claim(TRANSCRIBE, "0"), EngineFailed("with: a colon"))
    assert bench.store.gaps("j") == (Gap(0, 1000, "engine_failed"), Gap(2000, 3000, "unknown_model"))


# Real processes


def submit(stack: Stack, receiver: Receiver, name: str, seconds: int, prompt: str, **fields: Any) -> str:
    return stack.client.submit(stack.input(receiver, name, seconds, prompt, **fields))


def test_a_job_that_allows_gaps_is_completed_and_says_where_they_are(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    whole = submit(stack, receiver, "whole", 31, "")
    job_id = submit(stack, receiver, "gap", 31, "fail:1", allow_gaps=True)
    shown = eventually(lambda: stack.ended(job_id), LONG_S)
    assert shown["status"] == "COMPLETED"
    missing = stack.store.chunk(job_id, 1)
    assert missing
    start, end = missing.start_ms / 1000, missing.end_ms / 1000
    gaps = [{"start": start, "end": end, "code": "engine_failed"}]
    assert shown["gaps"] == gaps
    # All the rest is there, as it would be without the gap.
    expected = [
        segment
        for segment in segments_of(eventually(lambda: stack.ended(whole), LONG_S))
        if not start <= segment["start"] < end
    ]
    assert segments_of(shown) == expected
    eventually(lambda: "completed" in receiver.statuses("gap"), LONG_S)
    body = receiver.bodies("gap")[-1]
    assert body["gaps"] == gaps
    assert body["transcription"] == expected
    assert "gaps" not in stack.client.status(whole)
    eventually(lambda: "completed" in receiver.statuses("whole"), LONG_S)
    assert "gaps" not in receiver.bodies("whole")[-1]


def test_what_a_job_that_fails_has_transcribed_can_be_read(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    whole = submit(stack, receiver, "all-of-it", 41, "")
    job_id = submit(stack, receiver, "but-one", 41, "fail:1")
    # A reader that is there from the beginning, and waits at the chunk that never comes.
    live = list(stack.client.entries(job_id))
    shown = stack.client.status(job_id)
    assert (shown["status"], shown["code"]) == ("FAILED", "chunk_failed")
    missing = stack.store.chunk(job_id, 1)
    assert missing
    everything = segments_of(eventually(lambda: stack.ended(whole), LONG_S))
    expected = [
        segment
        for segment in everything
        if not missing.start_ms <= round(1000 * segment["start"]) < missing.end_ms
    ]
    assert 0 < len(expected) < len(everything)
    assert expected[-1] == everything[-1]
    assert segments_of({"output": [live]}) == expected
    # And again, from the start.
    assert list(stack.client.entries(job_id)) == live


def segments_of(shown: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        segment
        for item in shown["output"]
        for entry in item
        if entry["type"] == "segments"
        for segment in entry["data"]
    ]


def test_the_ivrit_client_may_ask_for_it(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    # Its keyword arguments come among these.
    arguments = {"initial_prompt": "fail:0", "allow_gaps": True}
    job_id = submit(stack, receiver, "kwargs", 21, "", transcribe_args=arguments)
    shown = eventually(lambda: stack.ended(job_id), LONG_S)
    assert [gap["start"] for gap in shown["gaps"]] == [0]


def test_a_job_of_nothing_but_gaps_has_failed(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    job_id = submit(stack, receiver, "nothing", 9, "fail:0", allow_gaps=True)
    shown = eventually(lambda: stack.ended(job_id), LONG_S)
    assert (shown["status"], shown["code"]) == ("FAILED", "chunk_failed")
    assert "gaps" not in shown


def test_the_gaps_of_a_batch_say_of_which_recording(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    first = stack.input(receiver, "short", 9)["url"]
    fields = stack.input(receiver, "long", 21, "fail:1", allow_gaps=True)
    job_id = stack.client.submit({**fields, "url": [first, fields["url"]]})
    shown = eventually(lambda: stack.ended(job_id), LONG_S)
    assert shown["status"] == "COMPLETED"
    assert [(gap["index"], gap["code"]) for gap in shown["gaps"]] == [(1, "engine_failed")]
    eventually(lambda: "completed" in receiver.statuses("long"), LONG_S)
    sources = receiver.bodies("long")[-1]["sources"]
    assert ["gaps" in source for source in sources] == [False, True]
