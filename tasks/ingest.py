"""Ingest: the recording comes in and goes out as chunk blobs, the first while the rest is still to come."""

import json
import time
from functools import partial
from pathlib import Path

from tasks.arrivals import Arrivals
from tasks.chunks import Chunk
from tasks.context import Context
from tasks.cutting import cut
from tasks.decoded import Cut
from tasks.disk import Room, patiently, told_as_full
from tasks.errors import DiskFull, SourceTooLong
from tasks.growing import Bringers, Growing
from tasks.heartbeat import Heartbeat
from tasks.job import Request
from tasks.leases import Lease
from tasks.scratch import scratch_folder
from tasks.sources import bringers

LOOK_S = 0.5


def ingest_recording(
    context: Context, request: Request, endpoint: str, lease: Lease, heartbeat: Heartbeat
) -> None:
    """Fetch, cut, store and announce every chunk, then seal the plan.

    Raises the errors of the bringers() and of cut(), DiskFull, SourceTooLong, SourceChanged, and LeaseLost
    where another attempt took over.
    """
    settings = context.settings
    with told_as_full(), scratch_folder(settings.scratch_path, lease.job_id) as folder:
        ingest = _Ingest(context, request, lease, heartbeat)
        path = folder / "source"
        room = Room(path, settings.disk_reserve_bytes)

        def from_the_start() -> None:
            try:
                room.take()
                ingest.run(path, endpoint, room)
            except DiskFull:
                room.give_up()
                raise

        patiently(from_the_start, settings.disk_wait_ms, heartbeat.advance)


class _Ingest:
    """One attempt at one recording. Begun again after a full disk, it gets the same chunks again."""

    def __init__(self, context: Context, request: Request, lease: Lease, heartbeat: Heartbeat) -> None:
        self.context = context
        self.request = request
        self.lease = lease
        self.heartbeat = heartbeat
        self.total = 0
        # How many chunks this attempt has announced, all its beginnings together.
        self.announced = 0

    def run(self, path: Path, endpoint: str, room: Room) -> None:
        """Cut while the file comes in, and seal once all of it has."""
        with Arrivals(path) as arrivals, Bringers(arrivals) as threads:
            bring, fetch_tail = bringers(self.context, self.request.url, endpoint, arrivals, room)
            source = Growing(
                arrivals,
                self.heartbeat.advance,
                self.heartbeat.check,
                fetch_tail and (lambda start: threads.start(partial(fetch_tail, start))),
            )
            threads.start(bring)
            duration_ms, warnings = self._cut(source)
            source.drain()
        leases, bells = self.context.leases, self.context.bells
        if leases.seal(self.lease, self.total, duration_ms, json.dumps(warnings)):
            bells.assemble(self.lease.job_id)

    def _cut(self, source: Growing) -> tuple[int, list[str]]:
        """Announce each chunk; gives the recording's length in ms, and warnings."""
        settings = self.context.settings
        cutting = cut(
            source,
            target_ms=self.request.chunk_ms or settings.chunk_ms,
            first_ms=settings.first_chunks_ms,
            search_ms=settings.cut_search_ms,
            audio_stream=self.request.audio_stream,
        )
        self.total = 0
        for found in cutting:
            self.heartbeat.advance()
            if found.span.end_ms > settings.max_recording_ms:
                hours = settings.max_recording_ms / 3_600_000
                raise SourceTooLong(f"the recording is longer than the {hours:g} h accepted here")
            self._announce(found)
            self.total += 1
        return cutting.duration_ms, list(cutting.warnings)

    def _announce(self, found: Cut) -> None:
        """Store a chunk and write it into the plan; then wait while too many of the job's wait."""
        context, number, span = self.context, self.total, found.span
        # The lease's fence in the name: an attempt that lost never overwrites another's blob.
        name = f"{self.lease.job_id}/{number:05d}-{self.lease.fence}.{found.suffix}"
        chunk = Chunk(number, span.start_ms, span.end_ms, found.digest, name, found.origin_ms)
        if number < self.announced:
            # Begun again. A worker may be reading the blob; the plan tells whether the source has changed.
            context.leases.add_chunk(self.lease, chunk)
            return
        patiently(
            partial(_put, context, name, found.data), context.settings.disk_wait_ms, self.heartbeat.advance
        )
        added = context.leases.add_chunk(self.lease, chunk)
        self.announced += 1
        if not added:
            context.blobs.delete(name)
            return
        context.bells.chunks()
        while context.leases.is_ahead(self.lease.job_id):
            self.heartbeat.advance()
            time.sleep(LOOK_S)


def _put(context: Context, name: str, data: bytes) -> None:
    context.blobs.refuse_without_room(len(data), context.settings.disk_reserve_bytes)
    with told_as_full():
        context.blobs.put(name, data)
