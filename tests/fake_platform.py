"""RunPod's side of a worker: hands out jobs, takes what they stream and how they end, tells which to stop.

The paths and bodies are those of runpod-python 1.12: serverless/modules/rp_job.py, rp_http.py and rp_ping.py.
"""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from demo.server import listening

POD = "pod-1"
# How long a question with no answer yet is held; the real platform holds it for much longer.
HOLD_S = 0.5


@dataclass(slots=True)
class FakePlatform:
    """What a worker asked and told. Jobs are dictionaries with `id` and `input`."""

    url: str = ""
    # Seconds that each job-stream answer takes.
    stream_s: float = 0.0
    waiting: list[dict[str, Any]] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    # The raw bodies of job-stream and job-done, by job.
    streamed: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    done: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    pings: list[dict[str, list[str]]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def give(self, job_id: str, job_input: object, **fields: Any) -> None:
        with self.lock:
            self.waiting.append({"id": job_id, "input": job_input, **fields})

    def items(self, job_id: str) -> list[Any]:
        """What /stream would hand out."""
        return [json.loads(body)["output"] for body in self.streamed[job_id]]

    def results(self, job_id: str) -> list[dict[str, Any]]:
        """The ends that were reported; one, unless the job was delivered again."""
        return [json.loads(body) for body in self.done[job_id]]

    def environment(self) -> dict[str, str]:
        """What RunPod sets in a worker's container."""
        base = f"{self.url}/v2/fake"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_AI_API_KEY": "platform-key",
            "RUNPOD_POD_ID": POD,
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }

    def take(self, count: int) -> list[dict[str, Any]]:
        with self.lock:
            taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken

    def take_stops(self) -> list[str]:
        with self.lock:
            taken, self.stops = self.stops, []
        return taken


class _Page(BaseHTTPRequestHandler):
    platform: FakePlatform

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        operation, query = parts.path.split("/")[3], parse_qs(parts.query)
        if operation == "ping":
            self.platform.pings.append(query)
            self._answer({})
        elif operation == "job-stop":
            self._answer({"jobsToStop": self._held(self.platform.take_stops)})
        elif operation in ("job-take", "job-take-batch"):
            count = int(query.get("batch_size", ["1"])[0])
            self.platform.batches.append(count)
            jobs = self._held(lambda: self.platform.take(count))
            self._answer(jobs if operation == "job-take-batch" else next(iter(jobs), None), empty=not jobs)
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        _, _, _, operation, pod, job_id = urlsplit(self.path).path.split("/")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        told = {"job-stream": self.platform.streamed, "job-done": self.platform.done}.get(operation)
        if told is None or pod != POD:
            self.send_error(404)
            return
        told[job_id].append(body)
        if operation == "job-stream":
            time.sleep(self.platform.stream_s)
        self._answer({})

    def _held(self, look: Any) -> Any:
        deadline_s = time.monotonic() + HOLD_S
        while not (found := look()) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        return found

    def _answer(self, body: object, *, empty: bool = False) -> None:
        data = b"" if empty else json.dumps(body).encode()
        self.send_response(204 if empty else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A worker that was killed breaks its connections off."""


@contextmanager
def serving() -> Iterator[FakePlatform]:
    """A platform on a free port of this machine."""
    platform = FakePlatform()
    with listening(type("Page", (_Page,), {"platform": platform}), kind=_Server) as platform.url:
        yield platform
