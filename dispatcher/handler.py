"""The RunPod handler: `python -m dispatcher.handler`. It enqueues to Celery and relays the job's events.

The SDK's worker loop calls it; what it yields, the platform streams and adds up as the job's output.
"""

import asyncio
import contextlib
import hashlib
import json
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

import runpod
import structlog
from redis.exceptions import RedisError

from dispatcher.schemas import detached, parse_policy
from dispatcher.service import Service
from tasks.errors import LonghandError, Unexpected
from tasks.idempotency import AlreadyAccepted, Once
from tasks.job import Job, Status
from tasks.links import link
from tasks.logs import start_logging
from tasks.settings import Settings
from tasks.views import Item, size_of, stream_items

log = structlog.get_logger()

QUEUE_REPORT_S = 10.0
# The platform may end this worker once the handler returns, so it stays for the last webhook; not for ever.
LAST_WEBHOOK_S = 60.0
CANCEL_S = 2.0
# Between two renewals of the lease on a job, unless it is short itself.
ATTEND_S = 10.0
REDIS_PAUSE_S = 1.0

# Whose the jobs are: the platform does not say which of its users asked.
ACCOUNT = "runpod"

UNAVAILABLE = "unavailable: the job store is away: try again in a few seconds"
DETACH_REFUSED = (
    "detach_refused: this worker keeps its state in itself and may be ended at once: set REDIS_URL, or leave "
    "`detach` out"
)

T = TypeVar("T")

# What the handler yields: an item in the typed dialect, or the error that ends the job.
Yielded = Item | dict[str, object]


class Handler:
    """One per process; called once per job."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._listener: asyncio.Task[None] | None = None

    async def __call__(self, event: dict[str, Any]) -> AsyncGenerator[Yielded, None]:
        """Submit, or attach to, the job of this id; yield what it produces until it ends.

        A job that is not left to itself is stopped when this is, and ended by the reaper when this is killed.
        """
        job_id, detach = str(event["id"]), self._service.settings.detach
        if self._listener is None:
            self._listener = asyncio.create_task(self._service.wakeups.listen())
        leaves = detach == "always" or detached(event.get("input"))
        if leaves and detach == "refused":
            yield {"error": DETACH_REFUSED}
            return
        ended = leaves
        # The platform's id is its idempotency key: what another input has made is not ours to attend or end.
        once = Once.of(job_id, ACCOUNT, self._service.endpoint, _digest(event.get("input")))
        if refused := await asyncio.to_thread(_refused, self._service, once):
            yield refused
            return
        attending = None if leaves else asyncio.create_task(self._attend(job_id))
        try:
            async with contextlib.aclosing(self._handle(once, event, leaves=leaves)) as items:
                async for item in items:
                    yield item
            ended = True
        finally:
            if attending:
                attending.cancel()
            # CancelledError or GeneratorExit: the platform has stopped this job.
            if not ended:
                await asyncio.shield(self._cancel(job_id))

    async def _handle(
        self, once: Once, event: dict[str, Any], *, leaves: bool
    ) -> AsyncGenerator[Yielded, None]:
        service, job_id = self._service, str(event["id"])
        try:
            new = await self._submit(once, event, attended=not leaves)
        except LonghandError as error:
            yield {"error": f"{error.code}: {error}"}
            return
        except RedisError:
            yield {"error": UNAVAILABLE}
            return
        if not new:
            # The platform delivers a job again for /retry, or after losing a worker; items come again.
            await _patiently(_retry_if_failed, service, job_id)
            yield [{"type": "meta", "data": {"restarted": True}}]
        if leaves:
            yield {"job_id": job_id, "detached": True}
            return
        size = 0
        async with contextlib.aclosing(self._relay(job_id)) as items:
            async for item in items:
                size += size_of(item)
                # The platform would drop the whole output; the job goes on, for whoever is told by webhook.
                if size <= service.settings.max_output_bytes:
                    yield item
        async for last in self._ending(job_id):
            yield last
        if size > service.settings.max_output_bytes:
            for said in await _patiently(_elsewhere, service, job_id):
                yield said

    async def _submit(self, once: Once, event: dict[str, Any], *, attended: bool) -> bool:
        """Accept the job under our lease; False if it is there already. Raises what Submitter.submit does."""
        service, job_id = self._service, str(event["id"])
        limits = parse_policy(event.get("policy"), service.settings)

        def submit() -> bool:
            # First: the job is never there without it.
            if attended and service.settings.handler_lease_ms:
                service.leases.attend(job_id)
            given = job_id, event.get("input"), service.endpoint, ACCOUNT, limits
            try:
                return service.submitter.submit(*given, once=once)
            except AlreadyAccepted:
                return False

        submitting = asyncio.create_task(asyncio.to_thread(submit))
        try:
            return await asyncio.shield(submitting)
        except asyncio.CancelledError:
            # The thread goes on, and only what it has written can be canceled.
            await asyncio.wait([submitting], timeout=CANCEL_S)
            raise

    async def _attend(self, job_id: str) -> None:
        """Renew our lease on the job until this is canceled."""
        every_s = min(ATTEND_S, self._service.settings.handler_lease_ms / 3000)
        while every_s:
            await asyncio.sleep(every_s)
            try:
                await asyncio.to_thread(self._service.leases.attend, job_id)
            except RedisError as error:
                log.warning("redis_away", error=str(error))

    async def _relay(self, job_id: str) -> AsyncGenerator[Item, None]:
        """The job's items in order, and where it waits in line, until it has ended."""
        service, last, reported_s = self._service, "0", float("-inf")
        loop = asyncio.get_running_loop()
        async with service.wakeups.of(job_id) as woken:
            while True:
                job = await _patiently(service.store.job, job_id)
                if job is None:
                    return
                for event_id, items in await _patiently(_page, service, job, last):
                    last = event_id
                    for item in items:
                        yield item
                if job.terminal:
                    return
                if job.status is Status.QUEUED and loop.time() - reported_s >= QUEUE_REPORT_S:
                    reported_s = loop.time()
                    yield [await _patiently(_queued, service, job)]
                await woken(1.0)

    async def _ending(self, job_id: str) -> AsyncGenerator[dict[str, object], None]:
        """Wait for the last webhook to be delivered, then say how the job failed, if it did."""
        service = self._service
        deadline_s = asyncio.get_running_loop().time() + LAST_WEBHOOK_S
        while asyncio.get_running_loop().time() < deadline_s:
            if not await _patiently(service.outbox.pending, job_id):
                break
            await asyncio.sleep(0.2)
        job = await _patiently(service.store.job, job_id)
        if job is None:
            yield {"error": "expired: the job is gone"}
        elif job.status is not Status.SUCCEEDED:
            yield {"error": f"{job.code}: {job.error}"}

    async def _cancel(self, job_id: str) -> None:
        """End the job if Redis answers in time; what is raised here would hide that the job was stopped."""
        try:
            async with asyncio.timeout(CANCEL_S):
                job = await asyncio.to_thread(self._service.store.job, job_id)
                if job is not None and not job.terminal:
                    await asyncio.to_thread(self._service.submitter.cancel, job)
        except (RedisError, TimeoutError) as error:
            log.warning("cancel_failed", job_id=job_id, error=str(error))


