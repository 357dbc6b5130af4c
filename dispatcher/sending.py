"""A file of this machine becomes an upload: in pieces, by tus, resumed after a broken connection."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from requests import RequestException, Response

from dispatcher.client import ApiError, Client

# One request carries so much: what proxies and their limits can do with.
PIECE_BYTES = 64 * 1024**2
BLOCK_BYTES = 256 * 1024
# The wait after the first, second... attempt in a row that sent nothing.
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0)
TUS = {"Tus-Resumable": "1.0.0"}
# The API or a proxy is being started again, or another of our requests has not ended yet.
AGAIN = {409, 423, 429, 502, 503, 504}


class _Piece:
    """What one request sends of a file, told of as it goes."""

    def __init__(self, file: BinaryIO, start: int, size: int, on_bytes: Callable[[int], None]) -> None:
        file.seek(start)
        self._file = file
        self._at, self._end = start, start + size
        self._on_bytes = on_bytes
        self._size = size

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = BLOCK_BYTES) -> bytes:
        data = self._file.read(min(size, BLOCK_BYTES, self._end - self._at))
        self._at += len(data)
        self._on_bytes(self._at)
        return data


def send_file(client: Client, path: Path, on_bytes: Callable[[int], None]) -> str:
    """Upload a file; what a job's input takes as `url`. `on_bytes` learns how much was sent, which may fall.

    Goes on where it was when the connection breaks; raises ApiError where that helps no more.
    """
    length = path.stat().st_size
    try:
        created = _checked(client.request("POST", "upload", headers={**TUS, "Upload-Length": str(length)}))
    except RequestException as error:
        raise client.unreachable() from error
    upload = created.json()
    place = f"upload/{upload['id']}"
    offset, failures = 0, 0
    with path.open("rb") as file:
        while offset < length:
            try:
                piece = _Piece(file, offset, min(PIECE_BYTES, length - offset), on_bytes)
                before, offset = offset, _send(client, place, piece, offset)
            except RequestException as error:
                if failures == len(WAITS_S):
                    raise ApiError(f"the connection broke {failures + 1} times in a row: {error}") from error
                time.sleep(WAITS_S[failures])
                failures += 1
                before, offset = offset, _offset(client, place, offset)
            if offset > before:
                failures = 0
    return str(upload["url"])


def _send(client: Client, place: str, piece: _Piece, offset: int) -> int:
    """One request; the offset after it. Raises RequestException where it is worth another."""
    headers = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
    answer = client.request("PATCH", place, headers=headers, data=piece)
    return int(_checked(answer).headers["Upload-Offset"])


def _offset(client: Client, place: str, known: int) -> int:
    """How far the upload is; as far as it was known where there is no answer."""
    try:
        return int(_checked(client.request("HEAD", place, headers=TUS)).headers["Upload-Offset"])
    except RequestException:
        return known


def _checked(answer: Response) -> Response:
    if answer.status_code in AGAIN:
        raise RequestException(f"status {answer.status_code}")
    if answer.status_code >= 400:
        try:
            detail = answer.json()["detail"]
        except (ValueError, KeyError):
            detail = answer.reason
        raise ApiError(f"{answer.status_code}: {detail}")
    return answer
