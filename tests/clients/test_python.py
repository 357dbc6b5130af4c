"""RunPod's client for Python, as it is used without and with asyncio."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dispatcher.client import segments_of
from tests.clients.conftest import Client
from tests.clients.leases import leases_of
from tests.clients.scripts import ASYNC, SYNC, within
from tests.conftest import Eventually, Receiver, Stack


def test_1_run(python: Client) -> None:
    """1: an input is wrapped where it is bare, an empty one once more; what is wrong in it fails the job."""
    told = python.run(
        SYNC
        + """
jobs = [endpoint.run({"a": 1}), endpoint.run({"input": {}})]
for job in jobs:
    job.output(timeout=20)
tell([raw(job) for job in jobs])
"""
    )
    assert [shown["status"] for shown in told] == ["FAILED", "FAILED"]
    # Each error names the field by where it was.
    assert told[0]["error"].startswith("input.a ")
    assert told[1]["error"].startswith("input.input ")
    assert all(call.status == 200 for call in python.door.of("run")[-2:])


def test_2_stream(stack: Stack, receiver: Receiver, python: Client) -> None:
    """2: `run`, `stream`, `status` and `output` give every item once, in order."""
    told = python.run(
        SYNC
        + """
job = endpoint.run({"input": given["input"]})
tell({"items": list(job.stream()), "status": job.status(), "output": job.output()})
""",
        input=stack.input(receiver, "python", 31, "slow:50"),
    )
    assert told["status"] == "COMPLETED"
    assert len(told["items"]) == 3
    assert told["items"] == told["output"]
    assert len(segments_of(told["items"])) == 12


def test_2_stream_async(stack: Stack, receiver: Receiver, python: Client) -> None:
    """2: asyncio: `run`, `stream`, `status` and `output` give every item once, in order."""
    told = python.run(
        ASYNC
        + """
async def use(endpoint, session):
    job = await endpoint.run(given["input"])
    items = [item async for item in job.stream()]
    return {"items": items, "status": await job.status(), "output": await job.output(timeout=20)}
"""
        + within(90),
        input=stack.input(receiver, "python-async", 31, "slow:50"),
    )
    assert told["status"] == "COMPLETED"
    assert len(told["items"]) == 3
    assert told["items"] == told["output"]


def test_3_cancel(stack: Stack, receiver: Receiver, python: Client) -> None:
    """3: after `cancel`, `stream` ends within 15 s, and `status` is CANCELLED."""
    told = python.run(
        SYNC
        + """
job = endpoint.run({"input": given["input"]})
answer, started = job.cancel(), time.monotonic()
for _ in job.stream():
    pass
tell({"answer": answer, "seconds": time.monotonic() - started, "shown": raw(job)})
""",
        input=stack.input(receiver, "canceled", 61, "slow:300"),
    )
    assert told["answer"]["status"] == told["shown"]["status"] == "CANCELLED"
    assert told["seconds"] < 15


def test_3_cancel_async(stack: Stack, receiver: Receiver, python: Client) -> None:
    """3: asyncio: after `cancel`, `stream` ends within 15 s, and `status` is CANCELLED."""
    told = python.run(
        ASYNC
        + """
async def use(endpoint, session):
    job = await endpoint.run(given["input"])
    answer, started = await job.cancel(), time.monotonic()
    async for _ in job.stream():
        pass
    seconds = time.monotonic() - started
    fresh = runpod.AsyncioJob("longhand", job.job_id, session, endpoint.headers)
    return {"answer": answer, "seconds": seconds, "status": await fresh.status()}
"""
        + within(90),
        input=stack.input(receiver, "canceled-async", 61, "slow:300"),
    )
    assert told["answer"]["status"] == told["status"] == "CANCELLED"
    assert told["seconds"] < 15


def test_4_failure(stack: Stack, receiver: Receiver, python: Client) -> None:
    """4: the stream of a job that failed gives what there was, and ends; `output` is None."""
    told = python.run(
        SYNC
        + """
