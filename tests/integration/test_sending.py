"""`longhand upload` and `longhand transcribe` of a large file, over a line that breaks."""

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result

from dispatcher import sending
from dispatcher.cli import MAX_FILE, main
from dispatcher.client import ApiError, Client
from dispatcher.sending import send_file
from tests.conftest import KEY, Stack, write_recording

MIB = 1024**2
# Of a recording larger than what is sent along.
SECONDS = 370


class BadLine:
    """A line to a server: each connection is cut once it has carried so many bytes, while there are cuts."""

    def __init__(self, url: str) -> None:
        self._port = urlsplit(url).port or 0
        self.cuts: list[int] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(near)
            thread = threading.Thread(target=self._carry, args=(near,))
            thread.start()
            self._threads.append(thread)

    def _carry(self, near: socket.socket) -> None:
        carried = 0
        with near, socket.create_connection(("127.0.0.1", self._port)) as far, contextlib.suppress(OSError):
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    data = ready.recv(65536)
                    if ready is near:
                        carried += len(data)
                    if self.cuts and carried > self.cuts[0]:
                        self.cuts.pop(0)
                        return
                    if not data:
                        return
                    (far if ready is near else near).sendall(data)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for near in self._open:
            with contextlib.suppress(OSError):
                near.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()


@pytest.fixture
def line(stack: Stack) -> Iterator[BadLine]:
    bad = BadLine(stack.machine.url)
    yield bad
    bad.close()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A recording too large to be sent along."""
    write_recording(tmp_path / "large.wav", SECONDS)
    assert (tmp_path / "large.wav").stat().st_size > MAX_FILE
    return tmp_path / "large.wav"


@pytest.fixture
def longhand(line: BadLine) -> Callable[..., Result]:
    """Runs the command over the line."""
    environment = {"LONGHAND_API_URL": f"{line.url}/v2/longhand", "LONGHAND_API_KEY": KEY}
    return lambda *arguments: CliRunner().invoke(main, arguments, env=environment, catch_exceptions=False)


def stored(stack: Stack, url: str) -> bytes:
    folder = stack.folder / "blobs" / "_uploads" / url.removeprefix("longhand-upload:")
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


def test_a_large_file_is_uploaded_and_transcribed(
    stack: Stack, large: Path, line: BadLine, longhand: Callable[..., Result]
) -> None:
    line.cuts = [3 * MIB]
    done = longhand("transcribe", str(large))
    assert done.exit_code == 0, done.stderr
    assert "uploading" in done.stderr
    assert "transcribing" in done.stderr
    job_id = done.stderr.partition("job ")[2].split()[0]
    job = stack.store.job(job_id)
    assert job
    assert job.request
    assert stored(stack, job.request.url) == large.read_bytes()
    assert job.duration_ms == pytest.approx(1000 * SECONDS, abs=100)
    assert line.cuts == [], "the line did break"


def test_an_upload_goes_on_where_the_line_broke(
    stack: Stack, large: Path, line: BadLine, longhand: Callable[..., Result]
) -> None:
    line.cuts = [2 * MIB, 500, 3 * MIB, 4 * MIB]
    done = longhand("upload", str(large))
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("longhand-upload:")
    assert stored(stack, done.stdout.strip()) == large.read_bytes()
    assert line.cuts == []
    again = longhand("transcribe", done.stdout.strip())
    assert again.exit_code == 0, again.stderr


def test_several_pieces(stack: Stack, large: Path, line: BadLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PIECE_BYTES", 5 * MIB)
    seen: list[int] = []
    url = send_file(Client(f"{line.url}/v2/longhand", KEY), large, seen.append)
    assert stored(stack, url) == large.read_bytes()
    assert seen[-1] == large.stat().st_size


def test_a_line_that_stays_broken_ends_it(
    large: Path, line: BadLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "WAITS_S", (0.0, 0.0))
    client = Client(f"{line.url}/v2/longhand", KEY)

    def cut(_sent: int) -> None:
        line.cuts = [0] * 100

    with pytest.raises(ApiError, match="broke 3 times in a row"):
        send_file(client, large, cut)


def test_a_file_that_is_not_there(longhand: Callable[..., Result], tmp_path: Path) -> None:
    done = longhand("upload", str(tmp_path / "missing.wav"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "there is no file" in done.stderr


def test_what_the_api_refuses_is_told_at_once(line: BadLine, large: Path) -> None:
    with pytest.raises(ApiError, match="401: invalid token"):
        send_file(Client(f"{line.url}/v2/longhand", "wrong"), large, lambda _sent: None)
    with pytest.raises(ApiError, match="no answer of Longhand"):
        send_file(Client("http://127.0.0.1:9/v2/longhand", KEY), large, lambda _sent: None)
