"""An ingest that a full disk makes begin again: what it has announced stays as it is."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tasks.app import create_app
from tasks.context import Context, build
from tasks.errors import SourceChanged
from tasks.heartbeat import Heartbeat
from tasks.ingest import ingest_recording
from tasks.job import NewJob, Options
from tasks.job import Request as JobRequest
from tasks.leases import INGEST, Lease
from tasks.settings import Settings
from tests.conftest import Eventually, write_recording
from tests.disks import fill, small_disk
from tests.hosts import Host, Request, chunked

# More than what a download of unknown length is promised.
SIZE = 64 * 1024**2
# Of the recording: 40 s in bytes, which give three chunks and no more; and all of it in s, six chunks.
BEGINNING, WHOLE = 40 * 32_000, 61


@pytest.fixture
def context(tmp_path: Path, redis: Redis, settings: Settings) -> Iterator[Context]:
    assert redis.dbsize() == 0
    with small_disk(tmp_path / "disk", SIZE) as disk:
        changes = {"data_dir": disk, "durable_accept": False, "first_chunks_ms": (), "disk_reserve_bytes": 0}
        changed = settings.model_copy(update=changes)
        yield build(changed, create_app(changed))


def blobs_of(context: Context) -> dict[str, tuple[int, int]]:
    """What tells whether a blob was written again, by its name."""
    found = sorted((context.settings.data_dir / "blobs/j").iterdir())
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def ingest(context: Context, url: str) -> None:
    request = JobRequest(url, "multi", Options(language="he"), chunk_ms=10_000)
    assert context.store.create(NewJob("j", "longhand", "us", request, 60_000, 0))
    lease = context.leases.claim("j", INGEST, INGEST)
    assert isinstance(lease, Lease)
    with Heartbeat(context.leases, lease, context.settings) as heartbeat:
        ingest_recording(context, request, "longhand", lease, heartbeat)


@pytest.fixture
def announced(
    context: Context, host: Host, tmp_path: Path, eventually: Eventually
) -> dict[str, tuple[int, int]]:
    """Of a host that is asked twice: the blobs there were when the disk was full."""
    write_recording(tmp_path / "talk.wav", WHOLE)
    data = (tmp_path / "talk.wav").read_bytes()
    seen: dict[str, tuple[int, int]] = {}

    def fills_the_disk(request: Request) -> None:
        chunked(request, data[:BEGINNING], end=b"")
        eventually(lambda: len(context.store.chunks("j")) == 3, what="three chunks in the plan")
        filler = fill(context.settings.data_dir, leave=65_536)
        seen.update(blobs_of(context))
        # It cannot write this, hangs up, and finds room when it comes again.
        with contextlib.suppress(ConnectionError):
            request.connection.sendall(b"%x\r\n%b\r\n" % (len(data[BEGINNING:]), data[BEGINNING:]))
            request.connection.recv(1)
        filler.unlink()

    host.scripts = [fills_the_disk, lambda request: chunked(request, data)]
    return seen


def test_a_chunk_in_the_plan_is_not_stored_again(
    context: Context, host: Host, announced: dict[str, tuple[int, int]]
) -> None:
    ingest(context, host.url)
    assert len(host.requests) == 2
    assert len(announced) == 3
    there = blobs_of(context)
    assert [f"j/{name}" for name in there] == [chunk.blob for chunk in context.store.chunks("j")]
    assert len(there) == 6
    assert announced.items() <= there.items()


def test_another_file_at_the_second_try_is_told(
    context: Context, host: Host, tmp_path: Path, announced: dict[str, tuple[int, int]]
) -> None:
    write_recording(tmp_path / "other.wav", WHOLE - 1)
    other = (tmp_path / "other.wav").read_bytes()
    host.scripts[1] = lambda request: chunked(request, other)
    with pytest.raises(SourceChanged):
        ingest(context, host.url)
    assert announced.items() <= blobs_of(context).items()
