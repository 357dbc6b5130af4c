"""One recording through the queue against the same chunks transcribed in one process, with the same engine.

Both have one transcribing process with one thread, and its model loaded before the clock starts.
"""

import statistics
import time

from benchmarks.recording import SAMPLE, serving
from benchmarks.stacks import stack
from dispatcher.client import Client
from dispatcher.local import Plan
from tasks.audio import load
from tasks.chunks import Chunk
from tasks.cutting import cut
from tasks.engine import ChunkWork, Engine, load_engine
from tasks.job import Options
from tasks.settings import Settings

ROUNDS = 3


def measure() -> dict[str, float]:
    """Medians over rounds that alternate their order."""
    with serving(SAMPLE) as url, stack(Plan(port=0, workers=1)) as started:
        settings = started.machine.settings
        engine = load_engine(settings)
        engine.preload(settings.model)
        direct, queued, first = [], [], []
        for number in range(ROUNDS):
            if number % 2:
                direct.append(_direct_s(settings, engine))
            wall_s, first_s = _queued_s(started.client, url)
            queued.append(wall_s)
            first.append(first_s)
            if not number % 2:
                direct.append(_direct_s(settings, engine))
    one_process_s, longhand_s = statistics.median(direct), statistics.median(queued)
    return {
        "one process, s": round(one_process_s, 2),
        "Longhand with one worker, s": round(longhand_s, 2),
        "ratio": round(longhand_s / one_process_s, 3),
        "first segment, s": round(statistics.median(first), 2),
    }


def _direct_s(settings: Settings, engine: Engine) -> float:
    """Decode, cut and transcribe the sample here; the chunks pass through blobs as Longhand's do."""
    started_s = time.perf_counter()
    cutting = cut(
        SAMPLE,
        target_ms=settings.chunk_ms,
        first_ms=settings.first_chunks_ms,
        search_ms=settings.cut_search_ms,
    )
    for index, cut_off in enumerate(cutting):
        span = cut_off.span
        chunk = Chunk(index, span.start_ms, span.end_ms, cut_off.digest, "", cut_off.origin_ms)
        work = ChunkWork(index, span.start_ms, settings.model, Options(language="en"))
        engine.transcribe(load(cut_off.data, chunk).samples, work, lambda *_: None)
    return time.perf_counter() - started_s


def _queued_s(client: Client, url: str) -> tuple[float, float]:
    """From submission to the end of the job, and to its first segment."""
    started_s = time.perf_counter()
    job_id = client.submit({"url": url})
    first_s = 0.0
    for entry in client.entries(job_id):
        if entry["type"] == "segments" and not first_s:
            first_s = time.perf_counter() - started_s
    wall_s = time.perf_counter() - started_s
    if client.status(job_id)["status"] != "COMPLETED":
        raise RuntimeError(client.status(job_id))
    return wall_s, first_s
