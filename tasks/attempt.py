"""One attempt at a unit of work: claim its lease, work under a heartbeat, and end in a state of the job."""

import time
from collections.abc import Callable

import structlog
from redis.exceptions import RedisError

from tasks import endings
from tasks.context import Context
from tasks.errors import (
    ChunkFailed,
    InvalidInput,
    LeaseLost,
    LonghandError,
    ModelLanguage,
    Unexpected,
    UnknownModel,
)
from tasks.heartbeat import Heartbeat
from tasks.job import Job, Request
from tasks.leases import Lease, Refused

log = structlog.get_logger()

# What no other chunk would fare better with.
ENDS_THE_JOB = (InvalidInput, UnknownModel, ModelLanguage)

Work = Callable[[Lease, Heartbeat], None]


class Seldom:
    """Lets something through once in `every_s` at the most."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last_s = float("-inf")

    def due(self, now_s: float) -> bool:
        if now_s - self._last_s < self._every_s:
            return False
        self._last_s = now_s
        return True


# A process that meets newer jobs meets one every few seconds.
SELDOM = Seldom(60)


class AttemptFailed(Exception):
    """Shows a failed attempt as a failed task to people who look at Flower; Redis has its state already."""


def attempt(
    context: Context, job_id: str, stage: str, unit: str, work: Work, *, lease: Lease | None = None
) -> str:
    """Do the work if the unit is free. It ends as a state in Redis, or as a lease that expires.

    The caller may have the `lease` already. Returns what came of it, for people who look at Flower, or
    raises AttemptFailed.
    """
    claimed = lease or context.leases.claim(job_id, stage, unit)
    if isinstance(claimed, Refused):
        refused(context, job_id, stage, unit, claimed)
        return f"nothing to do: {claimed.reason}"
    lease = claimed
    log_ = log.bind(job_id=job_id, stage=stage, unit=unit, attempt=lease.fence)
    try:
        with Heartbeat(context.leases, lease, context.settings) as heartbeat:
            work(lease, heartbeat)
    except LeaseLost:
        log_.info("lease_lost")
        return "stopped: another attempt took over, or the job has ended"
    except RedisError as error:
        # Nothing can be written down; the lease expires and the reaper hands the unit out again.
        log_.warning("redis_gone", error=str(error))
        failure: LonghandError = Unexpected("Redis was away")
    except LonghandError as error:
        log_.warning("attempt_failed", code=error.code, error=str(error))
        _give_back(context, lease, error)
        failure = error
    except Exception as error:  # the edge of a task: whatever it is, the attempt has failed
        log_.exception("attempt_failed", code=Unexpected.code)
        failure = Unexpected(f"internal error ({type(error).__name__})")
        _give_back(context, lease, failure)
    else:
        return "done"
    # The way it came holds the frames of the work, and so its audio, until the collector comes round.
    failure.__traceback__ = None
    # Without the cause, whose text may hold anything.
    raise AttemptFailed(f"{failure.code}: {failure}") from None


def fail_job(context: Context, lease: Lease, error: LonghandError) -> None:
    """End an attempt's job in failure and ring for whoever waits to hear of it.

    Once the lease is another's, or of an earlier run, nothing is done.
    """
    job = context.store.job(lease.job_id)
    if job is None:
        return
    ending = endings.failed(job.id, job.recording_id, context.store.now_ms(), error)
    done, receivers = context.store.finish(job.id, ending, stage=lease.unit, fence=lease.fence)
    if done:
        log.warning("job_failed", job_id=job.id, code=error.code, error=str(error))
    context.bells.deliver(*receivers)


def refused(context: Context, job_id: str, stage: str, unit: str, why: Refused) -> None:
    """See to what a claim was refused for."""
    reason = why.reason
    if reason == "newer":
        if SELDOM.due(time.monotonic()):
            log.warning("newer_job", job_id=job_id, stage=stage, hint="upgrade this worker")
        return
    log.info("claim_refused", job_id=job_id, stage=stage, unit=unit, reason=reason)
    if reason == "worn":
        error = Unexpected(f"{stage} was started too often and never finished")
        fail_job(context, Lease(job_id, stage, unit, why.fence), error)
    elif reason == "complete":
        context.bells.assemble(job_id)


def _give_back(context: Context, lease: Lease, error: LonghandError) -> None:
    if isinstance(error, ENDS_THE_JOB):
        fail_job(context, lease, error)
        return
    # What is not the unit's fault, others may begin at once.
    charge, delay_ms = (error, context.settings.attempt_delay_ms) if error.charged else (None, 0)
    outcome = context.leases.release(lease, charge, delay_ms)
    if outcome == "exhausted":
        fail_job(context, lease, error)
    elif outcome == "complete":
        context.bells.assemble(lease.job_id)


def dead_chunks_error(context: Context, job: Job, request: Request) -> ChunkFailed | None:
    """Names the spans that could not be transcribed, or None where there are none, or may be some.

    A job of which nothing could be transcribed has failed whatever it allows.
    """
    dead = context.store.dead(job.id)
    if not dead or (request.allow_gaps and len(dead) < (job.total or 0)):
        return None
    index, reason = min(dead.items())
    chunk = context.store.chunk(job.id, index)
    span = f"{chunk.start_ms / 1000:.0f} s to {chunk.end_ms / 1000:.0f} s" if chunk else "?"
    more = f" and {len(dead) - 1} more" if len(dead) > 1 else ""
    return ChunkFailed(f"chunk {index} ({span}){more} could not be transcribed: {reason}")
