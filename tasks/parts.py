"""The parts of an upload in the blob store: their names, and their way into one file."""

from collections.abc import Callable
from pathlib import Path

from tasks.blobs import Blobs
from tasks.disk import told_as_full
from tasks.errors import SourceEmpty, UploadNotFound


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

    Raises SourceEmpty, DiskFull, UploadNotFound where a part is not there or not whole, and OSError where the
    store fails.
    """
    total = sum(map(size_of, parts))
    if not total:
        raise SourceEmpty
    try:
        with told_as_full(), target.open("wb") as file:
            for part in parts:
                data = blobs.get(f"{folder_of(upload_id)}/{part}")
                if len(data) != size_of(part):
                    raise UploadNotFound("a part of the upload is damaged: upload the recording again")
                file.write(data)
                on_bytes()
    except FileNotFoundError:
        raise UploadNotFound from None
