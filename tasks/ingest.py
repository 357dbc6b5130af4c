"""Ingest: the recording comes in and goes out as chunk blobs, the first while the rest is being cut."""

import json
from functools import partial
from pathlib import Path

from tasks.chunks import Chunk
from tasks.context import Context
from tasks.cutting import cut
from tasks.disk import Room, patiently, told_as_full
from tasks.errors import DiskFull, SourceTooLong
from tasks.fetch import fetch
from tasks.heartbeat import Heartbeat
from tasks.job import BLOB_SCHEME, UPLOAD_SCHEME, Request
from tasks.leases import Lease
from tasks.parts import gather, size_of
from tasks.scratch import scratch_folder


def ingest_recording(
    context: Context, request: Request, endpoint: str, lease: Lease, heartbeat: Heartbeat
) -> None:
    """Fetch, cut, store and announce every chunk, then seal the plan.

    Raises the errors of fetch() and cut(), DiskFull, SourceTooLong, SourceChanged, and LeaseLost where
    another attempt took over.
    """
    settings = context.settings
    with told_as_full(), scratch_folder(settings.scratch_path, lease.job_id) as folder:
        source = folder / "source"
        _bring(context, request.url, endpoint, source, heartbeat)
        cutting = cut(
            source,
            target_ms=request.chunk_ms or settings.chunk_ms,
            first_ms=settings.first_chunks_ms,
            search_ms=settings.cut_search_ms,
            audio_stream=request.audio_stream,
        )
        total = 0
        for found in cutting:
            heartbeat.advance()
            span = found.span
            if span.end_ms > settings.max_recording_ms:
                hours = settings.max_recording_ms / 3_600_000
                raise SourceTooLong(f"the recording is longer than the {hours:g} h accepted here")
            # The lease's fence in the name: an attempt that lost never overwrites another's blob.
            name = f"{lease.job_id}/{total:05d}-{lease.fence}.{found.suffix}"
            patiently(partial(_put, context, name, found.data), settings.disk_wait_ms, heartbeat.advance)
            chunk = Chunk(total, span.start_ms, span.end_ms, found.digest, name, found.origin_ms)
            if context.leases.add_chunk(lease, chunk):
                context.bells.chunks()
            else:
                context.blobs.delete(name)
            total += 1
    if context.leases.seal(lease, total, cutting.duration_ms, json.dumps(list(cutting.warnings))):
        context.bells.assemble(lease.job_id)


def _put(context: Context, name: str, data: bytes) -> None:
    context.blobs.refuse_without_room(len(data), context.settings.disk_reserve_bytes)
    with told_as_full():
        context.blobs.put(name, data)


def _bring(context: Context, url: str, endpoint: str, target: Path, heartbeat: Heartbeat) -> None:
    """The recording as a local file, from the blob store or from the network, once the disk has room."""
    settings = context.settings
    room = Room(target, settings.disk_reserve_bytes)

    def on_bytes(done: int, total: int | None) -> None:
        heartbeat.advance()
        room.grow(done, total)

    def bring() -> None:
        room.take()
        try:
            if url.startswith(BLOB_SCHEME):
                name = url.removeprefix(BLOB_SCHEME)
                room.grow(0, context.blobs.size(name))
                with told_as_full():
                    context.blobs.download(name, target)
            elif url.startswith(UPLOAD_SCHEME):
                upload_id = context.uploads.use(url)
                parts = context.uploads.parts(upload_id)
                room.grow(0, sum(map(size_of, parts)))
                gather(context.blobs, upload_id, parts, target, heartbeat.advance)
            else:
                fetch(url, target, settings, on_bytes, endpoint=endpoint)
        except DiskFull:
            room.give_up()
            raise

    patiently(bring, settings.disk_wait_ms, heartbeat.advance)
