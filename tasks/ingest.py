"""Ingest: the recording comes in and goes out as chunk blobs, the first while the rest is being cut."""

import json
import shutil
from io import BytesIO
from pathlib import Path

from tasks.audio import write_flac
from tasks.chunks import Chunk
from tasks.context import Context
from tasks.cutting import cut, digest
from tasks.errors import SourceTooLarge, SourceTooLong
from tasks.fetch import fetch
from tasks.heartbeat import Heartbeat
from tasks.job import BLOB_SCHEME, UPLOAD_SCHEME, Request
from tasks.leases import Lease
from tasks.parts import gather
from tasks.scratch import scratch_folder


def ingest_recording(
    context: Context, request: Request, endpoint: str, lease: Lease, heartbeat: Heartbeat
) -> None:
    """Fetch, cut, store and announce every chunk, then seal the plan.

    Raises the errors of fetch() and cut(), SourceTooLong, SourceChanged, and LeaseLost where another
    attempt took over.
    """
    settings = context.settings
    with scratch_folder(settings.scratch_path, lease.job_id) as folder:
        source = folder / "source"
        _bring(context, request.url, endpoint, source, heartbeat)
        cutting = cut(
            source,
            target_ms=request.chunk_ms or settings.chunk_ms,
            first_ms=settings.first_chunks_ms,
            search_ms=settings.cut_search_ms,
        )
        total = 0
        for span, samples in cutting:
            heartbeat.advance()
            if span.end_ms > settings.max_recording_ms:
                hours = settings.max_recording_ms / 3_600_000
                raise SourceTooLong(f"the recording is longer than the {hours:g} h accepted here")
            # The lease's fence in the name: an attempt that lost never overwrites another's blob.
            name = f"{lease.job_id}/{total:05d}-{lease.fence}.flac"
            audio = BytesIO()
            write_flac(audio, samples)
            context.blobs.put(name, audio.getvalue())
            chunk = Chunk(total, span.start_ms, span.end_ms, digest(samples), name)
            if context.leases.add_chunk(lease, chunk):
                context.bells.chunks()
            else:
                context.blobs.delete(name)
            total += 1
    if context.leases.seal(lease, total, cutting.duration_ms, json.dumps(list(cutting.warnings))):
        context.bells.assemble(lease.job_id)


def _bring(context: Context, url: str, endpoint: str, target: Path, heartbeat: Heartbeat) -> None:
    """The recording as a local file, from the blob store or from the network."""
    if url.startswith(BLOB_SCHEME):
        context.blobs.download(url.removeprefix(BLOB_SCHEME), target)
        return
    if url.startswith(UPLOAD_SCHEME):
        upload_id = context.uploads.use(url)
        gather(context.blobs, upload_id, context.uploads.parts(upload_id), target, heartbeat.advance)
        return

    def on_bytes(done: int, total: int | None) -> None:
        heartbeat.advance()
        if total and total - done > shutil.disk_usage(target.parent).free:
            raise SourceTooLarge("the recording does not fit on this worker's disk")

    fetch(url, target, context.settings, on_bytes, endpoint=endpoint)
