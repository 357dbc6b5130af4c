"""A small web server of the demo: serves one recording and receives webhooks."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

from tasks.events import verify_seed


@dataclass(frozen=True, slots=True)
class Received:
    """One webhook as it came; `verified` by both signatures."""

    payload: dict[str, Any]
    verified: bool


@dataclass(slots=True)
class Site:
    """What the server holds: the recording, and the webhooks received so far."""

    secret: str
    recording: Path | None
    url: str = ""
    received: list[Received] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait_for_last(self, timeout_s: float) -> bool:
        """Whether a webhook that ends the job has come."""

        def over() -> bool:
            return any(hook.payload["status"] != "transcribing" for hook in self.received)

        with self.changed:
            return self.changed.wait_for(over, timeout_s)


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    """Serve on a free port of loopback; `site.url` says where."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if site.recording is None:
                self.send_error(404)
                return
            data = site.recording.read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "audio/ogg")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook = Received(json.loads(body), verified(site.secret, body, dict(self.headers.items())))
            with site.changed:
                site.received.append(hook)
                site.changed.notify_all()
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """The demo prints webhooks itself."""

    with listening(Page) as site.url:
        yield site


@contextmanager
def listening(
    page: type[BaseHTTPRequestHandler],
    address: str = "127.0.0.1",
    *,
    kind: type[ThreadingHTTPServer] = ThreadingHTTPServer,
) -> Iterator[str]:
    """Answer requests in threads on a free port; the server's URL, without a path."""
    server = kind((address, 0), page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://{address}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def verified(secret: str, body: bytes, headers: dict[str, str]) -> bool:
    """Check a webhook as a receiver should, by the seed's signature and by Standard Webhooks' library."""
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        Webhook(secret.encode()).verify(body, lower)
    except (WebhookVerificationError, ValueError):
        return False
    return verify_seed(secret, body, lower.get("x-webhook-signature", ""))
