"""Audio blobs behind fsspec: a folder by default, S3 and others for a cluster without a shared disk."""

from pathlib import Path

import fsspec


class Blobs:
    """Blobs by name, `<job>/<name>`. Methods raise OSError where the store fails."""

    def __init__(self, url: str) -> None:
        self._fs, self._root = fsspec.url_to_fs(url, auto_mkdir=True)

    def put(self, name: str, data: bytes) -> None:
        self._fs.pipe_file(self._path(name), data)

    def get(self, name: str) -> bytes:
        return bytes(self._fs.cat_file(self._path(name)))

    def download(self, name: str, target: Path) -> None:
        self._fs.get_file(self._path(name), str(target))

    def delete(self, name: str) -> None:
        self._fs.rm_file(self._path(name))

    def delete_job(self, job_id: str) -> None:
        """Delete every blob of a job; none is fine."""
        folder = self._path(job_id)
        if self._fs.exists(folder):
            self._fs.rm(folder, recursive=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
