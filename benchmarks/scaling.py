"""Chunks a second with 1, 2 and 4 workers, beside as many bare processes that decode the same chunks."""

import multiprocessing
import tempfile
import time
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from benchmarks.encoding import repeat
from benchmarks.recording import SAMPLE, samples_of, serving
from benchmarks.serial import ingested
from benchmarks.stacks import stack, transcribed
from dispatcher.local import Plan
from tasks.engine import ChunkWork, load_engine
from tasks.job import Options
from tasks.model_names import model_of
from tasks.settings import Settings

WORKERS = (1, 2, 4)
CHUNK_S = 30
READY_S = 60.0
PATIENCE_S = 900.0


def measure(times: int = 3, workers: tuple[int, ...] = WORKERS) -> dict[str, object]:
    """The bundled recording several times over, in chunks that are short and alike."""
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / SAMPLE.name
        repeat(SAMPLE, path, times)
        settings = Settings(data_dir=Path(folder), chunk_ms=1000 * CHUNK_S, first_chunks_ms=())
        chunks = len(ingested(path, settings))
        blobs = sorted((Path(folder) / "blobs" / path.stem).iterdir())
        for count in workers:
            bare_s = _bare_s(settings, blobs, count)
            with serving(path) as url, stack(Plan(port=0, workers=count), first_chunks_ms=()) as started:
                longhand_s = transcribed(started, url, chunk_seconds=CHUNK_S)[1]
            found[f"workers: {count}"] = {
                "Longhand, chunks/s": round(chunks / longhand_s, 3),
                "bare processes, chunks/s": round(chunks / bare_s, 3),
                "Longhand to bare": round(bare_s / longhand_s, 3),
            }
    return {"chunks": chunks, **found}


def _bare_s(settings: Settings, blobs: list[Path], count: int) -> float:
    """Until the last of the chunks is transcribed, by processes that only share a list of them."""
    spawn = multiprocessing.get_context("spawn")
    left: SimpleQueue[Path | None] = spawn.SimpleQueue()
    together = spawn.Barrier(count + 1)
    processes = [spawn.Process(target=_bare, args=(settings, left, together)) for _ in range(count)]
    for process in processes:
        process.start()
    together.wait(READY_S)
    began_s = time.perf_counter()
    for blob in [*blobs, *([None] * count)]:
        left.put(blob)
    together.wait(PATIENCE_S)
    took_s = time.perf_counter() - began_s
    for process in processes:
        process.join()
    return took_s


def _bare(settings: Settings, left: "SimpleQueue[Path | None]", together: Barrier) -> None:
    model = model_of("", settings)
    engine = load_engine(settings)
    engine.preload(model)
    together.wait(READY_S)
    while blob := left.get():
        work = ChunkWork(0, 0, model, Options(language="en"))
        engine.transcribe(samples_of(blob), work, lambda *_: None)
    together.wait(PATIENCE_S)
