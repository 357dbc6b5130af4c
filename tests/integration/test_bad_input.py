"""What clients send wrong, through the stack: each ends with a stable code, a sentence and a webhook."""

import socket
import threading
import wave
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from redis import Redis

from dispatcher.client import segments_of
from dispatcher.schemas import parse_policy
from dispatcher.submit import Submitter
from tasks.app import Doorbells, create_app
from tasks.blobs import Blobs
from tasks.errors import AddressRefused, InvalidInput
from tasks.job import Status
from tasks.leases import Leases
from tasks.settings import Settings
from tasks.store import Store
from tasks.uploads import Uploads
from tests.conftest import Eventually, Receiver, Stack, write_recording
from tests.downloads import fetch
from tests.hosts import connections, listening, port_of
from tests.positions import write_noise


class Flaky:
    """Serves one recording after a number of error answers, and counts what it was asked."""

    def __init__(self, file: Path, errors: list[int]) -> None:
        self.file = file
        self.errors = errors
        self.asked = 0
        self.url = ""


@pytest.fixture
def flaky(tmp_path: Path) -> Iterator[Flaky]:
    state = Flaky(tmp_path / "flaky.wav", [])

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked += 1
            if state.errors:
                self.send_error(state.errors.pop(0))
                return
            data = state.file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/flaky.wav"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ended(stack: Stack, eventually: Eventually, job_input: object) -> dict[str, Any]:
    """Submit, whatever it is, and wait for the end."""
    job_id = stack.client._call("POST", "run", {"input": job_input})["id"]
    shown: dict[str, Any] = eventually(lambda: stack.ended(job_id), 20, f"the end of {job_id}")
    return shown


def fails(
    stack: Stack, receiver: Receiver, eventually: Eventually, code: str, **fields: Any
) -> dict[str, Any]:
    """The job must fail with this code, in its status and in one `error` webhook."""
    name = f"bad-{code}"
    job_input = {"webhook_url": f"{receiver.url}/hook", "recording_id": name, **fields}
    shown = ended(stack, eventually, job_input)
    assert (shown["status"], shown["code"]) == ("FAILED", code), shown["error"]
    assert isinstance(shown["error"], str)
    # A sentence for a person, with nothing of our inside in it.
    assert len(shown["error"]) > 10
    assert "Traceback" not in shown["error"]
    eventually(lambda: receiver.bodies(name), what="the webhook")
    (body,) = receiver.bodies(name)
    assert (body["status"], body["code"], body["error"]) == ("error", code, shown["error"])
    assert body["job_id"] == shown["id"]
    return shown


@pytest.mark.parametrize("job_input", [{}, [], "https://example.com/a.mp3", 5, None, {"input": {}}])
def test_an_input_that_names_nothing_is_accepted_and_fails(
    stack: Stack, eventually: Eventually, job_input: object
) -> None:
    shown = ended(stack, eventually, job_input)
    expected = "unknown_option" if job_input == {"input": {}} else "invalid_input"
    assert (shown["status"], shown["code"]) == ("FAILED", expected)
    assert isinstance(shown["error"], str)
    stream = stack.client._call("GET", f"stream/{shown['id']}")
    assert (stream["status"], stream["stream"]) == ("COMPLETED", [])


