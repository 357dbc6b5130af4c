"""Webhooks over HTTP, our addition: what became of each, once more by hand, links to transcripts."""

import uuid
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from dispatcher import problems
from dispatcher.access import Caller
from dispatcher.service import Service
from dispatcher.submit import JOB_ID
from tasks import events
from tasks.endings import batch_body, completed_body
from tasks.errors import LonghandError
from tasks.guard import check_url, receiver_of
from tasks.job import Job, Status
from tasks.links import verify
from tasks.outbox import STATES

router = APIRouter(prefix="/v2/{endpoint_id}")

DeliveryId = Annotated[str, Path(pattern=r"^evt_[A-Za-z0-9_-]{1,200}$")]
# What a client says of a job, an empty one being any.
JobId = Annotated[str, Query(pattern=rf"^({JOB_ID.pattern})?$")]
State = Annotated[str, Query(pattern=f"^({'|'.join(STATES)})?$")]


class Receiver(BaseModel):
    """Whom to try."""

    url: str = Field(max_length=2000)


@router.get("/webhooks")
async def webhooks(
    request: Request,
    service: Caller,
    state: State = "",
    job: JobId = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> JSONResponse:
    """The caller's newest webhooks: dead letters with `state=dead`, those of one job with `job=...`."""
    found = await run_in_threadpool(service.outbox.entries, request.state.account, state, job, limit)
    return JSONResponse({"webhooks": [asdict(entry) for entry in found]})


@router.post("/webhook-test")
async def test(request: Request, service: Caller, endpoint_id: str, receiver: Receiver) -> JSONResponse:
    """Send a signed event that is about no job, once."""
    try:
        check_url(receiver.url, service.settings.policy(endpoint_id))
    except LonghandError as error:
        raise problems.bad_request(f"url: {error}", error.code) from None
    delivery_id, account = f"evt_test_{uuid.uuid4()}", request.state.account
    await run_in_threadpool(_test, service, delivery_id, account, endpoint_id, receiver.url)
    return JSONResponse(await run_in_threadpool(_shown, service, delivery_id, account))


@router.get("/webhooks/{delivery_id}")
async def webhook(request: Request, service: Caller, delivery_id: DeliveryId) -> JSONResponse:
    """One webhook with every attempt made."""
    return JSONResponse(await run_in_threadpool(_shown, service, delivery_id, request.state.account))


@router.post("/webhooks/{delivery_id}/redeliver")
async def redeliver(request: Request, service: Caller, delivery_id: DeliveryId) -> JSONResponse:
    """Send it again now, the same bytes under the same id, whatever became of it before."""
    account = request.state.account
    receiver = await run_in_threadpool(service.outbox.redeliver, delivery_id, account)
    if not receiver:
        raise problems.webhook_not_found()
    await run_in_threadpool(service.submitter.ring, receiver)
    return JSONResponse(await run_in_threadpool(_shown, service, delivery_id, account))


@router.get("/transcription/{job_id}")
async def transcription(
    request: Request,
    endpoint_id: str,
    job_id: str,
    expires: Annotated[int, Query(ge=0)],
    signature: Annotated[str, Query(max_length=200)],
) -> Response:
    """What the link in a webhook leads to: the body that was too large to send. Needs no key."""
    service: Service = request.app.state.service
    job = await run_in_threadpool(service.store.job, job_id) if JOB_ID.fullmatch(job_id) else None
    key, now_ms = await run_in_threadpool(_key_and_time, service)
    # A job that is gone has no link any more, and who guesses learns nothing.
    if job is None or not verify(key, job, expires, signature, now_ms):
        raise problems.bad_link()
    if job.endpoint != endpoint_id or job.status is not Status.SUCCEEDED:
        raise problems.job_not_found()
    return Response(await run_in_threadpool(_completed, service, job), media_type="application/json")


def _shown(service: Service, delivery_id: str, account: str) -> dict[str, object]:
    entry = service.outbox.entry(delivery_id, account)
    if entry is None:
        raise problems.webhook_not_found()
    attempts = [asdict(attempt) for attempt in service.outbox.attempts(delivery_id)]
    return {**asdict(entry), "attempts_made": attempts}


def _test(service: Service, delivery_id: str, account: str, endpoint: str, url: str) -> None:
    body = events.tried(service.store.now_ms())
    receiver = receiver_of(account, url)
    service.outbox.test(delivery_id, account, endpoint, url=url, receiver=receiver, body=body)
    service.submitter.ring(receiver)


def _key_and_time(service: Service) -> tuple[bytes, int]:
    return service.store.link_key(), service.store.now_ms()


def _completed(service: Service, job: Job) -> str:
    assert job.request is not None  # noqa: S101  it succeeded
    now_ms = job.finished_ms or 0
    if job.parts:
        heard = [(part, service.store.transcript(part)) for part in service.store.parts(job)]
        return batch_body(job, heard, now_ms)
    return completed_body(job, job.request, service.store.transcript(job), now_ms)
