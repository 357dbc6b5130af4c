"""The parts of an upload in the blob store: their names, and their way into one file."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

from tasks.blobs import Blobs
from tasks.errors import SourceEmpty, SourceTooLarge, UploadNotFound

# A disk that is full to the last byte stops whatever else writes to it, such as Redis.
RESERVE_BYTES = 64 * 1024**2


def folder_of(upload_id: str) -> str:
    """Where the parts are. No job's id begins like this."""
    return f"_uploads/{upload_id}"


def name_of(start: int, size: int, nonce: str) -> str:
    """A part's name. Two that begin at the same place do not overwrite each other: one of them counts."""
    return f"{start:015d}-{size}-{nonce}"


def size_of(part: str) -> int:
    return int(part.split("-")[1])


def gather(
    blobs: Blobs, upload_id: str, parts: list[str], target: Path, on_bytes: Callable[[], None]
) -> None:
    """Write the parts to a file, one after the other; `on_bytes` is called after each.

    Raises SourceEmpty, SourceTooLarge where the disk does not suffice, UploadNotFound where a part is not
    there or not whole, and OSError where the store fails.
    """
    total = sum(map(size_of, parts))
    if not total:
        raise SourceEmpty
    if total + RESERVE_BYTES > shutil.disk_usage(target.parent).free:
        raise SourceTooLarge("the recording does not fit on this worker's disk")
    try:
        with target.open("wb") as file:
            for part in parts:
                data = blobs.get(f"{folder_of(upload_id)}/{part}")
                if len(data) != size_of(part):
                    raise UploadNotFound("a part of the upload is damaged: upload the recording again")
                file.write(data)
                on_bytes()
    except FileNotFoundError:
        raise UploadNotFound from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SourceTooLarge("the recording does not fit on this worker's disk") from error
        raise
