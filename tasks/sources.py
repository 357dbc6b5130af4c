"""Where a recording comes from: the network, the blob store, or an upload; each fills a file alike."""

from collections.abc import Callable
from functools import partial

from tasks.arrivals import Arrivals
from tasks.context import Context
from tasks.disk import Room, told_as_full
from tasks.fetch import Download
from tasks.job import BLOB_SCHEME, UPLOAD_SCHEME
from tasks.parts import pieces, size_of

Work = Callable[[], object]


def bringers(
    context: Context, url: str, endpoint: str, into: Arrivals, room: Room
) -> tuple[Work, Callable[[int], None] | None]:
    """What brings the recording in, as `room` has room for it, and what brings its end before its middle.

    They raise the errors of Download and pieces(), OSError where the blob store fails, and DiskFull.
    """

    def on_bytes(done: int, total: int | None) -> None:
        into.sign_of_life()
        room.grow(done, total)

    if url.startswith(BLOB_SCHEME):
        return partial(_blob, context, url.removeprefix(BLOB_SCHEME), into, room), None
    if url.startswith(UPLOAD_SCHEME):
        return partial(_upload, context, url, into, room), None
    download = Download(url, into, context.settings, on_bytes, endpoint=endpoint)
    return partial(_complete, download.run, into), download.fetch_tail


def _complete(bring: Work, into: Arrivals) -> None:
    bring()
    into.complete()


def _blob(context: Context, name: str, into: Arrivals, room: Room) -> None:
    room.grow(0, context.blobs.size(name))
    # A blob came in one request, which has a limit.
    into.put(0, context.blobs.get(name))
    into.complete()


def _upload(context: Context, url: str, into: Arrivals, room: Room) -> None:
    upload_id = context.uploads.use(url)
    parts = context.uploads.parts(upload_id)
    total = sum(map(size_of, parts))
    room.grow(0, total)
    into.expect(total)
    with told_as_full():
        for piece in pieces(context.blobs, upload_id, parts):
            into.put(into.front, piece)
    into.complete()
