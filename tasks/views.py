"""Jobs as RunPod's clients see them: the status object, and the items of a stream in the typed dialect."""

import json
from collections.abc import Iterator
from dataclasses import replace

from tasks.job import Job, Request, Status
from tasks.store import Event, Store
from tasks.transcript import segment_to_wire, segments_of

# Our status -> the platform's. RUNNING must never be shown, ivrit cancels on it.
PLATFORM_STATUS = {
    Status.QUEUED: "IN_QUEUE",
    Status.RUNNING: "IN_PROGRESS",
    Status.SUCCEEDED: "COMPLETED",
    Status.FAILED: "FAILED",
    Status.CANCELED: "CANCELLED",
    Status.EXPIRED: "TIMED_OUT",
}
# The stream shows every end as COMPLETED: runpod's client reads on for ever after CANCELLED.
STREAM_OPEN, STREAM_OVER = "IN_PROGRESS", "COMPLETED"
# Of one stream element, and of one answer of /stream, UTF-8 bytes at most.
MAX_ELEMENT = 512 * 1024
MAX_PAGE = 8 * 1024 * 1024

Item = list[dict[str, object]] | dict[str, object]


def status_object(job: Job, store: Store, now_ms: int, *, with_output: bool = True) -> dict[str, object]:
    """The body of /status; `output` only where there is one, `error` always a string."""
    shown: dict[str, object] = {"id": job.id, "status": platform_status(job, now_ms, store.queue_visible_ms)}
    if shown["status"] == PLATFORM_STATUS[Status.QUEUED]:
        return shown
    started_ms = job.started_ms or job.finished_ms or now_ms
    shown["delayTime"] = started_ms - job.created_ms
    if job.terminal:
        shown["executionTime"] = (job.finished_ms or now_ms) - started_ms
        shown["workerId"] = next(iter(store.workers(job.id)), "")
    if job.warnings:
        shown["warnings"] = list(job.warnings)
    if job.status is Status.SUCCEEDED:
        if with_output:
            shown["output"] = output(job, store)
        shown["duration"] = (job.duration_ms or 0) / 1000
        shown |= job.meta
    elif job.status is Status.FAILED:
        shown["error"] = job.error
        shown["code"] = job.code
    elif job.status is Status.RUNNING:
        shown["output"] = [decode_progress(store.transcribed_ms(job), _length_ms(job, store))]
    return shown


def status_pieces(job: Job, store: Store, now_ms: int) -> Iterator[str]:
    """status_object() as JSON, item by item of its output, for one after the other to be sent."""
    shown = status_object(job, store, now_ms, with_output=False)
    if job.status is not Status.SUCCEEDED:
        yield json.dumps(shown, ensure_ascii=False)
        return
    yield json.dumps(shown, ensure_ascii=False).removesuffix("}") + ', "output": ['
    for number, item in enumerate(_output_items(job, store)):
        yield (", " if number else "") + json.dumps(item, ensure_ascii=False)
    yield "]}"


def _length_ms(job: Job, store: Store) -> int | None:
    """Of the recording, or of all of a batch; None until it is known."""
    lengths = [part.duration_ms for part in store.parts(job)] if job.parts else [job.duration_ms]
    return None if None in lengths else sum(length or 0 for length in lengths)


def platform_status(job: Job, now_ms: int, queue_visible_ms: int) -> str:
    if job.status is Status.QUEUED and now_ms - job.created_ms > queue_visible_ms:
        return PLATFORM_STATUS[Status.RUNNING]
    return PLATFORM_STATUS[job.status]


def output(job: Job, store: Store) -> list[object]:
    """The concatenation of the stream."""
    return list(_output_items(job, store))


def _output_items(job: Job, store: Store) -> Iterator[Item]:
    return (item for _, items in stream_items(job, store, "0", None) for item in items)


def stream_items(
    job: Job, store: Store, after: str, max_bytes: int | None = MAX_PAGE
) -> Iterator[tuple[str, list[Item]]]:
    """Items of the job's events after the one of id `after`, event by event, up to about `max_bytes`."""
    size = 0
    while events := store.events(job.id, after):
        for event in events:
            items = items_of(job, store, event)
            yield event.id, items
            size += sum(map(size_of, items))
            if max_bytes is not None and size >= max_bytes:
                return
            after = event.id


