"""RunPod's client for JavaScript, under Node.js."""

import time
from concurrent.futures import ThreadPoolExecutor

from dispatcher.client import segments_of
from tests.clients.conftest import Client
from tests.conftest import Eventually, Receiver, Stack

SDK = """
import runpodSdk from "runpod-sdk";
const runpod = runpodSdk(process.env.KEY, { baseUrl: process.env.BASE });
const endpoint = runpod.endpoint("longhand");
const tell = (told) => console.log(JSON.stringify(told));
"""


def test_6_run_sync(stack: Stack, receiver: Receiver, eventually: Eventually, js: Client) -> None:
    """6: `runSync` gives the output, where that takes longer than its wait, too: by `/status-sync`."""
    script = SDK + "tell(await endpoint.runSync({ input: given.input }, given.wait));"
    told = js.run(script, input=stack.input(receiver, "js-sync", 21), wait=30_000)
    assert (told["status"], told["succeeded"]) == ("COMPLETED", True)
    assert len(segments_of(told["output"])) == 8
    before = len(js.door.of("status-sync"))
    with ThreadPoolExecutor() as pool:
        with stack.stopped("io"):
            late = pool.submit(js.run, script, input=stack.input(receiver, "js-late", 11), wait=15_000)
            eventually(lambda: js.door.of("status-sync")[before:], 60, "the second question")
        told = late.result()
    assert (told["status"], told["succeeded"]) == ("COMPLETED", True)
    assert "?wait=" in js.door.of("status-sync", told["id"])[0].path


def test_7_stream(stack: Stack, receiver: Receiver, js: Client) -> None:
    """7: `run`, `status` and `stream` give every item once, in order."""
    told = js.run(
        SDK
        + """
const { id, status } = await endpoint.run({ input: given.input });
const items = [];
for await (const item of endpoint.stream(id)) items.push(item.output);
tell({ id, status, items, last: await endpoint.status(id) });
""",
        input=stack.input(receiver, "js", 31, "slow:50"),
    )
    assert told["status"] == "IN_QUEUE"
    assert told["last"]["status"] == "COMPLETED"
    assert told["items"] == told["last"]["output"]
    assert len(segments_of(told["items"])) == 12


def test_7_idle_stream(stack: Stack, receiver: Receiver, eventually: Eventually, js: Client) -> None:
    """7: `stream`, which asks again at once, asks five times at the most in 10 idle seconds."""
    script = (
        SDK
        + """
const { id } = await endpoint.run({ input: given.input });
const items = [];
for await (const item of endpoint.stream(id)) items.push(item.output);
tell(items);
"""
    )
    before = len(js.door.of("stream"))
    with ThreadPoolExecutor() as pool:
        with stack.stopped("io"):
            told = pool.submit(js.run, script, input=stack.input(receiver, "js-idle", 11))
            first = eventually(lambda: js.door.of("stream")[before:], 60, "the first question")[0]
            eventually(lambda: time.monotonic() > first.at_s + 10)
            asked = js.door.of("stream")[before:]
        assert len(segments_of(told.result())) == 4
    assert len(asked) <= 5


def test_7_backlog(stack: Stack, receiver: Receiver, eventually: Eventually, js: Client) -> None:
    """7: a backlog of more than 8 MB comes in several pages, and all of it."""
    job_input = stack.input(receiver, "js-backlog", 91, "long:300000")
    del job_input["webhook_url"]
    job_id = stack.client.submit(job_input)
    eventually(lambda: stack.ended(job_id), 60, "the end of the job")
    told = js.run(
        SDK
        + """
const starts = [];
let letters = 0;
for await (const { output } of endpoint.stream(given.id))
  for (const entry of output)
    if (entry.type === "segments")
      for (const segment of entry.data) {
        starts.push(segment.start);
        letters += segment.text.length;
      }
tell({ starts, letters });
""",
        id=job_id,
    )
    assert len(told["starts"]) == 4 * 9
    assert told["starts"] == sorted(set(told["starts"]))
    assert told["letters"] > 36 * 300_000 > 8 * 1024 * 1024
    assert [call.status for call in js.door.of("stream", job_id)] == [200, 200]


def test_8_under_load(stack: Stack, receiver: Receiver, js: Client) -> None:
    """8: each call is answered within the client's 3 s while jobs run and 10 MiB arrive; 12: `cancel` too."""
    told = js.run(
        SDK
        + """
const ids = [];
for (const input of given.inputs) ids.push((await endpoint.run({ input })).id);
const large = { blob: "A".repeat(10 * 1024 * 1024 - 1024) };
const [taken, ...shown] = await Promise.all([
  endpoint.run({ input: large }),
  endpoint.health(),
  ...ids.map((id) => endpoint.status(id)),
]);
const canceled = await Promise.all(ids.map((id) => endpoint.cancel(id)));
const again = await endpoint.cancel(ids[0]);
const purged = await endpoint.purgeQueue();
tell({ taken, health: shown[0], shown: shown.slice(1), canceled, again, purged });
""",
        inputs=[stack.input(receiver, f"js-load-{n}", 61, "slow:300") for n in range(5)],
    )
    assert told["taken"]["id"]
    assert told["health"]["jobs"].keys() == {"completed", "failed", "inProgress", "inQueue", "retried"}
    workers = {"idle", "initializing", "ready", "running", "throttled", "unhealthy"}
    assert told["health"]["workers"].keys() == workers
    assert all(shown["started"] and shown["id"] for shown in told["shown"])
    assert {shown["status"] for shown in [*told["canceled"], told["again"]]} == {"CANCELLED"}
    assert told["purged"].keys() == {"removed", "status"}


def test_10_wrong_key(js: Client) -> None:
    """10: a wrong key is an error with status 401."""
    told = js.run(
        SDK.replace("process.env.KEY", '"wrong"')
        + """
try { tell(await endpoint.health()); }
catch (error) { tell({ status: error.response?.status }); }
"""
    )
    assert told == {"status": 401}


def test_11_unknown_job(js: Client) -> None:
    """11: a job that is not there is an error with status 404, of `stream` too."""
    told = js.run(
        SDK
        + """
const found = [];
const asks = [endpoint.status, endpoint.cancel, async (id) => endpoint.stream(id).next()];
for (const ask of asks)
  try { found.push(await ask.call(endpoint, "no-such-job")); }
  catch (error) { found.push(error.response?.status); }
tell(found);
"""
    )
    assert told == [404, 404, 404]


def test_13_purge_queue(stack: Stack, receiver: Receiver, js: Client) -> None:
    """13: `purgeQueue` removes what is queued, and says how many."""
    script = (
        SDK
        + """
for (let n = 0; n < 3; n++) await endpoint.run({ input: given.input });
tell(await endpoint.purgeQueue());
"""
    )
    with stack.stopped("io"):
        told = js.run(script, input=stack.input(receiver, "js-purged", 11))
    assert told == {"removed": 3, "status": "completed"}
