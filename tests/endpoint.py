"""One endpoint of the HTTP API, spoken to with plain requests."""

from collections.abc import Iterator
from typing import Any

import requests

from tests.conftest import KEY, Eventually, Receiver, Stack


class Api:
    """One endpoint; every answer must be JSON."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(
        self, method: str, path: str, endpoint: str = "longhand", **kwargs: Any
    ) -> requests.Response:
        kwargs.setdefault("headers", {"Authorization": f"Bearer {KEY}"})
        url = f"{self.url}/v2/{endpoint}/{path}"
        answer = requests.request(method, url, timeout=60, **kwargs)
        assert answer.headers["content-type"] == "application/json"
        return answer

    def run(self, job_input: object, **fields: Any) -> str:
        """The id of an accepted job."""
        answer = self("POST", "run", json={"input": job_input, **fields})
        assert answer.status_code == 200
        return str(answer.json()["id"])

    def pages(self, job_id: str) -> Iterator[dict[str, Any]]:
        """What a client that follows a stream gets."""
        while True:
            page: dict[str, Any] = self("GET", f"stream/{job_id}").json()
            yield page
            if page["status"] != "IN_PROGRESS":
                return


def completed(stack: Stack, receiver: Receiver, eventually: Eventually, name: str, **fields: Any) -> str:
    """The id of a job of 31 seconds that has been completed."""
    job_id = stack.client.submit(stack.input(receiver, name, 31, **fields))
    shown = eventually(lambda: stack.ended(job_id), 20, f"the end of {job_id}")
    assert shown["status"] == "COMPLETED"
    return job_id
