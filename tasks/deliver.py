"""Delivery: one signed POST per attempt, and the decision when to try again."""

import random
import time
import uuid
from collections import Counter

import structlog

from tasks.backoff import parse_retry_after, retry_delay_ms
from tasks.context import Context
from tasks.errors import LonghandError
from tasks.events import signature_headers
from tasks.guard import GuardedSession, guarded_session, send
from tasks.outbox import Attempt, Delivery, Outcome

log = structlog.get_logger()

GONE = 410


def drain(context: Context, receiver: str) -> str:
    """Send what is due to one receiver over one connection, until nothing is; says what came of it."""
    states: Counter[str] = Counter()
    drain = uuid.uuid4().hex
    with guarded_session(allow_private=context.settings.allow_private_addresses) as session:
        while delivery := context.outbox.claim(receiver, drain):
            now_ms = context.store.now_ms()
            attempt, retry_after_ms = _post(context, session, delivery, now_ms)
            outcome, delay_ms = decide(
                delivery.attempts + 1,
                attempt.status,
                context.settings.webhook_schedule_ms,
                random.random(),  # noqa: S311  jitter, no secret
                retry_after_ms,
            )
            state = context.outbox.settle(delivery, outcome, attempt, delay_ms)
            states[state] += 1
            # A pool that is full of slow receivers works; what keeps its slot waits behind them.
            context.open_slot("deliver")
            log.info(
                "delivery_attempted",
                delivery=delivery.id,
                attempt=delivery.attempts + 1,
                status=attempt.status,
                duration_ms=attempt.duration_ms,
                error=attempt.error,
                state=state,
            )
    return ", ".join(f"{count} {state}" for state, count in states.items()) or "nothing was due"


def decide(
    attempts: int, status: int, schedule_ms: tuple[int, ...], roll: float, retry_after_ms: int | None
) -> tuple[Outcome, int]:
    """What becomes of a delivery after `attempts` attempts, and the wait before the next, ms.

    `status` is that of the last answer, 0 where there was none. Only 2xx is success.
    """
    if 200 <= status < 300:
        return "delivered", 0
    if status == GONE:
        return "gone", 0
    delay_ms = retry_delay_ms(attempts, schedule_ms, roll, retry_after_ms)
    return ("dead", 0) if delay_ms is None else ("retry", delay_ms)


def _post(
    context: Context, session: GuardedSession, delivery: Delivery, now_ms: int
) -> tuple[Attempt, int | None]:
    """One attempt, and the Retry-After of its answer, ms. The answer's body is never read."""
    settings = context.settings
    status, error, retry_after_ms = 0, "", None
    started_s = time.monotonic()
    try:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Longhand",
            **signature_headers([settings.webhook_secret], delivery.id, now_ms // 1000, delivery.body),
        }
        with send(
            session,
            "POST",
            delivery.url,
            allow_private=settings.allow_private_addresses,
            timeout_s=settings.webhook_timeout_ms / 1000,
            data=delivery.body,
            headers=headers,
            stream=True,
        ) as response:
            status = response.status_code
            if after := response.headers.get("Retry-After"):
                retry_after_ms = parse_retry_after(after, now_ms)
    except LonghandError as failure:
        error = str(failure)
    duration_ms = round(1000 * (time.monotonic() - started_s))
    return Attempt(now_ms, status, duration_ms, error), retry_after_ms
