"""Chunks that are transcribed while their recording still comes in, through the stack."""

import os
import signal
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from dispatcher.client import segments_of
from tasks.leases import LOOK_AHEAD_CHUNKS
from tests.conftest import Eventually, Receiver, Stack, write_recording
from tests.hosts import Host, Request, running

LONG_S = 60
ETAG: dict[str, Any] = {"ETag": '"one"'}


@dataclass
class Source:
    """Serves `body`, of which it sends the first half and waits; `answers` says what comes of that.

    For each request in turn: 'goes on' or 'breaks off' once `go` is set, 'breaks' at once, 'whole': all of
    it, at once, 'later': all of it once `end` is set; and so for all after the last. What is asked for by
    range comes at once, if there are `ranges`, out of `other` if that is another file.
    """

    body: bytes
    answers: list[str] = field(default_factory=lambda: ["goes on"])
    ranges: bool = False
    other: bytes = b""
    asked: int = 0
    go: threading.Event = field(default_factory=threading.Event)
    # Its last bytes come once this is set, too.
    end_bytes: int = 0
    end: threading.Event = field(default_factory=threading.Event)

    def __call__(self, request: Request) -> None:
        if self.ranges and "Range" in request.headers:
            request.file(self.other or self.body, **ETAG)
            return
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if answer == "later":
            self.end.wait(LONG_S)
        half = len(self.body) if answer in ("whole", "later") else len(self.body) // 2
        headers = ETAG if self.ranges else {}
        request.answer(200, self.body[:half], Content_Length=len(self.body), **headers)
        if answer in ("goes on", "breaks off"):
            self.go.wait(LONG_S)
        if answer == "goes on":
            with suppress(OSError):
                last = len(self.body) - self.end_bytes
                request.connection.sendall(self.body[half:last])
                if self.end_bytes:
                    self.end.wait(LONG_S)
                request.connection.sendall(self.body[last:])


@contextmanager
def serving(source: Source) -> Iterator[Host]:
    with running("127.0.0.1", at_once=True) as host:
        host.scripts = [source]
        try:
            yield host
        finally:
            source.go.set()
            source.end.set()


def recording(folder: Path, seconds: int, kind: str) -> bytes:
    """Bursts of noise, as write_recording() has them, in a format; its index last, if it has one."""
    write_recording(folder / "made.wav", seconds)
    if kind == "wav":
        return (folder / "made.wav").read_bytes()
    codec = {"mp3": "libmp3lame", "m4a": "aac", "opus": "libopus"}[kind]
    path = folder / f"made.{kind}"
    with wave.open(str(folder / "made.wav")) as file, av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=48_000 if kind == "opus" else 16_000, layout="mono")
        assert isinstance(stream, AudioStream)
        samples = np.frombuffer(file.readframes(seconds * 16_000), np.int16)
        frame = AudioFrame.from_ndarray(samples[None], "s16", "mono")
        frame.rate = 16_000
        for part in av.AudioResampler("s16", "mono", stream.rate, frame_size=stream.rate).resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path.read_bytes()


def submit(stack: Stack, host: Host, prompt: str = "", **fields: Any) -> str:
    arguments = {"initial_prompt": prompt} if prompt else {}
    return stack.client.submit({"url": host.url, "chunk_seconds": 10, "transcribe_args": arguments, **fields})


def completed(stack: Stack, eventually: Eventually, job_id: str) -> Any:
    """The segments of a job, which must end well."""
    shown = eventually(lambda: stack.ended(job_id), LONG_S, f"the end of {job_id}")
    assert shown["status"] == "COMPLETED", shown
    return segments_of(shown["output"])


def blobs(stack: Stack, job_id: str) -> list[str]:
    return sorted(path.name for path in (stack.folder / "blobs" / job_id).glob("*"))


@pytest.mark.parametrize(("kind", "ranges"), [("wav", False), ("mp3", False), ("opus", False), ("m4a", True)])
def test_a_client_has_text_before_the_file_has_come(
    stack: Stack, tmp_path: Path, eventually: Eventually, kind: str, *, ranges: bool
) -> None:
    source = Source(recording(tmp_path, 61, kind), ranges=ranges)
    with serving(source) as host:
        job_id = submit(stack, host)
        first = eventually(
            lambda: stack.client._call("GET", f"stream/{job_id}?cursor=0")["stream"], LONG_S, "first text"
        )
        assert not source.go.is_set()
        assert first
        assert stack.store.job(job_id).total is None  # type: ignore[union-attr]
        source.go.set()
        segments = completed(stack, eventually, job_id)
    whole = Source(source.body, ["whole"])
    with serving(whole) as host:
        assert completed(stack, eventually, submit(stack, host)) == segments, "as if it had come at once"


def ingested(stack: Stack, job_id: str) -> int:
    """How often the ingest of a job was started."""
    return int(stack.redis.hget(f"lh:job:{job_id}:leases", "ingest"))  # type: ignore[arg-type]


def test_chunks_of_a_download_that_failed_are_kept(
    stack: Stack, tmp_path: Path, eventually: Eventually
) -> None:
    """Without ranges it is asked for twice by each attempt."""
    source = Source(recording(tmp_path, 61, "mp3"), ["breaks", "breaks", "goes on"])
    with serving(source) as host:
        job_id = submit(stack, host)
        eventually(lambda: stack.store.result(job_id, 0), LONG_S, "the first chunk")
        eventually(lambda: source.asked == 3, LONG_S, "another attempt")
        planned = stack.store.chunks(job_id)
        assert planned
        source.go.set()
        completed(stack, eventually, job_id)
    assert stack.store.chunks(job_id)[: len(planned)] == planned
    assert ingested(stack, job_id) == 2
    assert stack.redis.hget(f"lh:job:{job_id}:leases", "0") == b"1", "nothing is transcribed again"
    eventually(lambda: not blobs(stack, job_id), what="the end of both attempts' audio")


