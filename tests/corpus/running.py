"""The corpus through real processes: everything at once, over HTTP, with what came of each case."""

import contextlib
import http.client
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from dispatcher.local import Machine, Plan, port_of
from tasks.settings import Settings
from tests.corpus.case import Case
from tests.hosts import Request

KEY = "the-corpus-has-a-key"
SECRET = "the corpus has a secret"
# What a case may take on a machine that has other things to do; alone it is a twentieth of that.
LIMIT_S = 240
# Ended jobs must stay readable until somebody has looked; what failed is kept for as long.
RETENTION_S = 30
INGEST_MIB = 400
MAX_RECORDING_MS = 600_000
AT_ONCE = 16
POLL_S = 0.2
DONE = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case: its outcome as in `Case.outcomes`, and all that a client was told."""

    outcome: str
    told: dict[str, Any]
    seconds: float
    warnings: tuple[str, ...] = ()


class Sources:
    """A server of all cases, each at an address of its own: /number/talk.mp3."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases
        self.server = socket.create_server(("127.0.0.1", 0), backlog=100)
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, number: int) -> str:
        return f"http://127.0.0.1:{self.server.getsockname()[1]}/{number}/talk.mp3"

    def close(self) -> None:
        self.server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.server.accept()
                threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection:
            connection.settimeout(60)
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += connection.recv(65536)
            first, *lines = asked.decode("latin-1").strip().split("\r\n")
            path = first.split(" ")[1]
            serve = self.cases[int(path.split("/")[1])].serve
            if serve:
                serve(Request(path, dict(line.split(": ", 1) for line in lines), connection))


def machine_at(folder: Path, redis_url: str, **changes: Any) -> Machine:
    """A machine with the fake engine, whose limits are small and whose patience with itself is not."""
    usual: dict[str, Any] = {
        "data_dir": folder,
        "engine": "tests.fake_engine:FakeEngine",
        "model": "multi",
        "allow_private_addresses": True,
        "api_keys": {KEY: "corpus"},
        "webhook_secret": SECRET,
        "rate_limits": (),
        "max_source_bytes": 16 * 2**20,
        "max_recording_ms": MAX_RECORDING_MS,
        "source_timeout_ms": 4_000,
        "max_source_ms": 8_000,
        "max_attempts": 2,
        "attempt_delay_ms": 100,
        "reap_ms": 200,
        "retention_ms": RETENTION_S * 1000,
        "ingest_memory_bytes": INGEST_MIB * 2**20,
    }
    settings = Settings(**(usual | changes))
    return Machine(settings, Plan(port=port_of("127.0.0.1", 0), workers=2, redis_url=redis_url))


def call(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
    """One request, its path as it is written; the answer's status and JSON object, or text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    with contextlib.closing(connection):
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        # What is no HTTP is answered in plain text by the server below the API.
        is_json = "json" in answer.headers.get("Content-Type", "")
        return answer.status, json.loads(text) if is_json else {"text": text.decode()}


def run_case(case: Case, url: str, port: int, limit_s: float) -> Outcome:
    """Send it and follow its job to the end."""
    case.prepare()
    began_s = time.monotonic()
    status, told = call(port, case.method, f"/v2/longhand/{case.path}", case.body(url) or None)
    if status == 200 and case.path == "run":
        status_path = f"/v2/longhand/status/{told['id']}"
        while told["status"] not in DONE and time.monotonic() < began_s + limit_s:
            time.sleep(POLL_S)
            told = call(port, "GET", status_path)[1]
        found = told.get("code", told["status"].lower())
    else:
        found = f"{status} {told.get('code', '')}".strip()
    return Outcome(found, told, time.monotonic() - began_s, tuple(told.get("warnings", ())))


def run_all(cases: Sequence[Case], port: int, *, limit_s: float = LIMIT_S) -> dict[str, Outcome]:
    """Every case, many at a time."""
    sources = Sources(cases)
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            urls = map(sources.url, range(len(cases)))
            outcomes = pool.map(run_case, cases, urls, repeat(port), repeat(limit_s))
            return dict(zip((case.name for case in cases), outcomes, strict=True))
    finally:
        sources.close()


def processes(machine: Machine) -> dict[int, str]:
    """The machine's processes and their children, by id, with the name of the one at their top."""
    found: dict[int, str] = {}
    for name, pid in machine.pids().items():
        for each in _family(pid):
            found[each] = name
    return found


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in os.listdir(f"/proc/{pid}/task"):
        for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
            yield from _family(int(child))


def peak_mib(pid: int) -> int:
    """The most memory that a process has had resident."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) // 1024 if found else 0
