"""A worker fetches its models before it starts a process, whose start is limited in time, and not in one."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis

from demo.server import listening
from tasks import models
from tasks.presence import Presence
from tasks.roles import worker_name
from tasks.settings import Settings
from tests.conftest import Eventually
from tests.fleet import Host

COMMIT = "0" * 40
REPOSITORY = "owner/slow"
FILES = models.resolve("tiny.en", None, download=False)
LARGE = "model.bin"
# A busy machine is slow.
LONG_S = 60


class Hub:
    """A hub with one model, whose large file comes when `gate` is open; `sent` has what was sent whole."""

    def __init__(self) -> None:
        self.url = ""
        self.gate = threading.Event()
        self.asked: list[str] = []
        self.sent: list[str] = []

    def asks_for(self, name: str) -> bool:
        """Whether somebody has asked for this file."""
        return any(path.endswith(f"/{name}") for path in self.asked)

    def described(self, path: str) -> object:
        """What the API says of the repository, and of its files."""
        if path == f"/api/models/{REPOSITORY}/revision/main":
            return {"id": REPOSITORY, "sha": COMMIT, "siblings": []}
        return [
            {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": f"{number:040}"}
            for number, file in enumerate(sorted(FILES.iterdir()), 1)
        ]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub of the processes that are started meanwhile, which have an empty cache."""
    found = Hub()

    class Page(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(b"", (FILES / Path(self.path).name).stat().st_size)

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            found.asked.append(path)
            name = Path(path).name
            if path.startswith("/api/"):
                self.answer(json.dumps(found.described(path)).encode())
                return
            if name == LARGE:
                found.gate.wait()
            self.answer((FILES / name).read_bytes())
            found.sent.append(name)

        def answer(self, body: bytes, length: int | None = None) -> None:
            self.send_response(200)
            self.send_header("ETag", f'"{Path(self.path).name}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with listening(Page) as found.url:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        yield found
        found.gate.set()


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator[Host]:
    changes = {"model": REPOSITORY, "device": "cpu", "lease_ms": 4_000, "heartbeat_ms": 1_000}
    host = Host("slow", tmp_path / "host", settings.model_copy(update=changes))
    yield host
    host.kill("transcribe")


def test_a_model_is_fetched_before_a_process_starts_and_by_no_process(
    worker: Host, hub: Hub, redis: Redis, eventually: Eventually, tmp_path: Path
) -> None:
    presence = Presence(redis, worker.settings)

    def able() -> list[int]:
        names = presence.able("transcribe")
        return [pid for pid in worker.family("transcribe")[1:] if worker_name(pid) in names]

    worker.start("transcribe")
    others = {file.name for file in FILES.iterdir()} - {LARGE}
    eventually(lambda: set(hub.sent) == others and hub.asks_for(LARGE), LONG_S, "the large file's turn")
    # However long it takes: no process is there whose start could take too long.
    assert worker.family("transcribe") == [worker.pid("transcribe")]
    asked = list(hub.asked)
    hub.gate.set()
    (child,) = eventually(able, LONG_S, "a process that works")
    assert hub.asked == asked, "a process that starts asks the hub for nothing"
    # Nor does one that finds its model gone.
    (tmp_path / "hub").rename(tmp_path / "elsewhere")
    os.kill(child, signal.SIGKILL)
    (line,) = eventually(lambda: worker.said("models_not_loaded"), LONG_S, "a process without its model")
    assert "downloads are off" in line["error"]
    assert hub.asked == asked
