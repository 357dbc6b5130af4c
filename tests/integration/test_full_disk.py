"""A disk without room: what comes in is refused or waits, no part passes for the whole, all recovers."""

import asyncio
import base64
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from starlette.responses import StreamingResponse

from dispatcher.local import Plan, port_of
from dispatcher.problems import Problem
from dispatcher.spooled import spooled
from tasks.blobs import Blobs
from tasks.disk import AHEAD_BYTES, PROMISE, Room, patiently
from tasks.errors import DiskFull, SourceTooLarge
from tasks.settings import Settings
from tests.conftest import Eventually, Receiver, Stack, emptied, fake_settings, stack_of
from tests.disks import fill, small_disk
from tests.downloads import fetch

MIB = 1024**2
SIZE = 16 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", SIZE) as folder:
        yield folder


def test_a_blob_that_does_not_fit_leaves_nothing(disk: Path) -> None:
    blobs = Blobs(f"file://{disk}")
    with pytest.raises(OSError, match="No space left"):
        blobs.put("job/put", bytes(2 * SIZE))
    with pytest.raises(OSError, match="No space left"):
        blobs.write("job/written", [bytes(MIB)] * 20)
    assert [path for path in disk.rglob("*") if path.is_file()] == []
    with pytest.raises(DiskFull):
        blobs.refuse_without_room(SIZE - MIB, 2 * MIB)
    blobs.refuse_without_room(SIZE - 3 * MIB, 2 * MIB)


def test_a_blob_that_does_not_fit_leaves_the_one_before(disk: Path) -> None:
    blobs = Blobs(f"file://{disk}")
    blobs.put("job/name", b"the one before")
    fill(disk, leave=MIB)
    with pytest.raises(OSError, match="No space left"):
        blobs.put("job/name", bytes(2 * MIB))
    with pytest.raises(OSError, match="No space left"):
        blobs.write("job/name", [bytes(MIB)] * 2)
    assert blobs.get("job/name") == b"the one before"
    assert [path.name for path in (disk / "job").iterdir()] == ["name"]


def test_a_download_that_fills_the_disk_says_so(disk: Path, receiver: Receiver, settings: Settings) -> None:
    (receiver.folder / "big.wav").write_bytes(os.urandom(SIZE + MIB))
    with pytest.raises(DiskFull):
        fetch(f"{receiver.url}/big.wav", disk / "talk", settings, lambda *_: None)


def target(disk: Path, name: str) -> Path:
    (disk / "tmp" / name).mkdir(parents=True)
    return disk / "tmp" / name / "source"


def test_room_that_is_promised_is_nobody_elses(disk: Path) -> None:
    one, other = (Room(target(disk, name), MIB) for name in ("one", "other"))
    one.grow(0, 8 * MIB)
    with pytest.raises(DiskFull):
        other.grow(0, 8 * MIB)
    with pytest.raises(DiskFull):
        other.take()
    (disk / "tmp/one/source").write_bytes(bytes(8 * MIB))
    with pytest.raises(DiskFull):
        other.take()
    one.give_up()
    other.take()
    with pytest.raises(SourceTooLarge):
        one.grow(0, SIZE)


def test_a_download_that_ends_meanwhile_is_owed_nothing(tmp_path: Path) -> None:
    room, other, ended = Room(target(tmp_path, "one"), 0), tmp_path / "tmp/other", threading.Event()

    def others() -> None:
        while not ended.is_set():
            other.mkdir()
            (other / PROMISE).write_text("1000")
            shutil.rmtree(other)

    with ThreadPoolExecutor(1) as pool:
        downloading = pool.submit(others)
        try:
            for _ in range(2_000):
                room.give_up()
                room.grow(0, 1000)
        finally:
            ended.set()
    downloading.result()


def test_the_middle_of_a_file_whose_end_came_first_has_its_room(disk: Path) -> None:
    one, other = (Room(target(disk, name), MIB) for name in ("one", "other"))
    one.grow(0, 8 * MIB)
    with (disk / "tmp/one/source").open("wb") as file:
        file.seek(7 * MIB)
        file.write(bytes(MIB))
    with pytest.raises(DiskFull):
        other.grow(0, 8 * MIB)


