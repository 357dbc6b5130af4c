"""Uploads in Redis: whose, how long, how far, until when. Their bytes are parts in the blob store.

A row is written before the first part, and a part counts once it is named here, so that whatever a process
that is killed leaves behind belongs to some row, and is deleted with it.
"""

import uuid
from dataclasses import dataclass
from typing import Any

from redis import Redis

from tasks.errors import LonghandError, UploadIncomplete, UploadNotFound
from tasks.job import UPLOAD_SCHEME
from tasks.scripts import Scripts, text
from tasks.settings import Settings

PART_BYTES = 8 * 1024**2
# Beside those that a file of its length has anyway: clients that send little at a time would fill Redis.
MORE_PARTS = 10_000
# A job that waits is ended at its deadline, and its clock starts a moment after its upload is kept.
SLACK_MS = 60_000
SWEEP_AT_ONCE = 20


class OffsetConflict(LonghandError):
    """The upload has another offset by now: ask for it, and go on from there."""

    code = "offset_conflict"


class UploadTooLarge(LonghandError):
    """More bytes than the upload was to have, or than one may have here."""

    code = "too_large"


class TooManyParts(LonghandError):
    """The upload came in too many requests: send more at a time, such as 8 MiB."""

    code = "too_many_parts"


_REFUSED: dict[str, type[LonghandError]] = {
    "gone": UploadNotFound,
    "conflict": OffsetConflict,
    "large": UploadTooLarge,
    "parts": TooManyParts,
}


@dataclass(frozen=True, slots=True)
class Upload:
    """One file, bytes; `length` None: known at its end. `metadata` is tus' header as it came."""

    id: str
    account: str
    offset: int
    length: int | None
    expires_ms: int
    metadata: str = ""

    @property
    def url(self) -> str:
        """What names it in the input of a job."""
        return UPLOAD_SCHEME + self.id

    @property
    def complete(self) -> bool:
        return self.offset == self.length


class Uploads:
    """Every method may raise redis.exceptions.RedisError."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._redis: Any = client
        self._scripts = Scripts(client)
        self._settings = settings

    def create(self, account: str, length: int | None, metadata: str = "") -> Upload:
        """A new upload; with length None it is complete when it is sealed."""
        upload_id = uuid.uuid4().hex
        retention = self._settings.upload_retention_ms
        self._scripts(
            "create_upload", upload_id, account, "" if length is None else str(length), metadata, retention
        )
        return self.find(upload_id, account)

    def find(self, upload_id: str, account: str) -> Upload:
        """The account's own upload. Raises UploadNotFound, also for one that has expired."""
        row = {text(name): text(value) for name, value in self._redis.hgetall(_key(upload_id)).items()}
        if not row or row["account"] != account or int(row["expires_ms"]) <= self._now_ms():
            raise UploadNotFound
        length = int(row["length"]) if row["length"] else None
        expires_ms = int(row["expires_ms"])
        return Upload(upload_id, account, int(row["offset"]), length, expires_ms, row["metadata"])

    def append(self, upload: Upload, start: int, part: str, size: int) -> int:
        """Count a part that is in the blob store; the offset after it.

        Raises UploadNotFound, OffsetConflict, UploadTooLarge and TooManyParts: it does not count then.
        """
        limit = self._settings.upload_limit
        most = MORE_PARTS + (upload.length or limit) // PART_BYTES
        retention = self._settings.upload_retention_ms
        outcome, offset = self._scripts(
            "append_upload", upload.id, upload.account, start, part, size, retention, limit, most
        )
        if refused := _REFUSED.get(text(outcome)):
            raise refused
        return int(offset)

    def seal(self, upload: Upload) -> Upload:
        """End an upload whose length was not known. Raises UploadNotFound."""
        self._scripts("seal_upload", upload.id, upload.account)
        return self.find(upload.id, upload.account)

    def use(self, url: str, account: str = "", keep_ms: int = 0) -> str:
        """Keep the upload that a URL names for its retention, and for `keep_ms`; its id.

        With an account, only that one's. Raises UploadNotFound and UploadIncomplete.
        """
        upload_id = url.removeprefix(UPLOAD_SCHEME)
        keep_ms = max(keep_ms + SLACK_MS if keep_ms else 0, self._settings.upload_retention_ms)
        row = self._scripts("use_upload", upload_id, account, keep_ms)
        if not row:
            raise UploadNotFound
        if row[0] != row[1]:
            raise UploadIncomplete
        return upload_id

    def parts(self, upload_id: str) -> list[str]:
        """The names of its parts, in order."""
        return [text(part) for part in self._redis.lrange(_key(upload_id, "parts"), 0, -1)]

    def discard(self, upload_id: str) -> None:
        """Let it be over; its parts may be deleted now, and are swept once more."""
        self._scripts("discard_upload", upload_id)

    def due(self) -> list[str]:
        """Uploads whose parts are to be deleted."""
        found = self._redis.zrangebyscore("lh:uploads", "-inf", self._now_ms(), start=0, num=SWEEP_AT_ONCE)
        return [text(upload_id) for upload_id in found]

    def forget(self, upload_id: str) -> None:
        """Its parts are deleted."""
        with self._redis.pipeline() as pipe:
            pipe.delete(_key(upload_id), _key(upload_id, "parts"))
            pipe.zrem("lh:uploads", upload_id)
            pipe.execute()

    def _now_ms(self) -> int:
        seconds, micros = self._redis.time()
        return int(seconds * 1000 + micros // 1000)


def _key(upload_id: str, part: str = "") -> str:
    return f"lh:upload:{upload_id}:{part}" if part else f"lh:upload:{upload_id}"
