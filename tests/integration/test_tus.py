"""Resumable uploads by a client that is not ours, interruptions, and the end of what nobody wants."""

import functools
import os
import signal
import socket
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from tusclient.client import TusClient
from tusclient.uploader.uploader import Uploader

from dispatcher.local import Machine, Plan
from tasks import context as contexts
from tasks import reaper
from tasks.app import create_app
from tasks.context import Context
from tasks.errors import UploadIncomplete, UploadNotFound
from tasks.parts import folder_of, name_of, pieces
from tasks.settings import Settings
from tasks.uploads import PART_BYTES, OffsetConflict, TooManyParts, Upload
from tests.bench import PAST_MS
from tests.conftest import BUCKET, KEY, Eventually, Receiver, Stack, emptied, write_recording

MIB = 1024**2
HOUR_MS = 3_600_000


class Wire:
    """A connection that begins to send an upload, and breaks off."""

    def __init__(self, url: str, length: int, offset: int = 0) -> None:
        place = urlsplit(url)
        self._socket = socket.create_connection((place.hostname or "", place.port or 0), 20)
        self._socket.sendall(
            f"PATCH {place.path} HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\r\nTus-Resumable: 1.0.0\r\n"
            f"Content-Type: application/offset+octet-stream\r\nUpload-Offset: {offset}\r\n"
            f"Content-Length: {length}\r\n\r\n".encode()
        )

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def close(self) -> None:
        self._socket.close()


def client_of(url: str) -> TusClient:
    return TusClient(f"{url}/v2/longhand/upload", headers={"Authorization": KEY})


def begun(client: TusClient, data: bytes) -> Uploader:
    """An upload of which nothing is sent yet."""
    uploader = client.uploader(file_stream=BytesIO(data), chunk_size=MIB, metadata={"filename": "talk.wav"})
    uploader.set_url(uploader.create_url())
    return uploader


def place_of(uploader: Uploader) -> str:
    """The address of an upload that has begun."""
    assert uploader.url is not None  # tuspy says that it never has one
    return str(uploader.url)


def test_an_interrupted_upload_goes_on(
    stack: Stack, receiver: Receiver, tmp_path: Path, eventually: Eventually
) -> None:
    write_recording(tmp_path / "talk.wav", 121)
    data = (tmp_path / "talk.wav").read_bytes()
    client = client_of(stack.machine.url)
    first = begun(client, data)
    first.upload(stop_at=MIB)
    # Another 2 MiB, and the connection breaks in the middle of a request.
    wire = Wire(place_of(first), len(data) - MIB, MIB)
    wire.send(data[MIB : 3 * MIB])
    wire.close()
    eventually(lambda: first.get_offset() == 3 * MIB, what="what came before the end of the connection")

    again = client.uploader(file_stream=BytesIO(data), url=first.url)
    assert again.offset == 3 * MIB
    again.upload()
    upload_id = place_of(first).rpartition("/")[2]
    uploaded = stack.client.submit({"url": f"longhand-upload:{upload_id}", "chunk_seconds": 30})
    fetched = stack.client.submit({**stack.input(receiver, "tus", 121), "chunk_seconds": 30})
    for job_id in (uploaded, fetched):
        assert eventually(functools.partial(stack.ended, job_id), 60)["status"] == "COMPLETED"
    digests = [[chunk.digest for chunk in stack.store.chunks(job_id)] for job_id in (uploaded, fetched)]
    assert digests[0] == digests[1], "the same recording"