def test_no_recording(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    shown = fails(stack, receiver, eventually, "no_source", model="multi")
    assert "`url`" in shown["error"]


def test_an_option_that_is_not_known(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    arguments = {"url": f"{receiver.url}/a.wav", "beam_sise": 5}
    shown = fails(stack, receiver, eventually, "unknown_option", transcribe_args=arguments)
    assert "transcribe_args.beam_sise" in shown["error"]
    assert "beam_size" in shown["error"]


def test_an_option_that_is_not_supported(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    arguments = {"url": f"{receiver.url}/a.wav", "diarize": True}
    fails(stack, receiver, eventually, "unsupported_option", transcribe_args=arguments)


def test_a_webhook_named_among_the_arguments_hears_of_it(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    contact = {"webhook_url": f"{receiver.url}/hook", "recording_id": "among"}
    ended(stack, eventually, {"transcribe_args": contact})
    eventually(lambda: receiver.statuses("among") == ["error"])


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/a.mp3", "file:///etc/passwd", "talk.mp3", "data:,x"])
def test_schemes(stack: Stack, receiver: Receiver, eventually: Eventually, url: str) -> None:
    fails(stack, receiver, eventually, "unsupported_scheme", url=url)


def test_a_blob_that_is_not_base64(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    fails(stack, receiver, eventually, "invalid_input", blob="not base64!")


def test_a_blob_that_is_not_media(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    fails(stack, receiver, eventually, "not_media", blob="aGVsbG8gaGVsbG8gaGVsbG8=")


def test_a_host_that_nobody_answers_for(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    url = f"http://127.0.0.1:{closed_port()}/secret-path?token=hidden"
    shown = fails(stack, receiver, eventually, "source_unreachable", url=url)
    assert "127.0.0.1" in shown["error"]
    assert "hidden" not in shown["error"]


def test_a_host_name_that_does_not_exist(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    shown = fails(stack, receiver, eventually, "source_unreachable", url="http://nowhere.invalid/a.mp3")
    assert "nowhere.invalid" in shown["error"]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_source_that_refuses(stack: Stack, receiver: Receiver, eventually: Eventually, status: int) -> None:
    shown = fails(stack, receiver, eventually, "source_refused", url=f"{receiver.url}/{status}")
    assert str(status) in shown["error"]


def test_a_source_that_stays_broken_is_tried_again_and_given_up(
    stack: Stack, receiver: Receiver, eventually: Eventually, flaky: Flaky
) -> None:
    flaky.errors = [500] * 100
    shown = fails(stack, receiver, eventually, "source_unavailable", url=flaky.url)
    assert "500" in shown["error"]
    assert flaky.asked == stack.machine.settings.max_attempts


def test_a_source_that_recovers_is_transcribed(stack: Stack, eventually: Eventually, flaky: Flaky) -> None:
    write_recording(flaky.file, 11)
    flaky.errors = [503, 429]
    assert ended(stack, eventually, {"url": flaky.url})["status"] == "COMPLETED"
    assert flaky.asked == 3


@pytest.mark.parametrize("name", ["page.html", "page.mp3"])
def test_a_web_page(stack: Stack, receiver: Receiver, eventually: Eventually, name: str) -> None:
    (receiver.folder / name).write_text("<!doctype html><html><body>Sign in</body></html>")
    shown = fails(stack, receiver, eventually, "not_media", url=f"{receiver.url}/{name}")
    assert "web page" in shown["error"]


def test_an_empty_file(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    (receiver.folder / "empty.wav").touch()
    fails(stack, receiver, eventually, "source_empty", url=f"{receiver.url}/empty.wav")


def test_text_that_is_named_like_audio(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    (receiver.folder / "text.mp3").write_text("To whom it may concern. " * 500)
    fails(stack, receiver, eventually, "not_media", url=f"{receiver.url}/text.mp3")


@pytest.mark.parametrize("name", ["list.m3u8", "list.ffconcat"])
def test_a_playlist(stack: Stack, receiver: Receiver, eventually: Eventually, name: str) -> None:
    with listening() as server:
        url = f"http://127.0.0.1:{port_of(server)}/a.ts"
        hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n"
        written = hls if name.endswith("m3u8") else f"ffconcat version 1.0\nfile '{url}'\n"
        (receiver.folder / name).write_text(written)
        fails(stack, receiver, eventually, "not_media", url=f"{receiver.url}/{name}")
        assert connections(server) == 0


def test_a_film_without_sound(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    with av.open(str(receiver.folder / "silent.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    fails(stack, receiver, eventually, "no_audio_stream", url=f"{receiver.url}/silent.mp4")


def test_a_truncated_recording_is_transcribed_and_says_so(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    write_recording(receiver.folder / "whole.wav", 31)
    data = (receiver.folder / "whole.wav").read_bytes()
    (receiver.folder / "cut.wav").write_bytes(data[: len(data) // 2])
    job_input = {
        "url": f"{receiver.url}/cut.wav",
        "webhook_url": f"{receiver.url}/hook",
        "recording_id": "truncated",
    }
    shown = ended(stack, eventually, job_input)
    assert shown["status"] == "COMPLETED"
    assert 14 < segments_of(shown["output"])[-1]["end"] < 16
    (warning,) = stack.store.job(shown["id"]).warnings  # type: ignore[union-attr]
    assert warning.startswith("truncated")
    eventually(lambda: "completed" in receiver.statuses("truncated"))
    # A client can neither read the job's row nor the worker's log.
    told = receiver.bodies("truncated")[-1]
    assert (shown.get("warnings"), told.get("warnings")) == ([warning], [warning])


def test_damage_that_is_found_in_a_chunk_is_told(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    path = write_noise(receiver.folder / "scratched.m4a", "aac")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    # Ingest decodes its beginning and its end only.
    data[middle : middle + 5_000] = b"\xff" * 5_000
    path.write_bytes(data)
    job_input = {
        "url": f"{receiver.url}/scratched.m4a",
        "webhook_url": f"{receiver.url}/hook",
        "recording_id": "scratched",
    }
    shown = ended(stack, eventually, job_input)
    assert shown["status"] == "COMPLETED"
    assert stack.store.job(shown["id"]).warnings == ()  # type: ignore[union-attr]
    eventually(lambda: "completed" in receiver.statuses("scratched"))
    (warning,) = receiver.bodies("scratched")[-1]["warnings"]
    assert warning.startswith("damaged: ")
    assert shown["warnings"] == [warning]


def test_silence_is_a_success(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    with wave.open(str(receiver.folder / "silence.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * 16_000 * 21))
    job_input = {"url": f"{receiver.url}/silence.wav", "chunk_seconds": 10}
    assert ended(stack, eventually, job_input)["status"] == "COMPLETED"


def test_a_recording_of_no_length_ends(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    write_recording(receiver.folder / "nothing.wav", 0)
    shown = ended(stack, eventually, {"url": f"{receiver.url}/nothing.wav"})
    assert (shown["status"], shown["code"]) == ("FAILED", "not_media")


class Door:
    """The way in, with private addresses refused."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.settings = settings.model_copy(update={"allow_private_addresses": False})
        self.store = Store(redis, self.settings)
        bells = Doorbells(create_app(self.settings), Leases(redis, self.settings))
        self.submitter = Submitter(
            self.settings, self.store, bells, Blobs(self.settings.blobs), Uploads(redis, self.settings)
        )

    def submit(self, job_id: str, job_input: object) -> bool:
        limits = parse_policy(None, self.settings)
        return self.submitter.submit(job_id, job_input, "longhand", "tests", limits)


@pytest.fixture
def door(redis: Redis, settings: Settings) -> Door:
    return Door(redis, settings)


def test_a_private_address_is_refused_at_the_door(door: Door) -> None:
    assert door.submit("private-u1", {"url": f"http://127.0.0.1:{closed_port()}/a.wav"})
    job = door.store.job("private-u1")
    assert job
    assert (job.status, job.code) == (Status.FAILED, "address_refused")
    assert "LONGHAND_ALLOW_PRIVATE_ADDRESSES" in job.error


def test_a_private_address_is_refused_where_it_is_fetched(door: Door, tmp_path: Path) -> None:
    # Its port is one of the web's, so only the look-up tells.
    with pytest.raises(AddressRefused, match=r"127\.0\.0\.1 does not lead to a public address"):
        fetch("http://127.0.0.1:8080/a.wav", tmp_path / "target", door.settings, lambda *_: None)


def test_a_private_webhook_is_never_called(door: Door, redis: Redis) -> None:
    door.submit("hook-u1", {"url": "https://example.com/a", "webhook_url": "http://127.0.0.1:9/hook"})
    job = door.store.job("hook-u1")
    assert job
    assert (job.status, job.code) == (Status.FAILED, "address_refused")
    assert not redis.exists("lh:job:hook-u1:outbox")


@pytest.mark.parametrize("job_id", ["", "a:results", "../x", "x" * 129, "a\x00", "-a", "a b", "a\n"])
def test_an_id_that_cannot_be_one(door: Door, redis: Redis, job_id: str) -> None:
    with pytest.raises(InvalidInput):
        door.submit(job_id, {"url": "https://example.com/a.mp3"})
    assert redis.dbsize() == 0


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ({}, {"url": "https://example.com/a.mp3"}, Status.FAILED),
        ({"url": "https://example.com/a.mp3"}, {}, Status.QUEUED),
    ],
)
def test_a_second_job_of_an_id_changes_nothing(
    door: Door, first: object, second: object, status: Status
) -> None:
    assert door.submit("twice-u1", first)
    before = door.store.job("twice-u1")
    assert not door.submit("twice-u1", second)
    assert door.store.job("twice-u1") == before
    assert before
    assert before.status is status


def test_a_second_delivery_of_an_ended_job_stores_no_audio(door: Door) -> None:
    assert door.submit("again-u1", {"blob": "UklGRg=="})
    stored = door.settings.data_path / "blobs" / "again-u1"
    assert (stored / "source").read_bytes() == b"RIFF"
    job = door.store.job("again-u1")
    assert job
    door.submitter.cancel(job)
    Blobs(door.settings.blobs).delete_job("again-u1")  # as the reaper does
    assert not door.submit("again-u1", {"blob": "UklGRg=="})
    # Nobody would ever delete it.
    assert not stored.exists()
