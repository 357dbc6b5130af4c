"""How much of the time the model is at work, with the next chunk prepared meanwhile and without, in turn.

No GPU is here. So two engines find speech in earnest and then wait for as long as a GPU would take; the third
is the real one on a CPU. The recording is cut before the clock starts, and one process transcribes.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from benchmarks.encoding import repeat
from benchmarks.recording import SAMPLE, serving
from benchmarks.stacks import stack, until_succeeded
from dispatcher.local import Plan
from tasks.audio import SAMPLE_RATE
from tasks.engine import ChunkWork, FasterWhisperEngine, OnWindow
from tasks.settings import Settings
from tasks.transcript import ChunkResult
from tasks.windows import Audio
from tests.conftest import Stack
from tests.fleet import worker_process

ROUNDS = 2
CHUNK_S = 60
# Seconds of audio in a second: a large model, and a small one, in batches on a GPU.
RTFX = {"SlowGpu": 100, "FastGpu": 300}
# The sample, so many times over; above 16 chunks, cutting would wait for somebody to transcribe.
REPEATS = {"SlowGpu": 2, "FastGpu": 2, "Cpu": 1}
WAIT_S = 600


class Cpu(FasterWhisperEngine):
    """The real engine; notes when it had its model at work."""

    def transcribe(self, audio: Audio, work: ChunkWork, on_window: OnWindow) -> ChunkResult:
        """Transcribe one chunk (see Engine)."""
        work = work if work.speech is not None else self.prepare(audio, work)
        began_s = time.monotonic()
        result = self.decode(audio, work, on_window)
        with notes(self._settings).open("a") as file:
            file.write(json.dumps([began_s, time.monotonic()]) + "\n")
        return result

    def decode(self, audio: Audio, work: ChunkWork, on_window: OnWindow) -> ChunkResult:
        """What is counted."""
        return super().transcribe(audio, work, on_window)


class SlowGpu(Cpu):
    """Waits for as long as a GPU would compute; its results are empty."""

    def preload(self, model: str) -> None:
        """There is none."""

    def decode(self, audio: Audio, work: ChunkWork, on_window: OnWindow) -> ChunkResult:
        """Wait."""
        on_window(0, 1, 1)
        time.sleep(len(audio) / SAMPLE_RATE / RTFX[type(self).__name__])
        on_window(1, 1, 0)
        return ChunkResult(work.index, (), "en")


class FastGpu(SlowGpu):
    """The same, faster."""


def notes(settings: Settings) -> Path:
    """When the model was at work: a line a chunk, its beginning and its end."""
    return settings.data_path / "busy.jsonl"


def measure() -> dict[str, dict[str, float]]:
    """Medians over rounds that alternate their order, for each engine."""
    return {engine: _compare(engine) for engine in REPEATS}


def _compare(engine: str) -> dict[str, float]:
    busy: dict[str, list[float]] = {"on": [], "off": []}
    wall: dict[str, list[float]] = {"on": [], "off": []}
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "talk.opus"
        repeat(SAMPLE, recording, REPEATS[engine])
        for number in range(ROUNDS):
            order: tuple[Literal["on", "off"], ...] = ("on", "off") if number % 2 else ("off", "on")
            for prefetch in order:
                with _cut(recording, engine, prefetch) as (started, job_id):
                    share, wall_s = _transcribed(started, job_id)
                busy[prefetch].append(share)
                wall[prefetch].append(wall_s)
    return {
        f"{what}, prefetch {prefetch}": round(statistics.median(figures[prefetch]), 3)
        for what, figures in (("model's busy share", busy), ("chunks, s", wall))
        for prefetch in ("off", "on")
    }


@contextmanager
def _cut(recording: Path, engine: str, prefetch: Literal["on", "off"]) -> Iterator[tuple[Stack, str]]:
    """A job all of whose chunks wait for a worker."""
    changes = {"engine": f"benchmarks.busy:{engine}", "model": "tiny.en", "first_chunks_ms": ()}
    plan = Plan(port=0, roles=("api", "io", "deliver"))
    with stack(plan, prefetch=prefetch, **changes) as started, serving(recording) as url:
        job_id = started.client.submit({"url": url, "chunk_seconds": CHUNK_S})
        _until(lambda: (job := started.store.job(job_id)) is not None and job.total is not None)
        yield started, job_id


def _transcribed(started: Stack, job_id: str) -> tuple[float, float]:
    """The model's busy share between its first chunk and its last, and how long that took, s."""
    settings = started.machine.settings
    with worker_process(settings, settings.data_path / "worker.log") as worker:
        until_succeeded(started.store, job_id, WAIT_S)
        worker.terminate()
        worker.wait()
    spans = [json.loads(line) for line in notes(settings).read_text().splitlines()]
    wall_s = spans[-1][1] - spans[0][0]
    return sum(end - start for start, end in spans) / wall_s, wall_s


def _until(happened: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not happened():
        if time.monotonic() > deadline_s:
            raise RuntimeError("it took too long")
        time.sleep(0.1)