def test_a_download_of_unknown_length_is_promised_room_ahead_of_it(disk: Path) -> None:
    room = Room(target(disk, "one"), 0)
    # All of a disk this small is less than what a download of unknown length is promised.
    assert AHEAD_BYTES >= SIZE
    with pytest.raises(DiskFull):
        room.grow(1, None)
    with pytest.raises(SourceTooLarge):
        room.grow(SIZE + 1, None)


def test_an_answer_that_does_not_fit_says_so(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    fill(disk, 2 * MIB)
    with pytest.raises(Problem) as caught:
        spooled(["x" * MIB] * 3)
    assert (caught.value.status, caught.value.code) == (503, "disk_full")
    # The room is there again.
    answer = spooled(["x" * MIB, "y"])
    assert answer.headers["Content-Length"] == str(MIB + 1)
    assert isinstance(answer, StreamingResponse)
    assert asyncio.run(body_of(answer)) == b"x" * MIB + b"y"


async def body_of(answer: StreamingResponse) -> bytes:
    return b"".join([bytes(block) async for block in answer.body_iterator if not isinstance(block, str)])


def test_waiting_ends() -> None:
    waits, tries = [], []

    def work() -> None:
        tries.append(1)
        raise DiskFull

    with pytest.raises(DiskFull):
        patiently(work, 0, lambda: waits.append(1))
    assert (len(tries), waits) == (1, [])


@contextmanager
def running(redis_url: str, disk: Path, **changes: Any) -> Iterator[Stack]:
    """A stack that keeps its downloads and blobs on the small disk."""
    settings = fake_settings(
        data_dir=disk,
        attempt_delay_ms=200,
        max_attempts=2,
        disk_reserve_bytes=MIB,
        **changes,
    )
    # Away from the databases of the stack that other tests share.
    plan = Plan(port=port_of("127.0.0.1", 0), workers=1, redis_url=emptied(redis_url, 12))
    with stack_of(settings, plan) as stack:
        yield stack


@pytest.mark.timeout(300)
def test_a_full_disk_is_waited_for(
    redis_url: str, disk: Path, receiver: Receiver, eventually: Eventually
) -> None:
    """Case 30."""
    with running(redis_url, disk) as stack:
        url = f"{stack.machine.url}/v2/longhand"
        job = stack.input(receiver, "waits", 61)
        filler = fill(disk, leave=2 * MIB)
        job_id = stack.client.submit(job)
        eventually(lambda: stack.client.status(job_id)["status"] == "IN_PROGRESS", what="the ingest")
        folder = disk / "tmp"
        eventually(lambda: list(folder.glob(f"{job_id}-*")), what="the download")
        blob = base64.b64encode((receiver.folder / "waits.wav").read_bytes()).decode()
        refused = requests.post(f"{url}/run", json={"input": {"blob": blob}}, timeout=30)
        assert (refused.status_code, refused.json()["code"]) == (503, "disk_full")
        assert refused.headers["Retry-After"]
        refused = requests.post(f"{url}/upload", files={"file": bytes(2 * MIB)}, timeout=30)
        assert (refused.status_code, refused.json()["code"]) == (507, "disk_full")
        assert len(stack.store.jobs(None, 10)) == 1, "nothing was half accepted"
        assert requests.get(f"{url}/stream/{job_id}?wait=100", timeout=30).status_code == 200
        assert stack.store.chunks(job_id) == []
        assert stack.client.status(job_id)["status"] == "IN_PROGRESS", "it waits"
        filler.unlink()
        ended = eventually(lambda: stack.ended(job_id), 90, "the end")
        assert ended["status"] == "COMPLETED"
        assert [path.name for path in folder.iterdir() if path.is_dir()] == []
        assert stack.redis.hget(f"lh:job:{job_id}:leases", "ingest") == b"1", "no attempt was spent"


@pytest.mark.timeout(300)
def test_a_disk_that_stays_full_is_named(
    redis_url: str, disk: Path, receiver: Receiver, eventually: Eventually
) -> None:
    with running(redis_url, disk, disk_wait_ms=0) as stack:
        job = stack.input(receiver, "fails", 61)
        fill(disk, leave=2 * MIB)
        job_id = stack.client.submit(job)
        ended = eventually(lambda: stack.ended(job_id), 90, "the end")
        assert (ended["status"], ended["code"]) == ("FAILED", "disk_full")
        assert [path.name for path in (disk / "tmp").iterdir() if path.is_dir()] == []
