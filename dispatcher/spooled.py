"""Answers whose memory does not grow with their length: a transcript of ten hours is 8 MB of JSON."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

from starlette.responses import Response, StreamingResponse

from dispatcher.problems import Problem
from tasks.disk import told_as_full
from tasks.errors import DiskFull

# What is longer waits in a file without a name.
MEMORY_BYTES = 1024**2
BLOCK_BYTES = 64 * 1024


def spooled(pieces: Iterable[str]) -> Response:
    """JSON in pieces as one answer, of which nothing is sent before all of it is there.

    Raises what `pieces` raise, and Problem disk_full.
    """
    with contextlib.ExitStack() as closing:
        file = closing.enter_context(tempfile.SpooledTemporaryFile(MEMORY_BYTES))
        try:
            with told_as_full():
                # Not writelines(), which keeps all of it in memory before it looks at the size.
                for piece in pieces:
                    file.write(piece.encode())
        except DiskFull:
            detail = "there is no room for this answer: ask for it again later"
            raise Problem(503, detail, "disk_full") from None
        size = file.tell()
        file.seek(0)
        if size <= MEMORY_BYTES:
            return Response(file.read(), media_type="application/json")
        closing.pop_all()
    headers = {"Content-Length": str(size)}
    return StreamingResponse(_blocks(file), headers=headers, media_type="application/json")


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while block := file.read(BLOCK_BYTES):
            yield block
