"""What /run and /runsync bring becomes a job: the body is read, bounded, and submitted."""

import hashlib
import json
from dataclasses import replace
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from dispatcher import problems
from dispatcher.access import count
from dispatcher.schemas import detached, parse_callback, parse_policy
from dispatcher.service import Service
from tasks.errors import LonghandError, QueueFull, QuotaExceeded, ServiceFull, StoreFull
from tasks.idempotency import AlreadyAccepted, IdempotencyConflict, IdempotencyKeyInvalid, Once

SMALL_BODY = 64 * 1024
# Bodies above that which are read as JSON at a time: each is in memory more than once meanwhile.
PARSERS = CapacityLimiter(2)
# Small ones at a time: they wait for one disk, and more threads take the processor from each other.
SUBMITTERS = CapacityLimiter(8)


async def accept(
    request: Request, service: Service, job_id: str, limit: int, key: str | None
) -> tuple[str, bool]:
    """Submit what a request brings in `limit` bytes, once for its idempotency `key`.

    The job's id, which is `job_id` if it is a new one, and whether nobody waits for its end. What was brought
    is gone on return: /runsync would hold its 20 MiB for as long as it waits. Raises Problem.
    """
    if int(request.headers.get("content-length", SMALL_BODY + 1)) > SMALL_BODY:
        # Before it takes memory.
        await run_in_threadpool(count, request, service)
        once = _once(request, key)
        data = await _body(request, limit)
        body, digest = await to_thread.run_sync(_parsed, data, once is not None, limiter=PARSERS)
        once = replace(once, body=digest) if once else None
        job_id = await run_in_threadpool(_submit, request, service, body, job_id, once)
    else:
        # All in one thread: each change to another takes longer than what is done there.
        data = await _body(request, limit)
        job_id, body = await to_thread.run_sync(
            _submit_small, request, service, data, job_id, key, limiter=SUBMITTERS
        )
    return job_id, detached(body["input"])


def _submit_small(
    request: Request, service: Service, data: bytearray, job_id: str, key: str | None
) -> tuple[str, dict[str, Any]]:
    count(request, service)
    once = _once(request, key)
    body, digest = _parsed(data, once is not None)
    once = replace(once, body=digest) if once else None
    return _submit(request, service, body, job_id, once), body


def _once(request: Request, key: str | None) -> Once | None:
    """What a repetition of the request is known by, but for its body. Raises Problem (400)."""
    if key is None:
        return None
    try:
        return Once.of(key, request.state.account, request.path_params["endpoint_id"], "")
    except IdempotencyKeyInvalid as error:
        raise problems.bad_request(str(error), error.code) from None


async def _body(request: Request, limit: int) -> bytearray:
    """What the request brings. Raises Problem (400) for more than `limit` bytes."""
    too_large = problems.bad_request(
        f"body: exceeded max body size of {limit // 1024**2}MiB", "body_too_large"
    )
    if int(request.headers.get("content-length", "0")) > limit:
        raise too_large
    data = bytearray()
    async for block in request.stream():
        data += block
        if len(data) > limit:
            raise too_large
    return data


def _parsed(data: bytearray, hashed: bool) -> tuple[dict[str, Any], str]:
    """The JSON object with an `input`, and a digest of its bytes, or "". Raises Problem (400).

    `data` holds nothing any more: a recording is there twice at the most.
    """
    digest = hashlib.sha256(data).hexdigest() if hashed else ""
    try:
        text = data.decode(json.detect_encoding(data), "surrogatepass")
        data.clear()
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise problems.bad_request("body: not valid JSON") from None
    if not isinstance(body, dict) or "input" not in body:
        raise problems.bad_request("body: `input` is missing")
    return body, digest


def _submit(request: Request, service: Service, body: dict[str, Any], job_id: str, once: Once | None) -> str:
    endpoint = request.path_params["endpoint_id"]
    limits = parse_policy(body.get("policy"), service.settings, endpoint)
    account = request.state.account
    try:
        callback = parse_callback(body.get("webhook"), body["input"], service.settings, account, endpoint)
    except LonghandError as error:
        raise problems.bad_request(f"webhook: {error}", error.code) from None
    try:
        service.submitter.submit(
            *(job_id, body["input"], endpoint, account, limits), callback=callback, once=once
        )
    except AlreadyAccepted as accepted:
        return accepted.job_id
    except IdempotencyConflict as error:
        raise problems.Problem(409, str(error), error.code) from None
    except (QueueFull, QuotaExceeded) as error:
        raise problems.full(error) from None
    except (ServiceFull, StoreFull) as error:
        raise problems.full_for_all(error) from None
    return job_id
