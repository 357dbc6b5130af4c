"""RunPod's own clients, in Python and JavaScript."""

from dispatcher.client import segments_of
from tests.clients.conftest import Client
from tests.conftest import Receiver, Stack

JS = """
import runpodSdk from "runpod-sdk";
const runpod = runpodSdk(process.env.KEY, { baseUrl: process.env.BASE });
const endpoint = runpod.endpoint("longhand");
"""


def test_js_run_status_stream(stack: Stack, receiver: Receiver, js: Client) -> None:
    """7, 8: `run`, `status` and `stream` give every item once, in order."""
    told = js.run(
        JS
        + """
const { id, status } = await endpoint.run({ input: given.input });
const items = [];
for await (const item of endpoint.stream(id)) items.push(item.output);
console.log(JSON.stringify({ id, status, items, last: await endpoint.status(id) }));
""",
        input=stack.input(receiver, "js", 31, "slow:50"),
    )
    assert told["status"] == "IN_QUEUE"
    assert told["last"]["status"] == "COMPLETED"
    assert told["items"] == told["last"]["output"]
    assert len(segments_of(told["items"])) == 12


def test_js_runsync(stack: Stack, receiver: Receiver, js: Client) -> None:
    """6: `runSync` waits for the output, past its own time to wait, too."""
    told = js.run(
        JS + "console.log(JSON.stringify(await endpoint.runSync({ input: given.input }, 30000)));",
        input=stack.input(receiver, "js-sync", 31, "slow:50"),
    )
    assert (told["status"], told["succeeded"]) == ("COMPLETED", True)
    assert len(segments_of(told["output"])) == 12
    told = js.run(
        JS + "console.log(JSON.stringify(await endpoint.runSync({ input: given.input }, 1000)));",
        input=stack.input(receiver, "js-late", 31, "slow:400"),
    )
    assert told["status"] in ("COMPLETED", "IN_PROGRESS")


def test_js_cancel_health_purge(stack: Stack, receiver: Receiver, js: Client) -> None:
    """8, 9, 12: `cancel`, `health` and `purgeQueue` answer with the documented keys."""
    told = js.run(
        JS
        + """
const { id } = await endpoint.run({ input: given.input });
const canceled = await endpoint.cancel(id);
const again = await endpoint.cancel(id);
const health = await endpoint.health();
console.log(JSON.stringify({ canceled, again, health, purged: await endpoint.purgeQueue() }));
""",
        input=stack.input(receiver, "js-canceled", 61, "slow:300"),
    )
    assert told["canceled"]["status"] == told["again"]["status"] == "CANCELLED"
    assert told["health"]["jobs"].keys() == {"completed", "failed", "inProgress", "inQueue", "retried"}
    assert told["purged"]["status"] == "completed"


def test_js_large_body(js: Client) -> None:
    """8: a body of 10 MiB is accepted within the client's 3 s."""
    told = js.run(
        JS
        + """
const started = performance.now();
const { id } = await endpoint.run({ input: { blob: "A".repeat(10 * 1024 * 1024 - 1024) } });
console.log(JSON.stringify({ id, ms: performance.now() - started }));
"""
    )
    assert told["id"]


def test_js_wrong_key(js: Client) -> None:
    """10: a wrong key is an error with status 401."""
    told = js.run(
        JS.replace("process.env.KEY", '"wrong"')
        + """
try { await endpoint.health(); console.log("{}"); }
catch (error) { console.log(JSON.stringify({ status: error.response?.status ?? String(error) })); }
"""
    )
    assert "401" in str(told["status"])


def test_python(stack: Stack, receiver: Receiver, python: Client) -> None:
    """1, 2: `run`, `stream`, `status` and `output` give every item once, in order."""
    told = python.run(
        """
import os, runpod
runpod.api_key = os.environ["KEY"]
job = runpod.Endpoint("longhand").run({"input": given["input"]})
items = list(job.stream())
print(json.dumps({"items": items, "status": job.status(), "output": job.output()}))
""",
        input=stack.input(receiver, "python", 31, "slow:50"),
    )
    assert told["status"] == "COMPLETED"
    assert told["items"] == told["output"]
    assert len(segments_of(told["items"])) == 12


def test_python_async(stack: Stack, receiver: Receiver, python: Client) -> None:
    """2, 11: the asyncio client streams every item, and an unknown job raises an error."""
    told = python.run(
        """
import asyncio, os, runpod, aiohttp
from runpod import AsyncioEndpoint
runpod.api_key = os.environ["KEY"]
async def main():
    async with aiohttp.ClientSession() as session:
        job = await AsyncioEndpoint("longhand", session).run(given["input"])
        items = [item async for item in job.stream()]
        status = await job.status()
        job.job_id, job.job_status = "no-such-job", None
        try:
            await job.status()
            missing = ""
        except Exception as error:
            missing = type(error).__name__
        return {"items": items, "status": status, "missing": missing}
print(json.dumps(asyncio.run(asyncio.wait_for(main(), 60))))
""",
        input=stack.input(receiver, "python-async", 31, "slow:50"),
    )
    assert told["status"] == "COMPLETED"
    assert len(segments_of(told["items"])) == 12
    assert told["missing"] == "KeyError"
