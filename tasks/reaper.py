"""The reaper: one live worker process, under one lock, puts back what was lost and sees to what is due."""

import contextlib
import threading

import structlog
from redis.exceptions import RedisError

from tasks import endings
from tasks.context import Context
from tasks.endings import Ending
from tasks.errors import ExecutionTimeout, HandlerLost
from tasks.job import Status
from tasks.parts import folder_of
from tasks.store import LATE, UNATTENDED

log = structlog.get_logger()


def run(context: Context, stop: threading.Event) -> None:
    """Reap every `reap_ms` while this process holds the lock, and give that up when told to stop.

    Survives a Redis that is away.
    """
    every_s = context.settings.reap_ms / 1000
    while not stop.wait(every_s):
        try:
            if context.leases.be_the_reaper(context.worker, max(5_000, 3 * context.settings.reap_ms)):
                tick(context)
        except RedisError as error:
            log.warning("reaper_failed", error=str(error))
        except Exception:  # the edge of a thread that must not end: whatever it is, the next look goes on
            log.exception("reaper_failed")
    with contextlib.suppress(RedisError):
        context.leases.reap_no_more(context.worker)


def tick(context: Context) -> None:
    """Look once through leases, deliveries, deadlines and blobs; ring for all that can go on."""
    reaped = context.leases.reap()
    for job_id in reaped.late:
        end_late(context, job_id)
    for job_id in reaped.unattended:
        end_unattended(context, job_id)
    for job_id in reaped.assemble:
        context.bells.assemble(job_id)
    context.bells.deliver(*reaped.receivers)
    context.bells.ingests()
    context.bells.chunks()
    # Last, since a blob store may fail in any way.
    due = context.uploads.due()
    if not (reaped.sweep or due) or not context.store.confirmed():
        return
    for job_id in reaped.sweep:
        context.blobs.delete_job(job_id)
        context.leases.swept(job_id)
    for upload_id in due:
        context.blobs.delete_job(folder_of(upload_id))
        context.uploads.forget(upload_id)
        log.info("upload_swept", upload_id=upload_id)


def end_late(context: Context, job_id: str) -> None:
    """End a job that has passed its deadline: of its run time, or of its whole life."""
    job = context.store.job(job_id)
    if job is None or job.terminal:
        return
    now_ms = context.store.now_ms()
    ending = (
        endings.expired(job, now_ms)
        if now_ms >= job.deadline_ms
        else endings.failed(job_id, job.recording_id, now_ms, ExecutionTimeout())
    )
    # Only if it is still late: it may have its next run by now.
    _end(context, job_id, ending, LATE)


def end_unattended(context: Context, job_id: str) -> None:
    """End a job whose handler is gone: RunPod gives it up, or to another, which starts its next run."""
    job = context.store.job(job_id)
    if job is None:
        return
    ending = endings.failed(job_id, job.recording_id, context.store.now_ms(), HandlerLost())
    _end(context, job_id, ending, UNATTENDED)


def _end(context: Context, job_id: str, ending: Ending, condition: str) -> None:
    done, receivers = context.store.finish(job_id, ending, stage=condition)
    if done:
        event = "job_expired" if ending.status is Status.EXPIRED else "job_failed"
        log.warning(event, job_id=job_id, code=ending.code, error=ending.error)
    context.bells.deliver(*receivers)