async def _patiently(question: Callable[..., T], *args: object) -> T:
    """Ask until Redis answers: the job goes on without us, and the platform's own timeout bounds this."""
    while True:
        try:
            return await asyncio.to_thread(question, *args)
        except RedisError as error:
            log.warning("redis_away", error=str(error))
            await asyncio.sleep(REDIS_PAUSE_S)


def _digest(given: object) -> str:
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


def _refused(service: Service, once: Once) -> dict[str, object] | None:
    """The error of a job whose id has come with another input before."""
    try:
        service.store.refuse_repetition(once)
    except AlreadyAccepted:
        return None
    except LonghandError as error:
        return {"error": f"{error.code}: {error}"}
    except RedisError:
        return {"error": UNAVAILABLE}
    return None


def _retry_if_failed(service: Service, job_id: str) -> None:
    """Start the next run of a job that has failed; one whose input was refused stays as it is."""
    job = service.store.job(job_id)
    if job is not None and job.status is Status.FAILED:
        service.submitter.retry(job)


def _elsewhere(service: Service, job_id: str) -> list[dict[str, object]]:
    """What ends the output of a job that has more of it than the platform takes.

    An object among the lists: ivrit's clients, which would take what came before for the whole, fail on it.
    """
    settings = service.settings
    told = f"what came before is not all: the transcript has more than {settings.max_output_bytes} bytes"
    job = service.store.job(job_id)
    if job is None or not settings.public_url:
        told = f"{told}; ask for it without words, or by webhook"
        return [{"output_too_large": told}, {"error": f"output_too_large: {told}"}]
    kept_ms = settings.retention_ms if job.retention_ms is None else job.retention_ms
    expires_ms = service.store.now_ms() + kept_ms
    url = link(settings.public_url, job, expires_ms, service.store.link_key())
    return [{"output_too_large": told, "result_url": url}]


def _page(service: Service, job: Job, after: str) -> list[tuple[str, list[Item]]]:
    return list(stream_items(job, service.store, after, None))


def _queued(service: Service, job: Job) -> dict[str, object]:
    waited_ms = service.store.now_ms() - job.created_ms
    data = {
        "phase": "transcription",
        "step": "queue",
        "step_fraction": 0.0,
        "description": "waiting for a worker",
        "extra": {"queue_seconds": waited_ms / 1000},
    }
    return {"type": "progress", "data": data}


def main() -> None:
    """Check the settings, then serve the platform's jobs; the SDK has Redis and the storage checked first."""
    start_logging()
    try:
        settings = Settings.from_env()
        service = Service.build(settings)
    except LonghandError as error:
        sys.exit(f"{error.code}: {error}")
    handler = Handler(service)

    def redis_and_storage() -> None:
        try:
            service.check()
        except LonghandError as error:
            # The SDK reports this to the platform, and exits with status 1.
            raise RuntimeError(f"{error.code}: {error}") from None

    async def transcribe(event: dict[str, Any]) -> AsyncGenerator[Yielded, None]:
        # The SDK looks at the function's own kind to see that it streams.
        try:
            async with contextlib.aclosing(handler(event)) as items:
                async for item in items:
                    yield item
        except Exception:  # the edge of a job: the SDK would show the client a traceback
            log.exception("handler_failed", job_id=event.get("id"))
            yield {"error": f"{Unexpected.code}: {Unexpected()}"}

    runpod.serverless.register_fitness_check(redis_and_storage)
    runpod.serverless.start(
        {
            "handler": transcribe,
            "return_aggregate_stream": True,
            # Constant: a value that changes while jobs run stops the intake until the worker is empty.
            "concurrency_modifier": lambda _current: settings.handler_concurrency,
        }
    )


if __name__ == "__main__":
    main()
