"""Uploads over HTTP: a form or tus, what is refused, whose they are, and jobs that name them."""

import functools
import uuid
from typing import Any

import pytest
import requests

from dispatcher.multipart import OVERHEAD_BYTES
from tasks.settings import Settings
from tasks.uploads import PART_BYTES
from tests.conftest import KEY, OTHERS_KEY, Eventually, Receiver, Stack, write_recording

MINE, OTHERS = {"Authorization": KEY}, {"Authorization": OTHERS_KEY}
TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {"Content-Type": "application/offset+octet-stream"}
LIMIT = Settings().upload_limit


class Uploading:
    """The upload operation of an API."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.url = f"{stack.machine.url}/v2/longhand/upload"

    def __call__(self, method: str, path: str = "", **kwargs: Any) -> requests.Response:
        kwargs["headers"] = {**MINE, **kwargs.get("headers", {})}
        answer = requests.request(method, self.url + path, timeout=60, **kwargs)
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        return answer

    def create(self, length: int | str, **headers: str) -> requests.Response:
        return self("POST", headers={**TUS, "Upload-Length": str(length), **headers})

    def created(self, length: int) -> str:
        """The id of a new upload."""
        answer = self.create(length)
        assert answer.status_code == 201
        return str(answer.json()["id"])

    def patch(self, upload_id: str, offset: int, data: Any, **headers: str) -> requests.Response:
        fields = {**TUS, **BYTES, "Upload-Offset": str(offset), **headers}
        return self("PATCH", f"/{upload_id}", data=data, headers=fields)

    def offset(self, upload_id: str) -> int:
        return int(self("HEAD", f"/{upload_id}", headers=TUS).headers["Upload-Offset"])

    def rows(self) -> set[bytes]:
        return set(self.stack.redis.zrange("lh:uploads", 0, -1))  # type: ignore[arg-type]

    def stored(self, upload_id: str) -> list[str]:
        """What is in the blob store of it."""
        return sorted(file.name for file in (self.stack.folder / "blobs" / "_uploads" / upload_id).glob("*"))


@pytest.fixture
def uploading(stack: Stack) -> Uploading:
    return Uploading(stack)


@pytest.fixture
def wav(receiver: Receiver) -> bytes:
    """A recording of 31 seconds, a megabyte."""
    write_recording(receiver.folder / "talk.wav", 31)
    return (receiver.folder / "talk.wav").read_bytes()


def job(url: str, **fields: Any) -> dict[str, Any]:
    return {"url": url, "chunk_seconds": 10, **fields}


def test_a_form_is_an_upload_that_any_number_of_jobs_may_name(
    uploading: Uploading, wav: bytes, stack: Stack, eventually: Eventually
) -> None:
    answer = uploading("POST", files={"file": ("talk.wav", wav)})
    assert answer.status_code == 200
    shown = answer.json()
    assert shown["url"] == f"longhand-upload:{shown['id']}"
    assert (shown["bytes"], shown["offset"]) == (len(wav), len(wav))
    assert shown["expires"].endswith("Z")
    assert uploading("GET", f"/{shown['id']}").json() == shown
    texts = []
    for _ in range(2):
        job_id = stack.client.submit(job(shown["url"]))
        assert eventually(functools.partial(stack.ended, job_id))["status"] == "COMPLETED"
        texts.append([segment.text for result in stack.store.results(job_id) for segment in result.segments])
    assert texts[0] == texts[1]
    assert len(texts[0]) == 12
    assert (
        b"".join(
            (stack.folder / "blobs" / "_uploads" / shown["id"] / name).read_bytes()
            for name in uploading.stored(shown["id"])
        )
        == wav
    ), "jobs leave it as it is"


def test_a_batch_may_name_uploads(
    uploading: Uploading, wav: bytes, stack: Stack, eventually: Eventually
) -> None:
    urls = [uploading("POST", files={"file": wav}).json()["url"] for _ in range(2)]
    job_id = stack.client.submit({"url": urls, "chunk_seconds": 10})
    assert eventually(lambda: stack.ended(job_id))["status"] == "COMPLETED"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PATCH"])
def test_an_upload_is_found_by_its_account_alone(uploading: Uploading, method: str) -> None:
    mine = uploading.created(10)
    fields = {**TUS, **BYTES, "Upload-Offset": "0"}
    for upload_id, headers in ((mine, OTHERS), (uuid.uuid4().hex, MINE)):
        answer = uploading(method, f"/{upload_id}", headers={**fields, **headers}, data=b"x")
        assert answer.status_code == 404
        assert method == "HEAD" or answer.json()["code"] == "upload_not_found"
    assert uploading.offset(mine) == 0


def test_anothers_upload_is_not_found_by_a_job(uploading: Uploading, wav: bytes, stack: Stack) -> None:
    url = uploading("POST", files={"file": wav}).json()["url"]
    base, headers = f"{stack.machine.url}/v2/longhand", OTHERS
    answer = requests.post(f"{base}/run", json={"input": job(url)}, headers=headers, timeout=10)
    shown = requests.get(f"{base}/status/{answer.json()['id']}", headers=headers, timeout=10).json()
    assert (shown["status"], shown["code"]) == ("FAILED", "upload_not_found")


def test_an_upload_that_is_not_complete_is_told(uploading: Uploading, stack: Stack) -> None:
    upload_id = uploading.created(10)
    assert uploading.patch(upload_id, 0, b"12345").headers["Upload-Offset"] == "5"
    shown = stack.client.status(stack.client.submit(job(f"longhand-upload:{upload_id}")))
    assert (shown["status"], shown["code"]) == ("FAILED", "upload_incomplete")


@pytest.mark.parametrize("url", ["longhand-upload:", "longhand-upload:../x", "longhand-upload:" + "A" * 32])
def test_a_url_that_could_name_no_upload(stack: Stack, url: str) -> None:
    shown = stack.client.status(stack.client.submit(job(url)))
    assert (shown["status"], shown["code"]) == ("FAILED", "invalid_input")


def test_an_empty_upload_is_an_empty_source(
    uploading: Uploading, stack: Stack, eventually: Eventually
) -> None:
    job_id = stack.client.submit(job(f"longhand-upload:{uploading.created(0)}"))
    shown = eventually(lambda: stack.ended(job_id))
    assert (shown["status"], shown["code"]) == ("FAILED", "source_empty")


def test_what_there_is_of_tus(uploading: Uploading) -> None:
    answer = uploading("OPTIONS")
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert answer.headers["Tus-Extension"] == "creation,creation-with-upload,expiration"
    assert answer.headers["Tus-Max-Size"] == str(LIMIT)


def test_offsets(uploading: Uploading) -> None:
    created = uploading.create(10, **{"Upload-Metadata": "filename dGFsaw=="})
    upload_id = created.json()["id"]
    assert created.headers["Location"] == f"/v2/longhand/upload/{upload_id}"
    assert created.headers["Upload-Expires"].endswith("GMT")
    assert uploading.patch(upload_id, 0, b"12345").status_code == 204
    conflict = uploading.patch(upload_id, 0, b"12345")
    assert (conflict.status_code, conflict.json()["code"]) == (409, "offset_conflict")
    head = uploading("HEAD", f"/{upload_id}", headers=TUS)
    assert head.headers["Upload-Length"] == "10"
    assert head.headers["Upload-Metadata"] == "filename dGFsaw=="
    assert head.headers["Cache-Control"] == "no-store"
    override = {"X-HTTP-Method-Override": "PATCH", **TUS, **BYTES, "Upload-Offset": "5"}
    last = uploading("POST", f"/{upload_id}", data=b"67890", headers=override)
    assert (last.status_code, last.headers["Upload-Offset"]) == (204, "10")
    assert uploading.patch(upload_id, 10, b"").status_code == 204
    assert len(uploading.stored(upload_id)) == 2


def test_bytes_may_come_with_the_creation(uploading: Uploading) -> None:
    headers = {**TUS, **BYTES, "Upload-Length": "5"}
    answer = uploading("POST", data=b"12345", headers=headers)
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, "5")


def refused(answer: requests.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize("upload_id", ["x", "A" * 32, "a" * 33, "*", "%00", "%D7%A9", "a" * 32 + "%0A"])
def test_an_odd_id_is_not_found(uploading: Uploading, upload_id: str) -> None:
    assert uploading("GET", f"/{upload_id}").status_code == 404
    assert uploading.patch(upload_id, 0, b"").status_code == 404


def test_an_upload_that_is_too_large_leaves_nothing(uploading: Uploading) -> None:
    before = uploading.rows()
    refused(uploading.create(LIMIT + 1), 413, "too_large")
    length = {
        "Content-Length": str(LIMIT + 2 * OVERHEAD_BYTES),
        "Content-Type": "multipart/form-data; boundary=x",
    }
    session = requests.Session()
    prepared = requests.Request("POST", uploading.url, headers={**MINE, **length}).prepare()
    prepared.headers.update(length)
    refused(session.send(prepared, timeout=10), 413, "too_large")
    assert uploading.rows() == before


def test_more_bytes_than_were_announced_do_not_count(uploading: Uploading) -> None:
    upload_id = uploading.created(5)
    refused(uploading.patch(upload_id, 0, b"123456"), 413, "too_large")
    refused(uploading.patch(upload_id, 0, iter([b"123", b"456"])), 413, "too_large")
    assert (uploading.offset(upload_id), uploading.stored(upload_id)) == (0, [])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"Tus-Resumable": "0.2.2", "Upload-Length": "5"}, 412),
        (TUS, 400),
        ({**TUS, "Upload-Length": "-5"}, 400),
        ({**TUS, "Upload-Length": "٥"}, 400),
        ({**TUS, "Upload-Length": "1" * 30}, 400),
        ({**TUS, "Upload-Defer-Length": "1"}, 400),
        ({**TUS, "Upload-Length": "5", "Upload-Metadata": "x" * 5000}, 400),
    ],
    ids=str.split("none version no-length negative arabic huge deferred metadata"),
)
def test_creations_that_are_refused(uploading: Uploading, headers: dict[str, str], status: int) -> None:
    before = uploading.rows()
    encoded = {name: value.encode() for name, value in headers.items()}
    assert uploading("POST", headers=encoded).status_code == status
    assert uploading.rows() == before


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412),
        ({"Content-Type": "audio/wav"}, 415),
        ({"Upload-Offset": "x"}, 400),
        ({"Upload-Offset": "3"}, 409),
    ],
)
def test_continuations_that_are_refused(uploading: Uploading, change: dict[str, str], status: int) -> None:
    upload_id = uploading.created(5)
    assert uploading.patch(upload_id, 0, b"12345", **change).status_code == status
    assert uploading.offset(upload_id) == 0
    assert uploading("POST", f"/{upload_id}", headers=TUS).status_code == 405


FILE = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n'
END = b"--x--\r\n"
OTHER = FILE.replace(b"file", b"other")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (FILE, "multipart/form-data; boundary=x"),
        (END, "multipart/form-data; boundary=x"),
        (b"", "multipart/form-data; boundary=x"),
        (b"nonsense", "multipart/form-data; boundary=x"),
        (OTHER + END, "multipart/form-data; boundary=x"),
        (FILE + FILE + END, "multipart/form-data; boundary=x"),
        (FILE + END, "multipart/form-data"),
        (FILE + END, "multipart/form-data; boundary=" + "x" * 300),
        (FILE + END + 200_000 * b"x", "multipart/form-data; boundary=x"),
        (b"--x\r\nX: " + 200_000 * b"x" + b"\r\n\r\nabc\r\n" + END, "multipart/form-data; boundary=x"),
    ],
    ids=str.split("cut no-part empty nonsense other twice no-boundary boundary epilogue header"),
)
def test_forms_that_are_refused_leave_nothing(uploading: Uploading, body: bytes, kind: str) -> None:
    before = uploading.rows()
    answer = uploading("POST", data=body, headers={"Content-Type": kind})
    refused(answer, 400, "invalid_input")
    for upload_id in uploading.rows() - before:
        assert uploading("GET", f"/{upload_id.decode()}").status_code == 404
        assert not uploading.stored(upload_id.decode())


def test_a_form_of_several_parts_in_bounded_memory(uploading: Uploading) -> None:
    data = bytes(range(256)) * (5 * PART_BYTES // 512)
    shown = uploading("POST", files={"file": data}).json()
    names = uploading.stored(shown["id"])
    assert len(names) >= 2
    assert max(int(name.split("-")[1]) for name in names) < PART_BYTES + 1024**2
    folder = uploading.stack.folder / "blobs" / "_uploads" / shown["id"]
    assert b"".join((folder / name).read_bytes() for name in names) == data
