"""Delivery: one POST per attempt, and the decision when to try again."""

import contextlib
import functools
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator

import structlog
from celery import current_app

from tasks.backoff import parse_retry_after, retry_delay_ms
from tasks.callback import callback_body
from tasks.context import Context
from tasks.errors import JobGone, LonghandError, SourceUnreachable
from tasks.events import signature_headers
from tasks.http import GuardedSession, guarded_session, let_go, send
from tasks.outbox import UNTOUCHED, Attempt, Delivery, Health, Outcome
from tasks.settings import Settings

log = structlog.get_logger()

OK = 200
GONE = 410
TOO_MANY = 429
# After so long a drain goes to the end of the queue, so that others get its thread.
DRAIN_S = 10
# How often a drain reports its worker as able to work.
SLOT_S = 1
# Of a receiver that found no thread free for it.
PUT_OFF_MS = 1_000
# An answer that takes longer makes a receiver a slow one.
SLOW_MS = 2_000
# The platform's: two more tries, 10 s apart.
CALLBACK_SCHEDULE_MS = (10_000, 10_000)
_BUILDING = threading.Lock()


def drain(context: Context, receiver: str) -> str:
    """Send what is due to one receiver over one connection, until nothing is; says what came of it.

    Receivers that are slow or failing share a part of the threads, and those that are new another, so that
    however many there are of them, the others do not wait.
    """
    with _thread_for(context, receiver) as free:
        if not free:
            context.outbox.put_off(receiver, PUT_OFF_MS)
            return "put off: too many receivers that are slow, failing or new are being tried"
        states = _drain(context, receiver)
    return ", ".join(f"{count} {state}" for state, count in states.items()) or "nothing was due"


@contextlib.contextmanager
def _thread_for(context: Context, receiver: str) -> Iterator[bool]:
    health = context.outbox.health(receiver)
    with _BUILDING:
        threads = _threads().get(health)
    if threads is None:
        yield True
        return
    free = threads.acquire(blocking=False)
    try:
        yield free
    finally:
        if free:
            threads.release()


@functools.cache
def _threads() -> dict[Health, threading.BoundedSemaphore]:
    """How many of this process's threads may serve receivers of a health; fast ones have no limit."""
    every = current_app.conf.longhand_concurrency
    bad = threading.BoundedSemaphore(max(1, every // 4))
    return {"slow": bad, "down": bad, "unknown": threading.BoundedSemaphore(max(1, every // 2))}


def _drain(context: Context, receiver: str) -> Counter[str]:
    states: Counter[str] = Counter()
    name = uuid.uuid4().hex
    slot_s = time.monotonic()
    until_s = slot_s + DRAIN_S
    with contextlib.ExitStack() as opened:

        @functools.cache
        def session(endpoint: str) -> GuardedSession:
            # Each endpoint has a policy of its own.
            return opened.enter_context(guarded_session(context.settings.policy(endpoint)))

        while delivery := context.outbox.claim(receiver, name):
            if states.total() == 1:
                # There is more than one to send: another thread may help.
                context.bells.deliver(receiver)
            states[_attempt(context, session(delivery.endpoint), delivery)] += 1
            now_s = time.monotonic()
            if now_s > slot_s:
                # A pool that is full of slow receivers works; what keeps its slot waits behind them.
                context.open_slot("deliver")
                slot_s = now_s + SLOT_S
            if now_s > until_s:
                context.outbox.leave(receiver, name)
                context.bells.deliver(receiver)
                break
    return states


def _attempt(context: Context, session: GuardedSession, delivery: Delivery) -> str:
    """Send a delivery once and write down what came of it; its state now."""
    attempt, retry_after_ms, failure = _post(context, session, delivery)
    roll = random.random()  # noqa: S311  jitter, no secret
    outcome, delay_ms = decide(delivery, attempt.status, context.settings, roll, retry_after_ms)
    if isinstance(failure, JobGone):
        outcome, delay_ms = "dead", 0
    reached = failure is None or isinstance(failure, SourceUnreachable)
    state = context.outbox.settle(delivery, outcome, attempt, health_of(attempt, reached), delay_ms)
    log.info(
        "delivery_attempted",
        delivery=delivery.id,
        attempt=delivery.attempts + 1,
        status=attempt.status,
        duration_ms=attempt.duration_ms,
        error=attempt.error,
        state=state,
    )
    return state


def decide(
    delivery: Delivery, status: int, settings: Settings, roll: float, retry_after_ms: int | None
) -> tuple[Outcome, int]:
    """What becomes of a delivery after one more attempt, and the wait before the next, ms.

    `status` is that of the answer, 0 where there was none; `roll` in [0, 1) is the jitter. Of an event only
    2xx is success, of the platform's callback only 200, as on the platform.
    """
    attempts = delivery.attempts + 1
    if delivery.kind == "callback":
        if status == OK:
            return "delivered", 0
        delay_ms = retry_delay_ms(attempts, CALLBACK_SCHEDULE_MS, 0.5)
    else:
        if 200 <= status < 300:
            return "delivered", 0
        if status == GONE:
            return "gone", 0
        schedule_ms = () if delivery.kind == "test" else settings.webhook_schedule_ms
        delay_ms = retry_delay_ms(attempts, schedule_ms, roll, retry_after_ms)
    return ("dead", 0) if delay_ms is None else ("retry", delay_ms)


def health_of(attempt: Attempt, reached: bool = True) -> Health:
    """How the receiver did. A refusal of this one request (4xx) says that it works.

    `reached` is False where the attempt failed on our side: an address that is refused, a job that is gone.
    """
    if not reached:
        return UNTOUCHED
    if attempt.status in (0, TOO_MANY) or attempt.status >= 500:
        return "down"
    return "slow" if attempt.duration_ms > SLOW_MS else "fast"


def _post(
    context: Context, session: GuardedSession, delivery: Delivery
) -> tuple[Attempt, int | None, LonghandError | None]:
    """One attempt, the Retry-After of its answer, ms, and what went wrong where there was no answer."""
    settings = context.settings
    status, retry_after_ms, failure = 0, None, None
    started_s, timeout_s = time.monotonic(), settings.webhook_timeout_ms / 1000
    try:
        body, headers = _message(context, delivery)
        response = send(
            session,
            "POST",
            delivery.url,
            timeout_s=timeout_s,
            data=body,
            headers={"Content-Type": "application/json", "User-Agent": "Longhand", **headers},
            stream=True,
        )
        status = response.status_code
        if after := response.headers.get("Retry-After"):
            retry_after_ms = parse_retry_after(after, delivery.taken_ms)
        let_go(response, max(0.0, timeout_s - (time.monotonic() - started_s)))
    except LonghandError as error:
        failure = error
    duration_ms = round(1000 * (time.monotonic() - started_s))
    attempt = Attempt(delivery.taken_ms, status, duration_ms, str(failure or ""))
    return attempt, retry_after_ms, failure


def _message(context: Context, delivery: Delivery) -> tuple[bytes, dict[str, str]]:
    """Body and headers; the platform's callback is made now, and carries no signature."""
    if delivery.kind == "callback":
        return callback_body(context.store, delivery.job_id), {}
    secrets = context.settings.signing_secrets(delivery.account)
    return delivery.body, signature_headers(secrets, delivery.id, delivery.taken_ms // 1000, delivery.body)