def test_chunks_of_an_ingest_that_was_killed_are_kept(
    stack: Stack, tmp_path: Path, eventually: Eventually
) -> None:
    source = Source(recording(tmp_path, 61, "mp3"), ["goes on", "whole"])
    with serving(source) as host:
        job_id = submit(stack, host)
        eventually(lambda: stack.store.result(job_id, 0), LONG_S, "the first chunk")
        planned = stack.store.chunks(job_id)
        owner: Any = stack.redis.hget(f"lh:job:{job_id}:leases", "ingest:owner")
        os.kill(int(owner.decode().partition("/")[0].rpartition("-")[2]), signal.SIGKILL)
        completed(stack, eventually, job_id)
        assert not source.go.is_set()
    assert stack.store.chunks(job_id)[: len(planned)] == planned
    assert ingested(stack, job_id) == 2
    eventually(lambda: not blobs(stack, job_id), what="the end of both attempts' audio")
    eventually(lambda: not any((stack.folder / "tmp").glob(f"{job_id}-*")), what="the end of its download")


def test_another_file_in_the_second_attempt_is_told(
    stack: Stack, tmp_path: Path, eventually: Eventually
) -> None:
    source = Source(recording(tmp_path, 61, "wav"), ["breaks off", "breaks", "later"])
    with serving(source) as host:
        job_id = submit(stack, host)
        eventually(lambda: stack.store.chunks(job_id), LONG_S, "the first chunk")
        source.go.set()
        eventually(lambda: source.asked == 3, LONG_S, "the second attempt")
        source.body = recording(tmp_path, 67, "wav")
        source.end.set()
        shown = eventually(lambda: stack.ended(job_id), LONG_S, "its end")
    assert (shown["status"], shown["code"]) == ("FAILED", "source_changed")


def test_an_end_of_another_file_fails_the_job_in_the_end(
    stack: Stack, tmp_path: Path, eventually: Eventually
) -> None:
    """Its index is the right one, but not to the byte; both say that they are of the same version."""
    body = recording(tmp_path, 61, "m4a")
    index = body.index(b"moov")
    other = body[:index] + body[index:].replace(b"Lavf", b"Love")
    assert other != body
    source = Source(body, ranges=True, other=other, end_bytes=len(body) - index)
    with serving(source) as host:
        job_id = submit(stack, host)
        eventually(lambda: stack.store.result(job_id, 0), LONG_S, "the first chunk")
        source.go.set()
        eventually(lambda: stack.store.result(job_id, 5), LONG_S, "the last chunk")
        source.end.set()
        shown = eventually(lambda: stack.ended(job_id), LONG_S, "its end")
    assert (shown["status"], shown["code"]) == ("FAILED", "source_changed")


def test_a_job_that_is_canceled_closes_its_connection(
    stack: Stack, tmp_path: Path, eventually: Eventually
) -> None:
    source = Source(recording(tmp_path, 61, "wav"))
    closed = threading.Event()

    def script(request: Request) -> None:
        request.answer(200, source.body[: len(source.body) // 2], Content_Length=len(source.body))
        request.connection.settimeout(LONG_S)
        with suppress(ConnectionResetError):
            assert request.connection.recv(1) == b""
        closed.set()

    with running("127.0.0.1") as host:
        host.scripts = [script]
        job_id = submit(stack, host)
        eventually(lambda: stack.store.chunks(job_id), LONG_S, "the first chunk")
        owner: Any = stack.redis.hget(f"lh:job:{job_id}:leases", "ingest:owner")
        stack.client.cancel(job_id)
        assert closed.wait(LONG_S)
        pid = int(owner.decode().partition("/")[0].rpartition("-")[2])
        assert Path(f"/proc/{pid}").exists(), "it stops by itself"


@contextmanager
def idle(stack: Stack) -> Iterator[None]:
    """Nobody transcribes meanwhile."""
    with ExitStack() as stopped:
        for name in stack.machine.pids():
            if name.startswith("transcribe"):
                stopped.enter_context(stack.stopped(name))
        yield


def test_cutting_waits_for_the_workers(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    """For longer than what counts as a stall, and no longer than it has to."""
    with idle(stack):
        job_id = stack.client.submit(stack.input(receiver, "ahead", 301))
        eventually(lambda: len(stack.store.chunks(job_id)) == LOOK_AHEAD_CHUNKS + 1, LONG_S, "the first ones")
        time.sleep(1.5 * stack.machine.settings.stall_ms / 1000)
        assert len(stack.store.chunks(job_id)) == LOOK_AHEAD_CHUNKS + 1
        assert len(blobs(stack, job_id)) == LOOK_AHEAD_CHUNKS + 1
    completed(stack, eventually, job_id)
    assert len(stack.store.chunks(job_id)) == 30
    assert ingested(stack, job_id) == 1


def test_cutting_that_waits_ends_with_its_job(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    with idle(stack):
        job_id = stack.client.submit(stack.input(receiver, "canceled-ahead", 301))
        eventually(lambda: len(stack.store.chunks(job_id)) == LOOK_AHEAD_CHUNKS + 1, LONG_S, "the first ones")
        stack.client.cancel(job_id)
        eventually(
            lambda: not list((stack.folder / "tmp").glob(f"{job_id}-*")), LONG_S, "the end of its ingest"
        )
    assert len(stack.store.chunks(job_id)) == LOOK_AHEAD_CHUNKS + 1
    other = stack.client.submit(stack.input(receiver, "after-ahead", 11))
    completed(stack, eventually, other)
