"""A small client of the HTTP API, for the command line and the demo."""

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tasks.errors import LonghandError
from tasks.transcript import Segment, Transcript, Word

TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})


class ApiError(LonghandError):
    """The API answered with an error."""

    code = "api_error"


class Client:
    """One endpoint of an API: `base` is like http://127.0.0.1:8000/v2/longhand. Methods raise ApiError."""

    def __init__(self, base: str, key: str = "") -> None:
        self._base = base.rstrip("/")
        self._session = requests.Session()
        # Reading goes on when the API is started again meanwhile; submitting twice would make two jobs.
        again = Retry(total=7, backoff_factor=0.2, allowed_methods=["GET"], status_forcelist=[502, 503])
        self._session.mount("http", HTTPAdapter(max_retries=again))
        self._session.headers["Authorization"] = f"Bearer {key}"

    def submit(self, job_input: dict[str, Any], **fields: Any) -> str:
        """Submit a job and return its id; `fields` are /run's others, such as `policy`."""
        return str(self._call("POST", "run", {"input": job_input, **fields})["id"])

    def status(self, job_id: str) -> dict[str, Any]:
        return self._call("GET", f"status/{quote(job_id, safe='')}")

    def cancel(self, job_id: str) -> dict[str, Any]:
        return self._call("POST", f"cancel/{quote(job_id, safe='')}", {})

    def jobs(self, limit: int = 50) -> list[dict[str, Any]]:
        return list(self._call("GET", f"jobs?limit={limit}")["jobs"])

    def webhooks(self, state: str = "", job_id: str = "", limit: int = 50) -> list[dict[str, Any]]:
        query = urlencode({"state": state, "job": job_id, "limit": limit})
        return list(self._call("GET", f"webhooks?{query}")["webhooks"])

    def webhook(self, webhook_id: str) -> dict[str, Any]:
        return self._call("GET", f"webhooks/{quote(webhook_id, safe='')}")

    def redeliver(self, webhook_id: str) -> dict[str, Any]:
        return self._call("POST", f"webhooks/{quote(webhook_id, safe='')}/redeliver", {})

    def test_webhook(self, url: str) -> dict[str, Any]:
        return self._call("POST", "webhook-test", {"url": url})

    def health(self) -> dict[str, Any]:
        return self._call("GET", "health")

    def progress(self, job_id: str) -> Iterator[float]:
        """The transcribed share of a job's audio, never falling, about twice a second until it has ended."""
        share = 0.0
        while (shown := self.status(job_id))["status"] not in TERMINAL:
            for entry in shown.get("output", []):
                share = max(share, entry["data"]["step_fraction"])
            yield share
            time.sleep(0.5)

    def entries(self, job_id: str) -> Iterator[dict[str, Any]]:
        """The typed entries of a job's stream as they come, until the job has ended."""
        cursor = "0"
        while True:
            page = self._call("GET", f"stream/{quote(job_id, safe='')}?cursor={cursor}")
            for item in page["stream"]:
                yield from entries_of(item["output"])
            if page["status"] != "IN_PROGRESS":
                return
            cursor = page.get("cursor", cursor)

    def request(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """One request as `requests` makes it, whatever the answer. Raises requests.RequestException."""
        return self._session.request(method, f"{self._base}/{path}", timeout=(5, 120), **kwargs)

    def unreachable(self) -> ApiError:
        return ApiError(
            f"no answer of Longhand at {self._base}: start it with `longhand up`, or set LONGHAND_API_URL"
        )

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = self.request(method, path, json=body)
            content = answer.json()
        except requests.RequestException as error:
            raise self.unreachable() from error
        if answer.status_code != 200:
            raise ApiError(f"{answer.status_code}: {content.get('detail', content)}")
        return dict(content)


def entries_of(item: Any) -> list[dict[str, Any]]:
    """The entries of one stream item: a list of them, or the one of `streaming: false`."""
    return list(item) if isinstance(item, list) else [item]


def segments_of(output: list[Any]) -> list[dict[str, Any]]:
    """The wire segments of a COMPLETED job's `output`, in either form."""
    found: list[dict[str, Any]] = []
    for entry in (entry for item in output for entry in entries_of(item)):
        if "type" not in entry and "text" in entry:  # the older dialect: the segments themselves
            found.append(entry)
        if entry.get("type") == "segments":
            found += entry["data"]
        for group in entry.get("result", []):
            found += group
    return found


def transcript_of(shown: dict[str, Any]) -> Transcript:
    """The status object of a COMPLETED job as a transcript."""
    wire = segments_of(shown["output"])
    segments = tuple(
        Segment(
            item["text"],
            _ms(item["start"]),
            _ms(item["end"]),
            tuple(
                Word(word["word"], _ms(word["start"]), _ms(word["end"]), word["probability"])
                for word in item.get("words", [])
            ),
            item.get("extra_data", {}).get("language", ""),
        )
        for item in wire
    )
    warnings = tuple(shown.get("warnings", ()))
    return Transcript(segments, _ms(shown["duration"]), shown["language"], warnings)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