job = endpoint.run({"input": given["input"]})
items = list(job.stream())
fresh = runpod.endpoint.runner.Job("longhand", job.job_id, endpoint.rp_client)
tell({"items": items, "shown": raw(job), "output": fresh.output(), "status": fresh.status()})
""",
        input=stack.input(receiver, "failed", 31, "fail:2"),
    )
    assert len(told["items"]) == 2
    assert told["status"] == told["shown"]["status"] == "FAILED"
    assert isinstance(told["shown"]["error"], str)
    assert told["output"] is None


def idle(stack: Stack, eventually: Eventually, python: Client, script: str, job_input: dict[str, Any]) -> Any:
    """What a script told whose stream had nothing for 12 s and more: nobody fetches its recording."""
    before = len(python.door.of("stream"))
    with ThreadPoolExecutor() as pool:
        with stack.stopped("io"):
            told = pool.submit(python.run, script, input=job_input)
            first = eventually(lambda: python.door.of("stream")[before:], 60, "the first question")[0]
            eventually(lambda: time.monotonic() > first.at_s + 12)
        return told.result()


def test_5_idle(stack: Stack, receiver: Receiver, eventually: Eventually, python: Client) -> None:
    """5: an item that comes after 12 s of an idle stream is not lost."""
    script = SYNC + 'tell(list(endpoint.run({"input": given["input"]}).stream()))'
    items = idle(stack, eventually, python, script, stack.input(receiver, "idle", 11))
    assert len(segments_of(items)) == 4


def test_5_idle_async(stack: Stack, receiver: Receiver, eventually: Eventually, python: Client) -> None:
    """5: asyncio: an item that comes after 12 s of an idle stream is not lost."""
    use = """
async def use(endpoint, session):
    return [item async for item in (await endpoint.run(given["input"])).stream()]
"""
    items = idle(stack, eventually, python, ASYNC + use + within(90), stack.input(receiver, "idle-async", 11))
    assert len(segments_of(items)) == 4


def test_6_run_sync(stack: Stack, receiver: Receiver, python: Client) -> None:
    """6: `run_sync` returns the output."""
    script = SYNC + 'tell(endpoint.run_sync({"input": given["input"]}))'
    assert len(segments_of(python.run(script, input=stack.input(receiver, "synchronous", 21)))) == 8


def test_10_wrong_key(python: Client) -> None:
    """10: a wrong key is told as one."""
    told = python.run(
        SYNC
        + """
try:
    runpod.Endpoint("longhand", api_key="wrong").run({"input": {"a": 1}})
except RuntimeError as error:
    tell(str(error))
"""
    )
    assert told.startswith("401")


def test_11_unknown_job(python: Client) -> None:
    """11: a job that is not there is an error 404; a body over the limit is one of 400."""
    told = python.run(
        SYNC
        + """
found = []
job = runpod.endpoint.runner.Job("longhand", "no-such-job-u1", endpoint.rp_client)
large = {"input": {"blob": "A" * (17 * 1024 * 1024)}}
for ask in (job.status, lambda: next(job.stream()), job.cancel, lambda: endpoint.run(large)):
    try:
        ask()
    except Exception as error:
        found.append([error.response.status_code, error.response.text])
tell(found)
"""
    )
    assert [status for status, _ in told] == [404, 404, 404, 400]
    assert "exceeded max body size" in told[3][1]


def test_11_unknown_job_async(python: Client) -> None:
    """11: asyncio: a job that is not there raises an error, and is not asked for for ever."""
    told = python.run(
        ASYNC
        + """
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
    return found
"""
        + within(90)
    )
    assert told == ["'status'", "'status'"]


def test_12_cancel(stack: Stack, receiver: Receiver, eventually: Eventually, python: Client) -> None:
    """12: `cancel` of a job that has ended changes nothing and is no error; a running one's workers stop."""
    done = stack.client.submit(stack.input(receiver, "cancel-done", 11))
    failed = stack.client.submit({"url": "ftp://a.test/x"})
    running = stack.client.submit(stack.input(receiver, "cancel-running", 121, "slow:300"))
    eventually(lambda: stack.ended(done), 40)
    eventually(lambda: stack.redis.hlen(f"lh:job:{running}:results"), 40, "the first chunk")
    told = python.run(
        SYNC
        + """
def cancel(job_id):
    return runpod.endpoint.runner.Job("longhand", job_id, endpoint.rp_client).cancel()["status"]
tell([cancel(job_id) for job_id in given["ids"]])
""",
        ids=[done, failed, running, running],
    )
    assert told == ["COMPLETED", "FAILED", "CANCELLED", "CANCELLED"]
    eventually(lambda: not leases_of(stack, running), 5, "the end of the work")
    assert stack.client.status(done)["output"]


def test_13_purge_queue(stack: Stack, receiver: Receiver, python: Client) -> None:
    """13: `purge_queue` removes what is queued, and says how many."""
    script = (
        SYNC
        + """
jobs = [endpoint.run({"input": given["input"]}) for _ in range(3)]
tell({"purged": endpoint.purge_queue(), "statuses": [job.status() for job in jobs]})
"""
    )
    with stack.stopped("io"):
        told = python.run(script, input=stack.input(receiver, "purged", 11))
    assert told["purged"] == {"removed": 3, "status": "completed"}
    assert told["statuses"] == ["CANCELLED"] * 3
