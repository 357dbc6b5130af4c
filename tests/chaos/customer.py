"""A customer of the API: submits a job, reads its stream to the end, asks again later, notes what it saw.

It has all the patience there is: whatever does not answer is asked again, as a careful client would.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from dispatcher.client import TERMINAL, entries_of
from tests.chaos.schedule import Errand, Kind

# A job that takes longer than this, from its last chance to be struck on, is lost.
PATIENCE_S = 150.0
TIMEOUT_S = (2.0, 10.0)
TOO_SLOW_MS = 5_000
BUSY = {429, 500, 502, 503, 504}


@dataclass(slots=True)
class Run:
    """One run of a job as its customer saw it: the entries of its stream, its end, and what was said later.

    `unanswered` counts the reads of the stream that failed: an item may be told again after each.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    unanswered: int = 0
    end: dict[str, Any] = field(default_factory=dict)
    later: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Seen:
    """All of one errand; `problem` says what kept it from its end."""

    errand: Errand
    job_id: str = ""
    runs: list[Run] = field(default_factory=list)
    stream_errors: list[int] = field(default_factory=list)
    problem: str = ""


class NotAnsweredError(Exception):
    """The API gave no answer for as long as a customer waits."""


class Customer(threading.Thread):
    """One errand. `quiet_s()` says since when nothing was struck any more, s, 0 while it goes on."""

    def __init__(
        self, errand: Errand, job_input: dict[str, Any], base: str, quiet_s: Callable[[], float]
    ) -> None:
        super().__init__(daemon=True, name=f"customer {errand.number}")
        self.seen = Seen(errand)
        self._input = job_input
        self._base = base
        self._quiet_s = quiet_s
        self._session = requests.Session()

    def run(self) -> None:
        try:
            self._submit()
            self._see_a_run()
            if self.seen.errand.kind is Kind.RETRY and self.seen.runs[-1].end["status"] == "FAILED":
                self._retry()
                self._see_a_run()
        except NotAnsweredError as error:
            self.seen.problem = str(error)

    def _submit(self) -> None:
        errand = self.seen.errand
        body: dict[str, Any] = {"input": self._input}
        if errand.kind is Kind.SLOW:
            body["policy"] = {"executionTimeout": TOO_SLOW_MS}
        headers = {"Idempotency-Key": f"errand-{errand.number}"}
        self.seen.job_id = self._ask("POST", "run", json=body, headers=headers)["id"]
        if errand.kind is Kind.CANCEL:
            time.sleep(errand.delay_ms / 1000)
            self._ask("POST", f"cancel/{self.seen.job_id}", json={})

    def _see_a_run(self) -> None:
        run = Run()
        self.seen.runs.append(run)
        self._read_stream(run)
        run.end = self._status()
        while run.end["status"] not in TERMINAL:
            # The stream says that it is over only once the job is.
            run.later = run.end
            run.end = self._status()
        time.sleep(2)
        run.later = run.later or self._status()

    def _retry(self) -> None:
        Path(marker_of(self._input)).touch()
        while self._status()["status"] == "FAILED":
            self._ask("POST", f"retry/{self.seen.job_id}", json={}, refusals=(400, 404, 409))

    def _status(self) -> dict[str, Any]:
        return self._ask("GET", f"status/{self.seen.job_id}")

    def _read_stream(self, run: Run) -> None:
        cursor = "0"
        while True:
            query = "" if self.seen.errand.drains else f"?cursor={cursor}"
            page = self._ask("GET", f"stream/{self.seen.job_id}{query}", run=run)
            for item in page["stream"]:
                run.entries += entries_of(item["output"])
            if page["status"] != "IN_PROGRESS":
                return
            cursor = page.get("cursor", cursor)

    def _ask(
        self, method: str, path: str, run: Run | None = None, refusals: tuple[int, ...] = (), **request: Any
    ) -> dict[str, Any]:
        """Ask until there is an answer; of a stream, note every one that is an error."""
        last = ""
        while self._quiet_s() < PATIENCE_S:
            try:
                answer = self._session.request(method, f"{self._base}/{path}", timeout=TIMEOUT_S, **request)
            except requests.RequestException as error:
                last = repr(error)
            else:
                if answer.status_code == 200 or answer.status_code in refusals:
                    return dict(answer.json())
                last = f"{answer.status_code} {answer.text[:200]}"
                if run is not None:
                    self.seen.stream_errors.append(answer.status_code)
                elif answer.status_code not in BUSY:
                    break
            if run is not None:
                run.unanswered += 1
            time.sleep(0.2)
        raise NotAnsweredError(f"{method} {path.split('?', maxsplit=1)[0]}: {last or 'too late'}")


def marker_of(job_input: dict[str, Any]) -> str:
    """The file that the fake engine looks for."""
    return str(job_input["transcribe_args"]["initial_prompt"]).split(":", 2)[2]
