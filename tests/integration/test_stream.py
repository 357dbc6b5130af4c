"""/stream: nothing that a client does to it loses an item, or gives it one twice."""

import threading
import time

import pytest
import requests

from tests.conftest import KEY, Eventually, Receiver, Stack
from tests.endpoint import Api

HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def api(stack: Stack) -> Api:
    return Api(stack.machine.url)


def starts(pages: list[dict[str, list[dict[str, object]]]]) -> list[float]:
    """The starts of all segments read, in the order of reading."""
    found: list[float] = []
    for page in pages:
        for item in page["stream"]:
            for entry in item["output"]:  # type: ignore[attr-defined]
                found += [segment["start"] for segment in entry["data"] if entry["type"] == "segments"]
    return found


def test_a_client_that_goes_away_while_it_waits_loses_nothing(
    stack: Stack, receiver: Receiver, eventually: Eventually, api: Api
) -> None:
    job_id = stack.client.submit(stack.input(receiver, "gone", 31, "slow:400"))
    for _ in range(3):
        with pytest.raises(requests.exceptions.ReadTimeout):
            requests.get(f"{api.url}/v2/longhand/stream/{job_id}?wait=30000", headers=HEADERS, timeout=0.4)
    eventually(lambda: stack.ended(job_id))
    assert len(starts(list(api.pages(job_id)))) == 12


def test_a_client_that_never_rests_gets_every_item_once(stack: Stack, receiver: Receiver, api: Api) -> None:
    job_id = stack.client.submit(stack.input(receiver, "restless", 91, "slow:20"))
    read = starts(list(api.pages(job_id)))
    assert len(read) == 9 * 4
    assert read == sorted(set(read))


def test_a_newer_reader_ends_the_older_ones_wait(stack: Stack, receiver: Receiver, api: Api) -> None:
    job_id = stack.client.submit(stack.input(receiver, "two", 11, "slow:1500"))
    answers: list[dict[str, object]] = []
    older = threading.Thread(
        target=lambda: answers.append(api("GET", f"stream/{job_id}?wait=30000").json()), daemon=True
    )
    started_s = time.monotonic()
    older.start()
    older.join(1)
    assert older.is_alive()
    api("GET", f"stream/{job_id}?wait=100")
    older.join(5)
    assert time.monotonic() - started_s < 5
    assert answers == [{"status": "IN_PROGRESS", "stream": []}]
    api("POST", f"cancel/{job_id}")


@pytest.mark.parametrize("cursor", ["nonsense", "9" * 20, "٣", "1-2-3"])
def test_a_cursor_that_is_none_is_refused(api: Api, cursor: str) -> None:
    assert api("GET", f"stream/any?cursor={cursor}").status_code == 400
