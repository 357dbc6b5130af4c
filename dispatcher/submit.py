"""The one way in: an input becomes a job in Redis, on disk, and the ingest stage is rung for."""

import binascii
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace

import structlog

from dispatcher.ringing import Ringer
from dispatcher.schemas import Limits, Parsed, parse_contact, parse_input
from tasks import endings
from tasks.app import Doorbells
from tasks.blobs import Blobs
from tasks.disk import told_as_full
from tasks.errors import (
    BlobStoreFailed,
    InvalidInput,
    LonghandError,
    QueueFull,
    QuotaExceeded,
    ServiceFull,
    StoreFull,
)
from tasks.guard import receiver_of
from tasks.idempotency import AlreadyAccepted, IdempotencyConflict, Once
from tasks.job import BLOB_SCHEME, UPLOAD_SCHEME, Callback, Job, NewJob, Request
from tasks.settings import Settings
from tasks.store import QUEUED, Store
from tasks.uploads import Uploads

log = structlog.get_logger()

# Four characters are three bytes.
BASE64_PIECE = 4 * 256 * 1024

JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


def new_job_id(prefix: str = "") -> str:
    """An id in the platform's shape: a uuid4 and a region."""
    return f"{prefix}{uuid.uuid4()}-u1"


class Submitter:
    """Accepts, and cancels, jobs. Its methods may raise redis.exceptions.RedisError."""

    def __init__(
        self, settings: Settings, store: Store, bells: Doorbells, blobs: Blobs, uploads: Uploads
    ) -> None:
        self._settings = settings
        self._store = store
        self._bells = bells
        # A job is accepted whether or not this succeeds, so its client need not wait for it.
        self._ring_for_ingests = Ringer(bells.ingests)
        self._blobs = blobs
        self._uploads = uploads

    def submit(
        self,
        job_id: str,
        raw: object,
        endpoint: str,
        account: str,
        limits: Limits,
        *,
        callback: Callback | None = None,
        once: Once | None = None,
    ) -> bool:
        """Write the job; on return it is on disk. False if this id was there already.

        An input that is not valid makes a job that has failed: its error is told wherever a job is read,
        and by webhook. Raises InvalidInput for an id that cannot be one, BlobStoreFailed, QueueFull,
        QuotaExceeded, ServiceFull and StoreFull; where `once` came before, AlreadyAccepted and
        IdempotencyConflict.
        """
        if not JOB_ID.fullmatch(job_id):
            raise InvalidInput("a job's id is 1 to 128 letters, digits, - and _")
        if once:
            # Before anything is stored for it; two at the same time are told apart by create().
            self._store.refuse_repetition(once)
        if self._store.memory.scarce():
            if self._store.job(job_id):
                return False
            raise StoreFull
        new = replace(self._new(job_id, raw, endpoint, account, limits), callback=callback, once=once)
        try:
            parsed = parse_input(raw, self._settings, endpoint)
            # Recordings that came along must not take the place of those of a job that there is.
            if parsed.blobs and self._store.job(job_id):
                return False
            parsed = self._with_stored_blobs(job_id, parsed)
            for request in (parsed.request, *parsed.parts):
                if request.url.startswith(UPLOAD_SCHEME):
                    self._uploads.use(request.url, account, limits.ttl_ms)
        except BlobStoreFailed:
            raise
        except LonghandError as error:
            return self._refuse(new, error)
        created = self._create(replace(new, request=parsed.request, parts=parsed.parts), parsed)
        log.info("job_accepted", job_id=job_id, endpoint=endpoint, account=account, new=created)
        self._ring_for_ingests()
        return created

    def _create(self, new: NewJob, parsed: Parsed) -> bool:
        """Write the job; where there is none for certain, the recordings that came along go at once."""
        try:
            return self._store.create(new)
        except (QueueFull, QuotaExceeded, ServiceFull, AlreadyAccepted, IdempotencyConflict):
            if parsed.blobs:
                self._delete_blobs(_ids(new.id, len(parsed.parts)))
            raise

    def _new(self, job_id: str, raw: object, endpoint: str, account: str, limits: Limits) -> NewJob:
        """The job without its request, which may not be valid."""
        contact = parse_contact(raw, self._settings, endpoint)
        defaults = self._settings.endpoint(endpoint)
        return NewJob(
            job_id,
            endpoint,
            account,
            None,
            limits.ttl_ms,
            limits.execution_timeout_ms,
            limits.low_priority,
            contact.webhook_url,
            contact.recording_id,
            receiver_of(account, contact.webhook_url) if contact.webhook_url else "",
            retention_ms=defaults.retention_ms if defaults else None,
        )

    def cancel(self, job: Job) -> None:
        """End a job that has not ended. Its workers learn of it with their next heartbeat."""
        done, receivers = self._store.finish(job.id, endings.canceled(job, self._store.now_ms()))
        if done:
            log.info("job_canceled", job_id=job.id)
        self._bells.deliver(*receivers)

    def purge(self, endpoint: str, account: str) -> int:
        """Cancel an account's jobs of an endpoint that nobody works on yet; how many that were."""
        count = 0
        for job in self._store.queued(endpoint, account):
            ending = endings.canceled(job, self._store.now_ms())
            done, receivers = self._store.finish(job.id, ending, stage=QUEUED)
            self._bells.deliver(*receivers)
            count += done
        log.info("queue_purged", endpoint=endpoint, account=account, jobs=count)
        return count

    def retry(self, job: Job) -> bool:
        """Start the next run of a job; False unless it has failed and its input was valid."""
        outcome = self._store.retry(job.id)
        if outcome == "complete":
            self._bells.assemble(job.id)
        elif outcome == "queued":
            self._bells.ingests()
            self._bells.chunks()
        else:
            return False
        log.info("job_retried", job_id=job.id)
        return True

    def close(self) -> None:
        """Ring for what was accepted and not rung for yet."""
        self._ring_for_ingests.close()

    def ring(self, receiver: str) -> None:
        """Something is due to a receiver."""
        self._bells.deliver(receiver)

    def _refuse(self, new: NewJob, error: LonghandError) -> bool:
        recording_id = new.recording_id or new.id
        ending = endings.failed(new.id, recording_id, self._store.now_ms(), error)
        created, receivers = self._store.refuse(new, ending)
        if created:
            log.info("job_refused", job_id=new.id, code=error.code)
        self._bells.deliver(*receivers)
        return created

    def _with_stored_blobs(self, job_id: str, parsed: Parsed) -> Parsed:
        """The input with its recordings, if they came along, in the blob store and never in Redis."""
        if not parsed.blobs:
            return parsed
        ids = _ids(job_id, len(parsed.parts))
        # Whatever becomes of this process, and of the answer that the job is written.
        self._store.sweep_unless_created(ids)
        try:
            if not parsed.parts:
                return replace(parsed, request=self._stored(job_id, parsed.request, parsed.blobs[0]))
            pieces = zip(ids, parsed.parts, parsed.blobs, strict=True)
            return replace(parsed, parts=tuple(self._stored(*piece) for piece in pieces))
        except LonghandError:
            self._delete_blobs(ids)
            raise

    def _delete_blobs(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            self._blobs.delete_job(job_id)

    def _stored(self, job_id: str, request: Request, blob: str) -> Request:
        name = f"{job_id}/source"
        self._blobs.refuse_without_room(3 * len(blob) // 4, self._settings.disk_reserve_bytes)
        try:
            with told_as_full():
                self._blobs.write(name, _decoded(blob))
        except OSError as error:
            raise BlobStoreFailed(f"the recording could not be stored: {error.strerror}") from error
        return replace(request, url=BLOB_SCHEME + name)


def _ids(job_id: str, parts: int) -> list[str]:
    """Whose recordings they are: the job's, or those of a batch's parts."""
    return [f"{job_id}.{part}" for part in range(parts)] or [job_id]


def _decoded(blob: str) -> Iterator[bytes]:
    """The bytes of base64, some at a time; raises InvalidInput for what is none."""
    try:
        # Python passes over some padding too much, and only where a piece does not begin with it.
        if len(blob) % 4 or blob.endswith("==="):
            raise binascii.Error("padding of another length")
        for start in range(0, len(blob), BASE64_PIECE):
            piece = blob[start : start + BASE64_PIECE]
            if "=" in piece and start + BASE64_PIECE < len(blob):
                raise binascii.Error("padding before the end")
            yield binascii.a2b_base64(piece, strict_mode=True)
    except ValueError:
        raise InvalidInput("`blob` is not base64") from None
