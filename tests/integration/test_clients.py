"""The real runpod SDK as a client of our API: each script is what a user would write."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dispatcher.client import segments_of
from tests.conftest import KEY, Receiver, Stack

Script = Callable[..., Any]

# One interpreter for all scripts: importing the SDK takes longer than what they do.
INTERPRETER = """
import asyncio, contextlib, json, os, sys
import runpod
runpod.api_key = os.environ["CLIENTS_KEY"]
for line in sys.stdin:
    source, job_input = json.loads(line)
    told = []
    with contextlib.redirect_stdout(sys.stderr):
        exec(source, {
            "asyncio": asyncio, "runpod": runpod, "endpoint": runpod.Endpoint("longhand"),
            "job_input": job_input, "tell": told.append,
        })
    print(json.dumps(told[-1]), flush=True)
"""


@pytest.fixture(scope="module")
def interpreter(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A program of a user who has set the base URL and the key."""
    folder = tmp_path_factory.mktemp("client")
    environment = {
        "HOME": str(folder),
        "CLIENTS_KEY": KEY,
        "RUNPOD_ENDPOINT_BASE_URL": f"{stack.machine.url}/v2",
    }
    with (folder / "stderr").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", INTERPRETER],
            env=os.environ | environment,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:
        yield process
        process.kill()


@pytest.fixture
def script(interpreter: subprocess.Popen[str]) -> Script:
    """Run a script; returns what it told."""
    assert interpreter.stdin
    assert interpreter.stdout
    to, back = interpreter.stdin, interpreter.stdout

    def run(source: str, job_input: object = None) -> Any:
        to.write(json.dumps([source, job_input]) + "\n")
        to.flush()
        answer = back.readline()
        assert answer, "the script failed"
        return json.loads(answer)

    return run


def test_run_stream_status_output(stack: Stack, receiver: Receiver, script: Script) -> None:
    told = script(
        """
job = endpoint.run({"input": job_input})
streamed = list(job.stream())
tell({"id": job.job_id, "streamed": streamed, "status": job.status(), "output": job.output()})
""",
        stack.input(receiver, "sdk", 31, "slow:100"),
    )
    assert told["status"] == "COMPLETED"
    # Three chunks, three items, each once.
    assert len(told["streamed"]) == 3
    assert len(segments_of(told["streamed"])) == 12
    # What ended by the stream's COMPLETED has its output in /status.
    assert stack.client.status(told["id"])["output"] == told["streamed"]


def test_output_waits_and_run_wraps_a_bare_input(stack: Stack, receiver: Receiver, script: Script) -> None:
    told = script(
        """
job = endpoint.run(job_input)
output = job.output(timeout=20)
tell({"status": job.status(), "output": output})
""",
        stack.input(receiver, "sdk-output", 21),
    )
    assert told["status"] == "COMPLETED"
    assert len(segments_of(told["output"])) == 8


def test_cancel_then_the_stream_ends(stack: Stack, receiver: Receiver, script: Script) -> None:
    told = script(
        """
import time
job = endpoint.run({"input": job_input})
canceled = job.cancel()
started = time.monotonic()
streamed = list(job.stream())
seconds = time.monotonic() - started
raw = endpoint.rp_client.get(f"longhand/status/{job.job_id}")
tell({"canceled": canceled, "seconds": seconds, "raw": raw, "again": job.cancel()})
""",
        stack.input(receiver, "sdk-canceled", 61, "slow:300"),
    )
    assert told["canceled"]["status"] == "CANCELLED"
    assert told["seconds"] < 15
    assert told["raw"]["status"] == "CANCELLED"
    assert told["again"]["status"] == "CANCELLED"


def test_a_failed_jobs_stream_yields_what_there_was_and_ends(
    stack: Stack, receiver: Receiver, script: Script
) -> None:
    told = script(
        """
job = endpoint.run({"input": job_input})
streamed = list(job.stream())
raw = endpoint.rp_client.get(f"longhand/status/{job.job_id}")
fresh = runpod.endpoint.runner.Job("longhand", job.job_id, endpoint.rp_client)
tell({"streamed": streamed, "raw": raw, "output": fresh.output(), "status": fresh.status()})
""",
        stack.input(receiver, "sdk-failed", 31, "fail:2"),
    )
    assert len(told["streamed"]) == 2
    assert told["raw"]["status"] == told["status"] == "FAILED"
    assert isinstance(told["raw"]["error"], str)
    assert told["output"] is None


def test_run_sync_and_health(stack: Stack, receiver: Receiver, script: Script) -> None:
    told = script(
        """
tell({"output": endpoint.run_sync({"input": job_input}), "health": endpoint.health()})
""",
        stack.input(receiver, "sdk-sync", 21),
    )
    assert len(segments_of(told["output"])) == 8
    assert told["health"]["workers"]["ready"] == 2


def test_an_empty_input_is_wrapped_once_more_and_fails_as_a_job(script: Script) -> None:
    told = script("""
job = endpoint.run({"input": {}})
tell({"output": job.output(timeout=10), "status": job.status()})
""")
    assert told == {"output": None, "status": "FAILED"}


def test_a_wrong_key_is_named_as_such(script: Script) -> None:
    told = script("""
try:
    runpod.Endpoint("longhand", api_key="wrong").run({"input": {"a": 1}})
except RuntimeError as error:
    tell(str(error))
""")
    assert told.startswith("401")


ASYNCIO = """
from runpod.http_client import AsyncClientSession
async def main():
    async with AsyncClientSession() as session:
        endpoint = runpod.AsyncioEndpoint("longhand", session)
        await use(endpoint, session)
asyncio.run(main())
"""


def test_the_asyncio_client_follows_a_job(stack: Stack, receiver: Receiver, script: Script) -> None:
    told = script(
        """
async def use(endpoint, session):
    job = await endpoint.run(job_input)
    streamed = [item async for item in job.stream()]
    output = await job.output(timeout=10)
    tell({"streamed": streamed, "status": await job.status(), "output": output})
"""
        + ASYNCIO,
        stack.input(receiver, "sdk-async", 31, "slow:100"),
    )
    assert told["status"] == "COMPLETED"
    assert len(told["streamed"]) == 3


def test_the_asyncio_client_raises_on_an_unknown_job(script: Script) -> None:
    started_s = time.monotonic()
    told = script(
        """
async def use(endpoint, session):
    job = runpod.AsyncioJob("longhand", "no-such-job-u1", session, endpoint.headers)
    found = []
    try:
        await job.status()
    except KeyError as error:
        found.append(str(error))
    try:
        async for _ in job.stream():
            pass
    except KeyError as error:
        found.append(str(error))
    tell(found)
"""
        + ASYNCIO
    )
    assert told == ["'status'", "'status'"]
    assert time.monotonic() - started_s < 30
