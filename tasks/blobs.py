"""Audio blobs behind fsspec: a folder by default, S3 and others for a cluster without a shared disk."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import fsspec
from botocore.exceptions import BotoCoreError
from fsspec.implementations.local import LocalFileSystem

from tasks.errors import ConfigurationError, DiskFull


@contextlib.contextmanager
def _told_as_os_error() -> Iterator[None]:
    """s3fs lets through what botocore raises before it has an answer: no credentials, no connection."""
    try:
        yield
    except BotoCoreError as error:
        raise OSError(str(error)) from error


class Blobs:
    """Blobs by name, `<job>/<name>` or, of uploads, `_uploads/<upload>/<name>`.

    Methods raise OSError where the store fails.
    """

    def __init__(self, url: str) -> None:
        """Raises ConfigurationError for a URL that names no store."""
        # Only a folder's file system knows the option, and others refuse it.
        options = {"auto_mkdir": True} if url.startswith("file:") else {}
        try:
            self._fs, self._root = fsspec.url_to_fs(url, **options)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(f"LONGHAND_BLOB_URL: {error}") from error

    def put(self, name: str, data: bytes) -> None:
        """Store a blob, in place of what had its name. Where that fails, nothing of it is there."""
        with self._whole(name) as path:
            self._fs.pipe_file(path, data)

    def write(self, name: str, pieces: Iterable[bytes]) -> None:
        """Put a blob piece by piece. Nothing is left of it if that fails, or the pieces raise."""
        with self._whole(name) as path, self._fs.open(path, "wb") as file:
            for piece in pieces:
                file.write(piece)

    @contextlib.contextmanager
    def _whole(self, name: str) -> Iterator[str]:
        """Where to write a blob: who reads it meanwhile finds all of the one before, or none.

        A bucket sees to that itself; in a folder it is written beside its place. What a process that is
        killed leaves there goes with the job's or the upload's other blobs.
        """
        path = self._path(name)
        beside = f"{path}.part" if isinstance(self._fs, LocalFileSystem) else path
        with _told_as_os_error():
            try:
                yield beside
                if beside != path:
                    Path(beside).replace(path)
            except BaseException:
                with contextlib.suppress(OSError, BotoCoreError):
                    self._fs.rm_file(beside)
                raise

    def refuse_without_room(self, size: int, keep: int) -> None:
        """Raise DiskFull where the store is known to have no room for `size` bytes and `keep` more."""
        free = self.free()
        if free is not None and size + keep > free:
            raise DiskFull

    def free(self) -> int | None:
        """Bytes that the store still has room for; None where nobody knows."""
        if not isinstance(self._fs, LocalFileSystem):
            return None
        Path(self._root).mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self._root).free

    @_told_as_os_error()
    def size(self, name: str) -> int:
        return int(self._fs.size(self._path(name)))

    @_told_as_os_error()
    def get(self, name: str) -> bytes:
        return bytes(self._fs.cat_file(self._path(name)))

    @_told_as_os_error()
    def delete(self, name: str) -> None:
        self._fs.rm_file(self._path(name))

    @_told_as_os_error()
    def delete_job(self, job_id: str) -> None:
        """Delete every blob of a job; none is fine."""
        folder = self._path(job_id)
        if self._fs.exists(folder):
            self._fs.rm(folder, recursive=True)

    def check(self) -> None:
        """Write a blob and delete it; raises ConfigurationError where that fails."""
        name = f"check-{uuid.uuid4().hex}"
        try:
            self.put(name, b"")
            self.delete(name)
        except OSError as error:
            raise ConfigurationError(
                f"audio cannot be kept in {self._fs.unstrip_protocol(self._root)} ({error}): "
                f"let user {os.getuid()} write there, or set LONGHAND_BLOB_URL"
            ) from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
