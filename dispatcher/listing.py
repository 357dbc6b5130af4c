"""What there is: counts of jobs and workers, the caller's jobs, whether this process and Redis answer."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from dispatcher.access import Caller
from dispatcher.service import Service
from tasks.job import Status
from tasks.views import platform_status

router = APIRouter(prefix="/v2/{endpoint_id}")
# For load balancers and container engines, without a key.
probes = APIRouter()


@router.get("/health")
async def health(service: Caller, endpoint_id: str) -> JSONResponse:
    """Counts of jobs and workers, with every key that RunPod's clients require."""
    counts, slots, busy = await run_in_threadpool(service.counts, endpoint_id)
    running = min(busy, slots.ready)
    return JSONResponse(
        {
            "jobs": {
                "completed": counts.get(Status.SUCCEEDED, 0),
                "failed": counts.get(Status.FAILED, 0) + counts.get(Status.EXPIRED, 0),
                "inProgress": counts.get(Status.RUNNING, 0),
                "inQueue": counts.get(Status.QUEUED, 0),
                "retried": 0,
            },
            "workers": {
                "idle": slots.ready - running,
                "initializing": slots.initializing,
                "ready": slots.ready,
                "running": running,
                "throttled": 0,
                "unhealthy": slots.unhealthy,
            },
        }
    )


@probes.get("/ping")
async def ping(request: Request) -> JSONResponse:
    """Whether this process and Redis answer; 503 where Redis does not."""
    service: Service = request.app.state.service
    await run_in_threadpool(service.store.now_ms)
    return JSONResponse({"status": "ok"})


@router.get("/jobs")
async def jobs(
    request: Request, service: Caller, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> JSONResponse:
    """The caller's newest jobs (our addition, for `longhand jobs`)."""
    found = await run_in_threadpool(service.store.jobs, request.state.account, limit)
    now_ms = await run_in_threadpool(service.store.now_ms)
    rows = [
        {
            "id": job.id,
            "status": platform_status(job, now_ms, service.settings.queue_visible_ms),
            "recording_id": job.recording_id,
            "created_ms": job.created_ms,
            "audio_seconds_done": job.done_ms / 1000,
            "audio_seconds_total": job.duration_ms / 1000 if job.duration_ms is not None else None,
            "error": job.error,
        }
        for job in found
    ]
    return JSONResponse({"jobs": rows})
