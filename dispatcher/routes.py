"""The HTTP API in RunPod's shape: `/v2/{endpoint_id}/{operation}`. contracts/runpod.md has every trap."""

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from redis.exceptions import RedisError
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from dispatcher import problems
from dispatcher.accepting import accept
from dispatcher.access import Caller, Known, count
from dispatcher.readers import Reader
from dispatcher.service import Service
from dispatcher.spooled import spooled
from dispatcher.submit import JOB_ID, new_job_id
from tasks.idempotency import (
    KEY_PATTERN,
)
from tasks.job import Job, Status
from tasks.views import (
    PLATFORM_STATUS,
    STREAM_OPEN,
    STREAM_OVER,
    Item,
    status_object,
    status_pieces,
    stream_items,
)

router = APIRouter(prefix="/v2/{endpoint_id}")

# Below the 10 s after which runpod's Python client gives up a read, and repeats it.
STREAM_HOLD_MS = 5_000
MAX_WAIT_MS = 90_000
# How often a request that waits looks again: a wake-up may be lost, and a client may have gone.
LOOK_S = 0.5
EMPTY_PAGE = {"status": STREAM_OPEN, "stream": []}
RUNSYNC_WAIT_MS = 90_000
MAX_RUNSYNC_WAIT_MS = 300_000

Wait = Annotated[int | None, Query(ge=0)]
# Judged in accepting.py, whose sentence says more than FastAPI's.
IdempotencyKey = Annotated[
    str | None,
    Header(
        description="the same key with the same body is the same job, for as long as that is kept; "
        "with another body it is a 409",
        json_schema_extra={"pattern": KEY_PATTERN},
    ),
]
Cursor = Annotated[str | None, Query(pattern=r"^[0-9]{1,19}(-[0-9]{1,19})?$")]


@router.post("/run")
async def run(request: Request, service: Known, idempotency_key: IdempotencyKey = None) -> JSONResponse:
    """Accept a job; on the answer it is on disk."""
    limit = service.settings.max_run_bytes
    job_id, _ = await accept(request, service, new_job_id(), limit, idempotency_key)
    return JSONResponse({"id": job_id, "status": "IN_QUEUE"})


