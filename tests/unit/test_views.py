"""Jobs as clients see them, made from jobs in a real Redis."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from dispatcher.app import create_app
from dispatcher.client import segments_of
from tasks import endings, leases
from tasks.chunks import Chunk
from tasks.endpoints import Dialect
from tasks.errors import NotMedia
from tasks.job import Job, NewJob, Options, Request
from tasks.leases import Lease, Leases
from tasks.settings import Settings
from tasks.store import Store
from tasks.transcript import ChunkResult, Segment, Transcript, Word, result_to_bytes
from tasks.views import (
    MAX_ELEMENT,
    decode_progress,
    output,
    status_object,
    status_pieces,
    stream_items,
)

CHUNK_MS = 10_000
WORDS = "a web page"
URL = "https://example.com/a.mp3"


def result(index: int, texts: list[str]) -> ChunkResult:
    start_ms = index * CHUNK_MS
    segments = tuple(
        Segment(
            text, start_ms + n, start_ms + n + 1, (Word(f" {text}", start_ms + n, start_ms + n + 1, 0.5),)
        )
        for n, text in enumerate(texts)
    )
    return ChunkResult(index, segments, "he", CHUNK_MS)


@dataclass(slots=True)
class Desk:
    """Moves jobs through their states by the scripts that the workers use."""

    store: Store
    leases: Leases
    ids: int = 0

    def queued(self, request: Request | None = None) -> Job:
        self.ids += 1
        request = request or Request(URL, "multi")
        job_id = f"view-{self.ids}-u1"
        assert self.store.create(NewJob(job_id, "longhand", "tests", request, 3_600_000, 0))
        return self.again(job_id)

    def running(self, results: list[list[str]], request: Request | None = None, planned: int = 0) -> Job:
        """A job whose first chunks are done; sealed unless more are `planned`."""
        job_id = self.queued(request).id
        ingest = self._claim(job_id, leases.INGEST, leases.INGEST)
        total = max(planned, len(results))
        for index in range(total):
            span = index * CHUNK_MS, (index + 1) * CHUNK_MS
            self.leases.add_chunk(ingest, Chunk(index, *span, f"digest-{index}", f"blob-{index}"))
        if total == len(results):
            self.leases.seal(ingest, total, total * CHUNK_MS, "[]")
        for index, texts in enumerate(results):
            lease = self._claim(job_id, leases.TRANSCRIBE, str(index))
            self.leases.commit(lease, result_to_bytes(result(index, texts)), "he", CHUNK_MS, lambda *_: "{}")
        return self.again(job_id)

    def succeeded(self, results: list[list[str]], request: Request | None = None) -> Job:
        job = self.running(results, request)
        assert job.request
        transcript = Transcript((), job.duration_ms or 0)
        ending = endings.succeeded(job, job.request, transcript, "multi", self.store.now_ms())
        assert self.store.finish(job.id, ending)[0]
        return self.again(job.id)

    def again(self, job_id: str) -> Job:
        job = self.store.job(job_id)
        assert job
        return job

    def shown(self, job: Job) -> dict[str, Any]:
        """The status object as its reader gets it."""
        now_ms = self.store.now_ms()
        shown = status_object(job, self.store, now_ms)
        again: dict[str, Any] = json.loads(json.dumps(shown))
        assert json.loads("".join(status_pieces(job, self.store, now_ms))) == again
        return again

    def _claim(self, job_id: str, stage: str, unit: str) -> Lease:
        lease = self.leases.claim(job_id, stage, unit)
        assert isinstance(lease, Lease), lease
        return lease


@pytest.fixture
def desk(redis: Redis, settings: Settings) -> Desk:
    return Desk(Store(redis, settings), Leases(redis, settings, "worker-7"))


def entries(items: list[object], kind: str) -> list[dict[str, Any]]:
    return [entry for item in items if isinstance(item, list) for entry in item if entry["type"] == kind]


def texts(items: list[object]) -> list[str]:
    return [segment["text"] for entry in entries(items, "segments") for segment in entry["data"]]


def test_a_queued_job(desk: Desk) -> None:
    job = desk.queued()
    assert desk.shown(job) == {"id": job.id, "status": "IN_QUEUE"}


def test_a_job_that_waits_long_is_shown_in_progress(desk: Desk, redis: Redis) -> None:
    job = desk.queued()
    redis.hset(f"lh:job:{job.id}", "created_ms", job.created_ms - desk.store.queue_visible_ms - 1)
    assert desk.shown(desk.again(job.id))["status"] == "IN_PROGRESS"


def test_a_running_job(desk: Desk) -> None:
    job = desk.running([["a"]], planned=4)
    shown = desk.shown(job)
    assert set(shown) == {"id", "status", "delayTime", "output"}
    assert shown["status"] == "IN_PROGRESS"
    assert 0 <= shown["delayTime"] < 10_000
    # The length is unknown until the plan is sealed.
    assert shown["output"] == [decode_progress(CHUNK_MS, None)]


def test_a_completed_job(desk: Desk) -> None:
    job = desk.succeeded([["שלום"], ["עולם"]])
    shown = desk.shown(job)
    ours = {"duration", "language", "model", "engine"}
    assert set(shown) - ours == {"id", "status", "delayTime", "executionTime", "workerId", "output"}
    assert shown["status"] == "COMPLETED"
    assert shown["workerId"] == "worker-7"
    assert 0 <= shown["executionTime"] < 10_000
    assert texts(shown["output"]) == ["שלום", "עולם"]
    fractions = [entry["data"]["step_fraction"] for entry in entries(shown["output"], "progress")]
    assert fractions == [0.5, 1.0]


def test_a_failed_job_before_and_after_its_start(desk: Desk) -> None:
    for job in (desk.queued(), desk.running([["a"]], planned=2)):
        ending = endings.failed(job.id, job.recording_id, desk.store.now_ms(), NotMedia("a web page"))
        desk.store.finish(job.id, ending)
        shown = desk.shown(desk.again(job.id))
        assert set(shown) == {"id", "status", "delayTime", "executionTime", "workerId", "error", "code"}
        assert (shown["status"], shown["error"], shown["code"]) == ("FAILED", "a web page", "not_media")
        assert shown["delayTime"] >= 0
        assert shown["executionTime"] >= 0


def test_canceled_and_expired_jobs(desk: Desk) -> None:
    job = desk.queued()
    desk.store.finish(job.id, endings.canceled(job, desk.store.now_ms()))
    assert desk.shown(desk.again(job.id))["status"] == "CANCELLED"
    job = desk.running([["a"]], planned=2)
    desk.store.finish(job.id, endings.expired(job, desk.store.now_ms()))
    shown = desk.shown(desk.again(job.id))
    assert shown["status"] == "TIMED_OUT"
    assert "output" not in shown


def test_segments_have_the_keys_that_ivrits_clients_accept(desk: Desk) -> None:
    shown = desk.shown(desk.succeeded([["a"]]))
    (segment,) = entries(shown["output"], "segments")[0]["data"]
    assert segment == {
        "text": "a",
        "start": 0.0,
        "end": 0.001,
        "speakers": [],
        "words": [{"word": " a", "start": 0.0, "end": 0.001, "probability": 0.5, "speaker": None}],
        "extra_data": {"language": "he"},
    }


def test_words_and_extra_data_can_be_left_out(desk: Desk) -> None:
    request = Request(URL, "multi", Options(word_timestamps=False), extra_data=False)
    shown = desk.shown(desk.succeeded([["a"]], request))
    (segment,) = entries(shown["output"], "segments")[0]["data"]
    assert (segment["words"], segment["extra_data"]) == ([], {})


def test_a_chunk_without_speech_still_reports_progress(desk: Desk) -> None:
    items = output(desk.succeeded([[], ["a"]]), desk.store)
    assert entries(items, "segments")[0]["data"] == []
    assert len(entries(items, "progress")) == 2


def test_without_streaming_there_is_one_item_at_the_end(desk: Desk) -> None:
    request = Request(URL, "multi", streaming=False)
    assert output(desk.running([["a"], ["b"]], request), desk.store) == []
    shown = desk.shown(desk.succeeded([["a"], ["b"]], request))
    assert len(shown["output"]) == 1
    assert [segment["text"] for segment in shown["output"][0]["result"][0]] == ["a", "b"]


def test_the_older_dialect_is_lists_of_segments(desk: Desk) -> None:
    request = Request(URL, "multi", dialect="v1")
    items = output(desk.succeeded([["a", "b"], [], ["c"]], request), desk.store)
    assert [[segment["text"] for segment in item] for item in items] == [["a", "b"], ["c"]]  # type: ignore[attr-defined]
    assert [segment["text"] for segment in segments_of(items)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("dialect", "poison", "last"),
    [
        ("v1", True, [{f"transcription failed: {WORDS}": None}]),
        ("v2", True, [{"type": "error", "data": WORDS}, {"type": "segments", "data": [{WORDS: None}]}]),
        ("v2", False, None),
    ],
)
def test_a_failed_stream_may_end_with_what_no_client_can_read(
    desk: Desk, dialect: Dialect, poison: bool, last: object
) -> None:
    job = desk.running([["a"]], Request(URL, "multi", dialect=dialect, poison=poison), planned=2)
    desk.store.finish(job.id, endings.failed(job.id, "", desk.store.now_ms(), NotMedia(WORDS)))
    items = output(desk.again(job.id), desk.store)
    assert items[1:] == ([last] if last else [])


@pytest.mark.parametrize("streaming", [True, False])
def test_a_job_that_ends_while_its_stream_is_read_is_told_as_it_ended(desk: Desk, streaming: bool) -> None:
    request = Request(URL, "multi", dialect="v1", poison=True, streaming=streaming)
    before = desk.running([["a"]], request)
    assert before.request
    ending = endings.succeeded(before, before.request, Transcript((), 1), "multi", desk.store.now_ms())
    desk.store.finish(before.id, ending)
    # As a reader saw it that asked for the job first, and then for its events.
    assert output(before, desk.store) == output(desk.again(before.id), desk.store) != []


def test_a_success_is_not_poisoned(desk: Desk) -> None:
    request = Request(URL, "multi", dialect="v1", poison=True)
    assert len(output(desk.succeeded([["a"]], request), desk.store)) == 1


def test_the_stream_goes_on_after_any_event(desk: Desk) -> None:
    job = desk.succeeded([["a"], ["b"], ["c"]])
    pages = list(stream_items(job, desk.store, "0"))
    assert [texts(list(items)) for _, items in pages] == [["a"], ["b"], ["c"], []]
    for n, (event_id, _) in enumerate(pages):
        assert list(stream_items(job, desk.store, event_id)) == pages[n + 1 :]


def test_a_page_ends_near_its_limit_and_always_has_an_event(desk: Desk) -> None:
    job = desk.succeeded([["a" * 1000], ["b" * 1000], ["c" * 1000]])
    whole = list(stream_items(job, desk.store, "0", None))
    for limit in (1, 2_500, 10**9):
        after, pages = "0", []
        while page := list(stream_items(job, desk.store, after, limit)):
            pages += page
            after = page[-1][0]
        assert pages == whole
    assert len(list(stream_items(job, desk.store, "0", 1))) == 1


@pytest.mark.parametrize("text", ["a" * 100, "ש" * 100, '"' * 100, "\\" * 100, "\x01" * 100])
def test_no_element_passes_the_platforms_limit(desk: Desk, text: str) -> None:
    job = desk.succeeded([[text] * 3_000])
    items = output(job, desk.store)
    sizes = [len(json.dumps(item, ensure_ascii=False).encode()) for item in items]
    assert max(sizes) <= 1_000_000
    assert len(items) > 1
    assert texts(items) == [text] * 3_000
    # One progress entry a chunk, after all of its segments.
    assert len(entries(items, "progress")) == 1
    assert entries([items[-1]], "progress")


def test_a_segment_larger_than_an_element_is_not_lost(desk: Desk) -> None:
    huge = "a" * (MAX_ELEMENT + 1)
    assert texts(output(desk.succeeded([["b", huge, "c"]]), desk.store)) == ["b", huge, "c"]


def test_a_stream_is_over_with_its_last_page_and_not_before(desk: Desk, settings: Settings) -> None:
    job = desk.succeeded([["a" * 1_000_000, "b" * 1_000_000], ["c" * 1_000_000], ["d" * 3_000_000], ["e"]])
    path = f"/v2/longhand/stream/{job.id}"
    pages: list[dict[str, Any]] = []
    headers = {"Authorization": "Bearer a-key"}
    with TestClient(create_app(settings.model_copy(update={"api_keys": {"a-key": "tests"}}))) as client:
        while not pages or pages[-1]["stream"]:
            pages.append(client.get(path, headers=headers).json())
    assert [page["status"] for page in pages] == ["IN_PROGRESS", "COMPLETED", "COMPLETED"]
    assert [item["output"] for page in pages for item in page["stream"]] == output(job, desk.store)


@given(st.integers(0, 10**9), st.none() | st.integers(0, 10**9))
def test_progress_has_what_ivrits_clients_read(done_ms: int, total_ms: int | None) -> None:
    entry: Any = decode_progress(done_ms, total_ms)
    assert entry["type"] == "progress"
    assert set(entry["data"]) == {"phase", "step", "step_fraction", "description", "extra"}
    assert 0.0 <= entry["data"]["step_fraction"] <= 1.0
