"""How the scripts of users begin and end."""

# RunPod's client for Python.
SYNC = """
import time, runpod
runpod.api_key = os.environ["KEY"]
endpoint = runpod.Endpoint("longhand")
def raw(job):
    return endpoint.rp_client.get(f"longhand/status/{job.job_id}")
def tell(told):
    print(json.dumps(told))
"""
# The same with asyncio, for a script that defines `use` and ends with `within`.
ASYNC = """
import asyncio, time, runpod
from runpod.http_client import AsyncClientSession
runpod.api_key = os.environ["KEY"]
async def main():
    async with AsyncClientSession() as session:
        endpoint = runpod.AsyncioEndpoint("longhand", session)
        print(json.dumps(await use(endpoint, session)))
"""


def within(seconds: int) -> str:
    """The end of a script with asyncio: a client that asks for ever is a failure."""
    return f"\nasyncio.run(asyncio.wait_for(main(), {seconds}))\n"


# ivrit, in the sync and the async form.
LOAD = """
import ivrit
key, endpoint = os.environ["KEY"], given["endpoint"]
model = ivrit.load_model(engine="runpod", model="multi", api_key=key, endpoint_id=endpoint)
"""
TRANSCRIBE = (
    LOAD
    + """
try:
    found = model.transcribe(url=given["url"], language="he", **given["arguments"])
    segments = found["segments"]
    told = {"texts": [s.text for s in segments], "words": [len(s.words or []) for s in segments]}
    told["language"] = found.get("language")
except Exception as error:
    told = {"error": f"{type(error).__name__}: {error}"}
print(json.dumps(told))
"""
)
TRANSCRIBE_ASYNC = (
    LOAD
    + """
import asyncio
async def main():
    found = model.transcribe_async(url=given["url"], language="he", **given["arguments"])
    return {"texts": [s.text async for s in found]}
try:
    told = asyncio.run(main())
except Exception as error:
    told = {"error": f"{type(error).__name__}: {error}"}
print(json.dumps(told))
"""
)