@pytest.fixture(params=["folder", "s3"])
def alone(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[Machine]:
    """An API without workers, its blobs in a folder or in S3."""
    if request.param == "s3":
        request.getfixturevalue("s3")
    settings = Settings(
        data_dir=tmp_path / "data",
        blob_url=BUCKET if request.param == "s3" else "",
        api_keys={KEY: "tests"},
        max_upload_bytes=2**59,
    )
    machine = Machine(settings, Plan(port=0, redis_url=emptied(redis_url, 12), roles=("api",)))
    try:
        machine.start(within_s=60)
        yield machine
    finally:
        machine.stop()


def context_of(settings: Settings) -> Context:
    return contexts.build(settings, create_app(settings))


def test_an_api_that_is_killed_loses_no_upload(alone: Machine, eventually: Eventually) -> None:
    data = os.urandom(3 * PART_BYTES)
    client = client_of(alone.url)
    uploader = begun(client, data)
    wire = Wire(place_of(uploader), len(data))
    wire.send(data[: 2 * PART_BYTES + MIB])
    eventually(lambda: uploader.get_offset() > PART_BYTES, what="the first parts")
    os.kill(alone.pids()["api"], signal.SIGKILL)
    eventually(lambda: "api" not in alone.pids(), what="the end of the API")
    wire.close()

    def again() -> bool:
        alone.tick(lambda _said: None)
        try:
            return requests.get(f"{alone.url}/ping", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    eventually(again, 60, "the next API")
    resumed = client.uploader(file_stream=BytesIO(data), url=uploader.url)
    assert PART_BYTES < resumed.offset < len(data), "what was stored need not be sent again"
    resumed.upload()

    context = context_of(alone.settings)
    upload_id = place_of(uploader).rpartition("/")[2]
    parts = context.uploads.parts(context.uploads.use(f"longhand-upload:{upload_id}", "tests"))
    assert b"".join(pieces(context.blobs, upload_id, parts)) == data
    # As if the API had been killed between a part and its being counted.
    context.blobs.put(f"{folder_of(upload_id)}/{name_of(0, 4, 'nonce')}", b"lost")
    swept(context, upload_id)


def swept(context: Context, upload_id: str) -> None:
    """Let an upload be long past; then nothing of it may be left."""
    client = context.uploads._redis
    assert client.zscore("lh:uploads", upload_id) is not None
    client.zadd("lh:uploads", {upload_id: PAST_MS})
    reaper.tick(context)
    assert client.keys(f"*{upload_id}*") == []
    assert client.zscore("lh:uploads", upload_id) is None
    files = context.blobs._fs
    files.invalidate_cache()
    assert not files.exists(context.blobs._path(folder_of(upload_id)))


@pytest.mark.parametrize("alone", ["folder"], indirect=True)
def test_no_room(alone: Machine) -> None:
    head = {"Authorization": KEY}
    tus = {**head, "Tus-Resumable": "1.0.0", "Upload-Length": str(2**58)}
    answer = requests.post(f"{alone.url}/v2/longhand/upload", headers=tus, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
    form = {**head, "Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(2**58)}
    prepared = requests.Request("POST", f"{alone.url}/v2/longhand/upload", headers=form).prepare()
    prepared.headers.update(form)
    answer = requests.Session().send(prepared, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
    assert context_of(alone.settings).uploads._redis.zcard("lh:uploads") == 0


@pytest.fixture
def context(settings: Settings, redis: object) -> Context:  # noqa: ARG001  emptied
    return context_of(settings.model_copy(update={"upload_retention_ms": HOUR_MS, "durable_accept": False}))


def stored(context: Context, upload: Upload, *parts: bytes) -> None:
    """Bytes of an upload, in the blob store and counted."""
    for number, data in enumerate(parts):
        start = sum(map(len, parts[:number]))
        part = name_of(start, len(data), "n")
        context.blobs.put(f"{folder_of(upload.id)}/{part}", data)
        context.uploads.append(upload, start, part, len(data))


@pytest.mark.parametrize("parts", [(), (b"12",), (b"12", b"345")], ids=["begun", "unfinished", "finished"])
def test_uploads_that_nobody_wants_end(context: Context, parts: tuple[bytes, ...]) -> None:
    upload = context.uploads.create("us", 5)
    stored(context, upload, *parts)
    reaper.tick(context)
    assert context.uploads.find(upload.id, "us").offset == sum(map(len, parts)), "not yet"
    swept(context, upload.id)
    with pytest.raises(UploadNotFound):
        context.uploads.find(upload.id, "us")


def left_ms(context: Context, upload: Upload) -> int:
    """How long an upload is kept yet."""
    return context.uploads.find(upload.id, "us").expires_ms - context.store.now_ms()


def expire_in(context: Context, upload: Upload, ms: int) -> None:
    context.uploads._redis.hset(f"lh:upload:{upload.id}", "expires_ms", context.store.now_ms() + ms)


def test_each_use_of_an_upload_keeps_it(context: Context) -> None:
    upload = context.uploads.create("us", 5)
    expire_in(context, upload, HOUR_MS // 2)
    with pytest.raises(UploadIncomplete):
        context.uploads.use(upload.url, "us")
    assert left_ms(context, upload) <= HOUR_MS // 2
    stored(context, upload, b"12345")
    assert left_ms(context, upload) > HOUR_MS // 2
    expire_in(context, upload, HOUR_MS // 2)
    context.uploads.use(upload.url, "us")
    assert left_ms(context, upload) > HOUR_MS // 2
    context.uploads.use(upload.url, "us", 3 * HOUR_MS)
    assert left_ms(context, upload) > 3 * HOUR_MS, "a job that waits finds it"
    context.uploads.use(upload.url, "us")
    assert left_ms(context, upload) > 2 * HOUR_MS, "and the next one does not take that away"


def test_one_that_has_expired_is_gone_before_it_is_swept(context: Context) -> None:
    upload = context.uploads.create("us", 5)
    stored(context, upload, b"12345")
    expire_in(context, upload, -1)
    for gone in (
        lambda: context.uploads.use(upload.url, "us"),
        lambda: context.uploads.find(upload.id, "us"),
        lambda: context.uploads.append(upload, 5, "p", 0),
        lambda: context.uploads.seal(upload),
    ):
        with pytest.raises(UploadNotFound):
            gone()


def test_a_part_counts_once(context: Context) -> None:
    upload = context.uploads.create("us", 5)
    assert context.uploads.append(upload, 0, "a", 2) == 2
    assert context.uploads.append(upload, 0, "a", 2) == 2, "asked again after an answer that was lost"
    with pytest.raises(OffsetConflict):
        context.uploads.append(upload, 0, "b", 2)
    assert context.uploads.parts(upload.id) == ["a"]


def test_crumbs_do_not_fill_redis(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.uploads.MORE_PARTS", 2)
    upload = context.uploads.create("us", 5)
    context.uploads.append(upload, 0, "a", 1)
    context.uploads.append(upload, 1, "b", 1)
    with pytest.raises(TooManyParts):
        context.uploads.append(upload, 2, "c", 1)


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_a_part_that_is_damaged_is_told(context: Context, damage: str) -> None:
    upload = context.uploads.create("us", 5)
    stored(context, upload, b"12", b"345")
    parts = context.uploads.parts(upload.id)
    name = f"{folder_of(upload.id)}/{parts[1]}"
    if damage == "gone":
        context.blobs.delete(name)
    else:
        context.blobs.put(name, b"3")
    with pytest.raises(UploadNotFound):
        list(pieces(context.blobs, upload.id, parts))
