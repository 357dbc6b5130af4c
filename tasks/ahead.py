"""Prepares the chunk that this process is likely to have next, while the model has another one.

Nothing is claimed for it, so a process that dies meanwhile loses nothing, and whoever is free first takes the
chunk. A process that has one prepared claims that one, whichever it was rung for: decision 0012.
"""

import threading
from dataclasses import dataclass

import structlog

from tasks.attempt import refused
from tasks.audio import Sound, load
from tasks.chunks import Chunk
from tasks.context import Context
from tasks.engine import ChunkWork, Engine
from tasks.job import Job, Request
from tasks.leases import TRANSCRIBE, HandedOut, Lease, Refused
from tasks.model_names import detect_device, model_of
from tasks.settings import Settings

log = structlog.get_logger()

# How often to look for a chunk to prepare where there was none, s.
LOOK_S = 0.5
# How long a process that is free waits for the rest of what it has begun to prepare, s.
PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A chunk's audio, and where somebody speaks in it."""

    job_id: str
    chunk: Chunk
    sound: Sound
    work: ChunkWork

    @property
    def unit(self) -> tuple[str, int]:
        return self.job_id, self.chunk.index


def prepare(context: Context, engine: Engine, job: Job, request: Request, chunk: Chunk) -> Prepared:
    """All that is done for a chunk before it needs the model. Raises what reading it raises."""
    sound = load(context.blobs.get(chunk.blob), chunk)
    model = model_of(request.model, context.settings)
    work = ChunkWork(chunk.index, chunk.start_ms, model, request.options)
    return Prepared(job.id, chunk, sound, engine.prepare(sound.samples, work))


class Ahead:
    """At most one chunk, prepared in a thread."""

    def __init__(self, context: Context, engine: Engine) -> None:
        self._context = context
        self._engine = engine
        self._search: _Search | None = None

    def begin(self) -> None:
        """Prepare a chunk from now on, if the settings say so; to be called as the model gets another one."""
        if self._search is None and prefetches(self._context.settings):
            self._search = _Search(self._context, self._engine)
            self._search.start()

    def claim(self, job_id: str, index: int) -> Lease | None:
        """The lease on what is prepared, in place of the chunk that was rung for; None: take that one."""
        found = self._search.end() if self._search else None
        if found is None:
            self._search = None
            return None
        if found.unit == (job_id, index):
            return None
        unit = str(found.chunk.index)
        lease = self._context.leases.claim(found.job_id, TRANSCRIBE, unit, f"{job_id}/{index}")
        if isinstance(lease, Refused):
            # Somebody was free before.
            self._search = None
            refused(self._context, found.job_id, TRANSCRIBE, unit, lease)
            return None
        if lease.again:
            self._ring_again(job_id, index)
        return lease

    def take(self, job_id: str, chunk: Chunk) -> Prepared | None:
        """What is prepared, if it is this chunk; it is forgotten either way."""
        found = self._search.end() if self._search else None
        self._search = None
        return found if found and (found.job_id, found.chunk) == (job_id, chunk) else None

    def _ring_again(self, job_id: str, index: int) -> None:
        job, chunk = self._context.store.job(job_id), self._context.store.chunk(job_id, index)
        if job and chunk:
            self._context.bells.again(HandedOut(job_id, index, chunk.start_ms, chunk.end_ms, job.total))


def prefetches(settings: Settings) -> bool:
    """On a CPU the decoder needs the core itself."""
    if settings.prefetch == "auto":
        return detect_device(settings.device) == "cuda"
    return settings.prefetch == "on"


class _Search(threading.Thread):
    """Looks for a chunk until there is one, and prepares it."""

    def __init__(self, context: Context, engine: Engine) -> None:
        super().__init__(name="ahead", daemon=True)
        self._context = context
        self._engine = engine
        self._over = threading.Event()
        self._found: Prepared | None = None

    def end(self) -> Prepared | None:
        """Stop looking; what was found, once it is prepared."""
        self._over.set()
        self.join(PATIENCE_S)
        return self._found

    def run(self) -> None:
        try:
            while (unit := self._context.leases.next_to_prepare()) is None:
                if self._over.wait(LOOK_S):
                    return
            self._found = self._prepared(*unit)
        except Exception:  # the edge of a thread: the attempt itself meets it again, and tells of it
            log.exception("not_prepared")

    def _prepared(self, job_id: str, index: int) -> Prepared | None:
        job, chunk = self._context.store.job(job_id), self._context.store.chunk(job_id, index)
        if job is None or job.request is None or chunk is None:
            return None
        return prepare(self._context, self._engine, job, job.request, chunk)
