"""Clients whose job waits in the queue for longer than they have patience with a queue."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest

from dispatcher.client import segments_of
from tests.clients import environments
from tests.clients.conftest import Client, ivrit_of
from tests.clients.door import Door
from tests.clients.scripts import ASYNC, SYNC, TRANSCRIBE, within
from tests.clients.test_ivrit import endpoint_of
from tests.conftest import Receiver, Stack, receiving

# ivrit asks 300 times, a second apart, and then gives up: by an error, or by an empty transcript.
QUEUED_S = 310
WITHIN_S = QUEUED_S + 60
PATIENT_ASYNC = """
async def use(endpoint, session):
    return await (await endpoint.run(given["input"])).output(timeout=600)
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(WITHIN_S + 120)]


@pytest.fixture(scope="module")
def told(
    stack: Stack, fixed_door: Door, python: Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """What each script told; all of them waited side by side."""
    versions = [ivrit_of(version, fixed_door) for version in environments.IVRIT]
    run: dict[str, Any] = {}
    with (
        receiving(Receiver(tmp_path_factory.mktemp("queue"))) as receiver,
        ThreadPoolExecutor(max_workers=8) as pool,
    ):
        job_input = stack.input(receiver, "queued", 11)
        sync = SYNC + 'tell(endpoint.run_sync({"input": given["input"]}))'
        patient = ASYNC + PATIENT_ASYNC + within(WITHIN_S)
        with stack.stopped("io"):
            for client in versions:
                asked = {"url": job_input["url"], "arguments": {"recording_id": f"queued {client.name}"}}
                asked["endpoint"] = endpoint_of(client)
                run[client.name] = pool.submit(client.run, TRANSCRIBE, WITHIN_S, **asked)
            run["sync"] = pool.submit(python.run, sync, WITHIN_S, input=job_input)
            run["async"] = pool.submit(python.run, patient, WITHIN_S, input=job_input)
            ended = wait(run.values(), QUEUED_S, return_when="FIRST_COMPLETED").done
            assert not ended, [future.result() for future in ended]
        yield {name: future.result() for name, future in run.items()}


def test_20_queue(stack: Stack, ivrit: Client, told: dict[str, Any]) -> None:
    """20: a job that waits in the queue for 310 s is transcribed; the client cancels nothing."""
    assert len(told[ivrit.name]["texts"]) == 4
    name = f"queued {ivrit.name}"
    (job,) = [job for job in stack.client.jobs(50) if job["recording_id"] == name]
    assert job["status"] == "COMPLETED"
    assert ivrit.door.of("stream", job["id"])
    assert ivrit.door.of("cancel", job["id"]) == []


def test_6_run_sync(python: Client, told: dict[str, Any]) -> None:
    """6: `run_sync` gives the output where that takes longer than the server waits, too."""
    assert len(segments_of(told["sync"])) == 4
    (begun,) = python.door.of("runsync")
    assert begun.status == 200
    assert python.door.of("status", "sync-")


def test_6_output(python: Client, told: dict[str, Any]) -> None:
    """6: asyncio: `output` waits for a job that is in the queue for 310 s."""
    assert len(segments_of(told["async"])) == 4
    # With all the others behind the same door, 310 questions and more were asked.
    assert len(python.door.of("status")) > 200
