"""The serial part of a job: CPU time of ingest, and how late the first chunk is, by format and length."""

import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av

from benchmarks.encoding import repeat, write
from benchmarks.recording import SAMPLE
from benchmarks.sources import Source, sending
from benchmarks.stacks import stack
from benchmarks.talks import lecture
from dispatcher.local import Plan
from tasks.blobs import Blobs
from tasks.cutting import cut
from tasks.memory import tune_children
from tasks.settings import Settings
from tests.conftest import Stack
from tests.corpus.running import peak_mib

UNIT_MINUTES = 10
LENGTHS = {"10 minutes": 1, "1 hour": 6, "10 hours": 60}
# The recordings come so many times faster than they play.
PACE = 200
PATIENCE_S = 30.0
POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Format:
    """How people keep recordings: encoder, ending, rate, layout, bits a second."""

    codec: str
    suffix: str
    rate: int
    layout: str
    bit_rate: int = 0


FORMATS = {
    "mp3": Format("libmp3lame", "mp3", 44_100, "stereo", 128_000),
    "AAC": Format("aac", "m4a", 44_100, "stereo", 128_000),
    "Opus": Format("libopus", "opus", 48_000, "mono", 32_000),
    "FLAC": Format("flac", "flac", 16_000, "mono"),
}


def measure(lengths: tuple[str, ...] = tuple(LENGTHS)) -> dict[str, object]:
    """By format and length: CPU time without the download, memory, lateness of the first chunk."""
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder, stack(Plan(port=0, roles=("api", "io"))) as started:
        for name, format_ in FORMATS.items():
            unit = Path(folder) / f"unit.{format_.suffix}"
            _encode(unit, format_, UNIT_MINUTES)
            found[name] = {
                length: _measured(started, _long(unit, format_, LENGTHS[length]), LENGTHS[length])
                for length in lengths
            }
    return found


def _encode(path: Path, format_: Format, minutes: int) -> None:
    write(
        path,
        lecture(minutes),
        format_.codec,
        rate=format_.rate,
        layout=format_.layout,
        bit_rate=format_.bit_rate,
    )


def _long(unit: Path, format_: Format, times: int) -> Path:
    path = unit.with_stem(f"long-{times}")
    if format_.codec == "flac":
        _encode(path, format_, UNIT_MINUTES * times)
    else:
        repeat(unit, path, times)
    return path


def _measured(started: Stack, path: Path, times: int) -> dict[str, object]:
    hours = UNIT_MINUTES * times / 60
    late_s = first_chunk_late_s(started, path, 3600 * hours)
    # A process for each, so that its memory is its own, and that of a worker's child.
    tune_children("io")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        cost = pool.submit(ingest_cost, path).result()
    size = path.stat().st_size
    path.unlink()
    return {
        "CPU, s per audio hour": round(cost.cpu_s / hours, 2),
        "wall, s per audio hour": round(cost.wall_s / hours, 2),
        "chunks": cost.chunks,
        "source, MB": round(size / 1e6, 1),
        "blobs, MB": round(cost.blob_bytes / 1e6, 1),
        "peak, MiB": cost.peak_mib,
        "first chunk after its last byte, s": f"over {PATIENCE_S:g}" if late_s is None else round(late_s, 2),
    }


@dataclass(frozen=True, slots=True)
class Cost:
    """What ingest without the download took."""

    cpu_s: float
    wall_s: float
    chunks: int
    blob_bytes: int
    peak_mib: int


def ingest_cost(path: Path) -> Cost:
    """Of one recording, in this process, its VAD model loaded before."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder))
        ingested(SAMPLE, settings)
        before_s, began_s = _cpu_s(), time.perf_counter()
        sizes = ingested(path, settings)
        wall_s = time.perf_counter() - began_s
        return Cost(
            _cpu_s() - before_s,
            wall_s,
            len(sizes),
            sum(sizes),
            peak_mib(multiprocessing.current_process().pid or 0),
        )


def ingested(path: Path, settings: Settings) -> list[int]:
    """Do what ingest does once the recording is here; the sizes of the blobs, in `settings.blobs`."""
    blobs = Blobs(settings.blobs)
    cutting = cut(
        path,
        target_ms=settings.chunk_ms,
        first_ms=settings.first_chunks_ms,
        search_ms=settings.cut_search_ms,
    )
    sizes: list[int] = []
    for found in cutting:
        blobs.put(f"{path.stem}/{len(sizes):05d}.{found.suffix}", found.data)
        sizes.append(len(found.data))
    return sizes


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def first_chunk_late_s(started: Stack, path: Path, duration_s: float) -> float | None:
    """From the last byte of the first chunk, as sent, to that chunk's row; None where it takes too long."""
    rate = PACE * path.stat().st_size / duration_s
    with sending(Source(path, rate)) as source:
        job_id = started.client.submit({"url": source.url, "transcribe_args": {"language": "en"}})
        deadline_s = time.monotonic() + PATIENCE_S
        while not (chunk := started.store.chunk(job_id, 0)) and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
        queued_s = time.monotonic()
        started.client.cancel(job_id)
        return queued_s - source.sent_s(_bytes_until(path, chunk.end_ms)) if chunk else None


def _bytes_until(path: Path, end_ms: int) -> int:
    """How much of the file holds all packets that begin before `end_ms`."""
    last = 0
    with av.open(path) as container:
        stream = container.streams.audio[0]
        tick_ms = 1000 * float(stream.time_base or 0)
        for packet in container.demux(stream):
            # Packets of one Ogg page are at one place.
            if packet.pts is not None and packet.pts * tick_ms >= end_ms and (packet.pos or 0) > last:
                return packet.pos or 0
            if packet.pts is not None and packet.pts * tick_ms < end_ms:
                last = max(last, packet.pos or 0)
    return path.stat().st_size