@router.post("/runsync")
async def runsync(
    request: Request,
    service: Known,
    wait: Wait = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Accept a job and wait for its end; after `wait` ms, its status object as it is then."""
    job_id, limit = new_job_id("sync-"), service.settings.max_runsync_bytes
    job_id, alone = await accept(request, service, job_id, limit, idempotency_key)
    wait_ms = 0 if alone else min(max(wait or RUNSYNC_WAIT_MS, 1_000), MAX_RUNSYNC_WAIT_MS)
    return await _status_after(request, service, job_id, wait_ms)


@router.api_route("/status/{job_id}", methods=["GET", "POST"])
async def status(request: Request, job_id: str, service: Known) -> Response:
    """The job's status object."""

    def look() -> Response:
        count(request, service)
        return _status_response(service, _own_job(request, service, job_id))

    return await run_in_threadpool(look)


@router.api_route("/status-sync/{job_id}", methods=["GET", "POST"])
async def status_sync(request: Request, job_id: str, service: Caller, wait: Wait = None) -> Response:
    """As /status, once the job has ended or `wait` ms have passed."""
    return await _status_after(
        request, service, job_id, min(RUNSYNC_WAIT_MS if wait is None else wait, MAX_RUNSYNC_WAIT_MS)
    )


@router.api_route("/stream/{job_id}", methods=["GET", "POST"])
async def stream(
    request: Request, job_id: str, service: Caller, wait: Wait = None, cursor: Cursor = None
) -> Response:
    """What the job produced since the last call, held until there is something. Never an error status.

    `cursor` (our addition) reads again from any place without moving the client's own.
    """
    reader = await service.readers.enter(job_id)
    try:
        page = await _next_page(
            request, service, job_id, cursor, min(wait or STREAM_HOLD_MS, MAX_WAIT_MS), reader=reader
        )
    except RedisError:
        service.readers.leave(job_id, reader)
        return await empty_page()
    except BaseException:
        service.readers.leave(job_id, reader)
        raise
    if page is None:
        service.readers.leave(job_id, reader)
        return JSONResponse(EMPTY_PAGE)
    last = str(page["cursor"]) if cursor is None and page["stream"] else ""
    # Only once the answer is written: a client that has gone away meanwhile gets the same items again.
    return await _json(page, BackgroundTask(_written, service, job_id, reader, last))


async def empty_page() -> JSONResponse:
    """The answer of /stream while Redis is away: one error status here, and clients cancel the job."""
    await asyncio.sleep(1)
    return JSONResponse(EMPTY_PAGE)


@router.post("/cancel/{job_id}")
async def cancel(request: Request, job_id: str, service: Caller) -> Response:
    """End a job. One that has ended stays as it is; both answer 200, or clients lose the real error."""
    job = await _job(request, service, job_id)
    if not job.terminal:
        await run_in_threadpool(service.submitter.cancel, job)
        job = await _job(request, service, job_id)
    return await _json(await run_in_threadpool(_status_now, service, job))


@router.post("/retry/{job_id}")
async def retry(request: Request, job_id: str, service: Caller) -> JSONResponse:
    """Start the next run of a job that has failed; its chunks that are done are kept."""
    job = await _job(request, service, job_id)
    if not await run_in_threadpool(service.submitter.retry, job):
        raise problems.not_failed()
    return JSONResponse({"id": job_id, "status": PLATFORM_STATUS[Status.QUEUED]})


@router.post("/purge-queue")
async def purge_queue(request: Request, endpoint_id: str, service: Caller) -> JSONResponse:
    """Cancel the caller's jobs that wait in the queue; those that are worked on go on."""
    removed = await run_in_threadpool(service.submitter.purge, endpoint_id, request.state.account)
    return JSONResponse({"removed": removed, "status": "completed"})


async def _job(request: Request, service: Service, job_id: str, *, expired: bool = False) -> Job:
    return await run_in_threadpool(_own_job, request, service, job_id, expired=expired)


def _own_job(request: Request, service: Service, job_id: str, *, expired: bool = False) -> Job:
    """The caller's own job of this endpoint; one past its ttl is not found unless `expired` may be."""
    # Checked first: a stranger's string must not reach into other keys.
    job = service.store.job(job_id) if JOB_ID.fullmatch(job_id) else None
    mine = request.state.account, request.path_params["endpoint_id"]
    if job is None or (job.account, job.endpoint) != mine:
        raise problems.job_not_found()
    if job.status is Status.EXPIRED and not expired:
        raise problems.job_not_found()
    return job


async def _status_after(request: Request, service: Service, job_id: str, wait_ms: int) -> Response:
    deadline = asyncio.get_running_loop().time() + wait_ms / 1000
    async with service.wakeups.of(job_id) as woken:
        while not (job := await _job(request, service, job_id)).terminal:
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                break
            await woken(min(left_s, LOOK_S))
    return await run_in_threadpool(_status_response, service, job)


def _status_response(service: Service, job: Job) -> Response:
    """In a thread: a transcript takes its time to be written as JSON, and other requests shall not wait."""
    return spooled(status_pieces(job, service.store, service.store.now_ms()))


def _status_now(service: Service, job: Job) -> dict[str, object]:
    return status_object(job, service.store, service.store.now_ms(), with_output=False)


async def _json(content: object, background: BackgroundTask | None = None) -> Response:
    """A transcript takes its time to be written as JSON, and other requests shall not wait for it."""
    body = await run_in_threadpool(json.dumps, content, ensure_ascii=False)
    return Response(body, media_type="application/json", background=background)


async def _written(service: Service, job_id: str, reader: Reader, last: str) -> None:
    """The answer of a /stream is out: what it held is not to be read again."""
    try:
        if last:
            await run_in_threadpool(service.store.advance, job_id, last)
    finally:
        service.readers.leave(job_id, reader)


async def _next_page(
    request: Request, service: Service, job_id: str, cursor: str | None, hold_ms: int, *, reader: Reader
) -> dict[str, Any] | None:
    """The next page that has items or is the last, or an empty one after `hold_ms`.

    None where the client has gone away, or asks again already: nothing may count as read then.
    """
    deadline = asyncio.get_running_loop().time() + hold_ms / 1000
    async with service.wakeups.of(job_id) as woken:
        while True:
            # An error status of /stream makes clients cancel, and lose what they have.
            job = await _job(request, service, job_id, expired=True)
            page = await run_in_threadpool(_page, service, job, cursor)
            if reader.superseded.is_set() or await request.is_disconnected():
                return None
            left_s = deadline - asyncio.get_running_loop().time()
            if page["stream"] or page["status"] == STREAM_OVER or left_s <= 0:
                return page
            await woken(min(left_s, LOOK_S))


def _page(service: Service, job: Job, cursor: str | None) -> dict[str, object]:
    """The next items. Over only when the job has ended and nothing is left to read."""
    last = cursor if cursor is not None else service.store.cursor(job.id)
    items: list[Item] = []
    for event_id, found in stream_items(job, service.store, last):
        items += found
        last = event_id
    # `job` was read first: if it had ended by then, its last event was there to be read too.
    over = job.terminal and not service.store.events(job.id, last, 1)
    return {
        "status": STREAM_OVER if over else STREAM_OPEN,
        "stream": [{"output": item} for item in items],
        "cursor": last,
    }
