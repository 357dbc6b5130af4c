"""Blob stores: a folder, and a real S3 server."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from dispatcher.client import Client
from dispatcher.local import Machine, Plan
from tasks.blobs import Blobs
from tasks.errors import ConfigurationError, InvalidInput
from tasks.settings import Settings
from tests.conftest import BUCKET, Eventually, Receiver, emptied, write_recording


@pytest.fixture(params=["folder", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "folder":
        return Blobs(f"file://{tmp_path}/store")
    request.getfixturevalue("s3")
    return Blobs(BUCKET)


def test_what_is_put_is_there_until_it_is_deleted(blobs: Blobs) -> None:
    blobs.check()
    blobs.put("j/a", b"one")
    blobs.put("j/b", b"two")
    blobs.put("k/a", b"three")
    assert blobs.get("j/a") == b"one"
    blobs.delete("j/a")
    with pytest.raises(OSError, match="j/a"):
        blobs.get("j/a")
    blobs.delete_job("j")
    blobs.delete_job("j")
    with pytest.raises(OSError, match="j/b"):
        blobs.get("j/b")
    assert blobs.get("k/a") == b"three"


def test_a_blob_is_never_there_in_part(tmp_path: Path) -> None:
    blobs = Blobs(f"file://{tmp_path}/store")

    def pieces(*, expected: bytes | None) -> Iterator[bytes]:
        for piece in (bytes(100_000), b"end"):
            yield piece
            if expected is None:
                with pytest.raises(FileNotFoundError):
                    blobs.get("j/a")
            else:
                assert blobs.get("j/a") == expected

    blobs.write("j/a", pieces(expected=None))
    blobs.write("j/a", pieces(expected=bytes(100_000) + b"end"))
    with pytest.raises(InvalidInput):
        blobs.write("j/a", broken())
    assert blobs.get("j/a") == bytes(100_000) + b"end"
    assert [path.name for path in (tmp_path / "store/j").iterdir()] == ["a"]


def broken() -> Iterator[bytes]:
    yield bytes(100_000)
    raise InvalidInput


def test_a_part_that_a_killed_process_left_goes_with_the_job(tmp_path: Path) -> None:
    killing = "import os, signal\nfrom tasks.blobs import Blobs\n"
    killing += f"blobs = Blobs('file://{tmp_path}/store')\n"
    killing += "blobs.write('j/a', (os.kill(os.getpid(), signal.SIGKILL) for _ in '1'))"
    assert subprocess.run([sys.executable, "-c", killing], check=False, timeout=60).returncode == -9
    assert [path.name for path in (tmp_path / "store/j").iterdir()] == ["a.part"]
    Blobs(f"file://{tmp_path}/store").delete_job("j")
    assert list((tmp_path / "store").iterdir()) == []


def test_the_check_leaves_nothing(tmp_path: Path) -> None:
    Blobs(f"file://{tmp_path}/store").check()
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize("url", ["nosuch://store", "abfs://needs-a-package/x"])
def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="LONGHAND_BLOB_URL"):
        Blobs(url)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file is in the way")
    with pytest.raises(ConfigurationError, match=rf"{tmp_path}/store.*let user \d+ write there"):
        Blobs(f"file://{tmp_path}/store").check()


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_none_is_told() -> None:
    with pytest.raises(ConfigurationError, match="s3://other-bucket/x"):
        Blobs("s3://other-bucket/x").check()


@pytest.mark.usefixtures("s3")
def test_a_job_whose_audio_is_in_s3(
    redis_url: str, receiver: Receiver, tmp_path: Path, eventually: Eventually
) -> None:
    settings = Settings(
        data_dir=tmp_path / "data",
        blob_url=BUCKET,
        engine="tests.fake_engine:FakeEngine",
        allow_private_addresses=True,
    )
    # Databases of its own.
    machine = Machine(settings, Plan(port=0, redis_url=emptied(redis_url, 14)))
    write_recording(receiver.folder / "talk.wav", 31)
    blobs = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    try:
        machine.start(within_s=60)
        client = Client(f"{machine.url}/v2/longhand")
        arguments = {"initial_prompt": "slow:100"}
        job_id = client.submit(
            {"url": f"{receiver.url}/talk.wav", "chunk_seconds": 10, "transcribe_args": arguments}
        )
        eventually(lambda: blobs.find(f"{BUCKET}/{job_id}"), what="a chunk in the bucket")
        eventually(lambda: client.status(job_id)["status"] == "COMPLETED", 40, "the end of the job")
        eventually(lambda: not blobs.find(f"{BUCKET}/{job_id}"), what="the end of its audio")
    finally:
        machine.stop()


@pytest.mark.usefixtures("s3")
def test_an_s3_without_credentials_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    # Else the machine's own files and metadata service are asked.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    with pytest.raises(ConfigurationError, match="credentials"):
        Blobs(BUCKET).check()
