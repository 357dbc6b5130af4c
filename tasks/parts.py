"""The parts of an upload in the blob store: their names, and their bytes as those of one file."""

from collections.abc import Iterator

from tasks.blobs import Blobs
from tasks.errors import SourceEmpty, UploadNotFound


def folder_of(upload_id: str) -> str:
    """Where the parts are. No job's id begins like this."""
    return f"_uploads/{upload_id}"


def name_of(start: int, size: int, nonce: str) -> str:
    """A part's name. Two that begin at the same place do not overwrite each other: one of them counts."""
    return f"{start:015d}-{size}-{nonce}"


def size_of(part: str) -> int:
    return int(part.split("-")[1])


def pieces(blobs: Blobs, upload_id: str, parts: list[str]) -> Iterator[bytes]:
    """The bytes of an upload, part by part.

    Raises SourceEmpty, UploadNotFound where a part is not there or not whole, and OSError where the store
    fails.
    """
    if not sum(map(size_of, parts)):
        raise SourceEmpty
    for part in parts:
        try:
            data = blobs.get(f"{folder_of(upload_id)}/{part}")
        except FileNotFoundError:
            raise UploadNotFound from None
        if len(data) != size_of(part):
            raise UploadNotFound("a part of the upload is damaged: upload the recording again")
        yield data