def items_of(job: Job, store: Store, event: Event) -> list[Item]:
    """One chunk's segments in the job's dialect, split so that no item is too large.

    For `streaming: false` there is one item with everything, at the end of a job that succeeded. What
    concerns one recording of a batch bears its `index`, from 0.
    """
    if event.index < 0 and event.part is None and not job.terminal:
        # It has ended since it was read.
        job = store.job(job.id) or job
    request = job.request
    if request is None or not request.streaming:
        if event.index >= 0 or event.part is not None or job.status is not Status.SUCCEEDED:
            return []
        return [{"result": [_whole(part, store) for part in (store.parts(job) if job.parts else [job])]}]
    if event.part is not None:
        part = store.job(job.part_ids[event.part])
        return _items_of_part(part, store, event) if part else []
    if event.index < 0:
        return [_poison(job, request)] if request.poison and job.status is not Status.SUCCEEDED else []
    groups = list(_groups(_segments(job, store, event.index)))
    if request.dialect == "v1":
        return [group for group in groups if group]
    chunk = store.chunk(job.id, event.index)
    progress = decode_progress(chunk.end_ms if chunk else 0, event.total_ms)
    items: list[list[dict[str, object]]] = [[{"type": "segments", "data": group}] for group in groups]
    items[-1].append(progress)
    return list(items)


def _items_of_part(part: Job, store: Store, event: Event) -> list[Item]:
    """Those of one recording of a batch; its end is told only if it failed."""
    if event.index < 0:
        if part.status is Status.SUCCEEDED:
            return []
        return [[{"type": "error", "data": part.error, "index": part.part}]]
    items = items_of(part, store, replace(event, part=None))
    return [[{**entry, "index": part.part} for entry in item] for item in items if isinstance(item, list)]


def _whole(job: Job, store: Store) -> object:
    """All segments of one recording, or the error that a recording of a batch ended with."""
    if job.status is not Status.SUCCEEDED:
        return {"error": job.error, "code": job.code}
    return [segment for index in range(job.total or 0) for segment in _segments(job, store, index)]


def _groups(segments: list[dict[str, object]]) -> Iterator[list[dict[str, object]]]:
    """Segments in groups below the size of an element; at least one group."""
    group: list[dict[str, object]] = []
    room = MAX_ELEMENT
    for segment in segments:
        size = size_of(segment)
        if size > room and group:
            yield group
            group, room = [], MAX_ELEMENT
        group.append(segment)
        room -= size
    yield group


def _poison(job: Job, request: Request) -> Item:
    """An item that makes ivrit's client raise an error with these words; contracts/runpod.md, section 2.3."""
    words = job.error or f"job {PLATFORM_STATUS[job.status]}"
    if request.dialect == "v1":
        return [{f"transcription failed: {words}": None}]
    return [{"type": "error", "data": words}, {"type": "segments", "data": [{words: None}]}]


def decode_progress(done_ms: int, total_ms: int | None) -> dict[str, object]:
    """A progress entry as ivrit's `on_progress` gets it; the fraction is 0 while the length is unknown."""
    extra = {"processed_seconds": done_ms / 1000, "total_seconds": total_ms / 1000 if total_ms else None}
    data = {
        "phase": "transcription",
        "step": "decode",
        "step_fraction": min(1.0, done_ms / total_ms) if total_ms else 0.0,
        "description": "transcribing",
        "extra": extra,
    }
    return {"type": "progress", "data": data}


def _segments(job: Job, store: Store, index: int) -> list[dict[str, object]]:
    result = store.result(job.id, index)
    if result is None or job.request is None:
        return []
    words = job.request.options.word_timestamps
    return [
        segment_to_wire(segment, extra_data=job.request.extra_data, words=words)
        for segment in segments_of(result)
    ]


def size_of(value: object) -> int:
    """UTF-8 bytes of a value as JSON, nearly."""
    # Near enough, and needs no second encoding of the whole: half of what the platform allows is the limit.
    return len(repr(value).encode())
