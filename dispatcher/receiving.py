"""What arrives of an upload goes into the blob store part by part, whatever its length, in bounded memory."""

import contextlib
import uuid
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from dispatcher.problems import Problem
from dispatcher.service import Service
from tasks.disk import told_as_full
from tasks.errors import BlobStoreFailed, DiskFull, LonghandError, UploadNotFound
from tasks.parts import folder_of, name_of
from tasks.uploads import PART_BYTES, OffsetConflict, TooManyParts, Upload, UploadTooLarge

_STATUS = {UploadNotFound: 404, OffsetConflict: 409, UploadTooLarge: 413, TooManyParts: 400}


def refused(error: LonghandError) -> Problem:
    """What an upload's error is as an answer."""
    return Problem(_STATUS[type(error)], str(error), error.code)


def disk_full() -> Problem:
    return Problem(507, "there is no room for this upload: send it again later", "disk_full")


def refuse_without_room(service: Service, size: int) -> None:
    """Raise Problem (507) where the blob store is known to have no room for so many bytes."""
    try:
        service.blobs.refuse_without_room(size, service.settings.disk_reserve_bytes)
    except DiskFull:
        raise disk_full() from None


async def receive(service: Service, upload: Upload, blocks: AsyncIterator[bytes]) -> int:
    """Store what arrives behind what is there; the upload's offset after it.

    What came before `blocks` broke off is kept, so that it need not be sent again. Raises Problem (404,
    409, 413, 507, or 400 for too many parts), BlobStoreFailed and redis.exceptions.RedisError.
    """
    offset, held, size = upload.offset, list[bytes](), 0

    async def store() -> None:
        nonlocal offset, size
        data = b"".join(held)
        held.clear()
        size = 0
        if data:
            offset = await run_in_threadpool(_store, service, upload, offset, data)

    try:
        async for block in blocks:
            held.append(block)
            size += len(block)
            if size >= PART_BYTES:
                await store()
    finally:
        await store()
    return offset


def _store(service: Service, upload: Upload, offset: int, data: bytes) -> int:
    refuse_without_room(service, len(data))
    part = name_of(offset, len(data), uuid.uuid4().hex[:8])
    name = f"{folder_of(upload.id)}/{part}"
    try:
        with told_as_full():
            service.blobs.write(name, [data])
    except DiskFull:
        raise disk_full() from None
    except OSError as error:
        raise BlobStoreFailed(f"the upload could not be stored: {error.strerror}") from error
    # Where Redis does not answer, the part stays: it may count. If not, it goes with the upload.
    try:
        return service.uploads.append(upload, offset, part, len(data))
    except LonghandError as error:
        with contextlib.suppress(OSError):
            service.blobs.delete(name)
        raise refused(error) from None
