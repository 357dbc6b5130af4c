"""Deliveries in Redis: rows with a due time, written by the script that changed the state they report."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from redis import Redis

from tasks.scripts import Scripts, text, unpack
from tasks.settings import Settings

Outcome = Literal["delivered", "retry", "dead", "gone"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST of a delivery: the status answered (0: none), how long it took, what went wrong."""

    at_ms: int
    status: int
    duration_ms: int
    error: str = ""

    def to_json(self) -> str:
        return json.dumps(
            {"at_ms": self.at_ms, "status": self.status, "duration_ms": self.duration_ms, "error": self.error}
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event to one URL, taken for one attempt. `attempts`: those made before this one."""

    id: str
    fence: str
    url: str
    body: bytes
    attempts: int


class Outbox:
    """The deliveries of each receiver, due or waiting."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._redis: Any = client
        self._scripts = Scripts(client)
        self._settings = settings

    def claim(self, receiver: str, drain: str) -> Delivery | None:
        """Take the receiver's next due delivery, or None: also while another drain serves the receiver.

        The lease outlasts one attempt.
        """
        answer = self._scripts("claim_delivery", receiver, 3 * self._settings.webhook_timeout_ms, drain)
        if not answer:
            return None
        delivery_id, fence, url, body, attempts = answer
        return Delivery(text(delivery_id), text(fence), text(url), unpack(body), int(attempts))

    def settle(self, delivery: Delivery, outcome: Outcome, attempt: Attempt, delay_ms: int = 0) -> str:
        """Write down one attempt. Returns the delivery's state now, or 'lost'."""
        return text(
            self._scripts(
                "settle_delivery",
                *(delivery.id, delivery.fence, outcome, delay_ms, attempt.to_json()),
                self._settings.retention_ms,
            )
        )

    def pending(self, job_id: str) -> int:
        """How many deliveries of a job are not settled yet."""
        return int(self._redis.llen(f"lh:job:{job_id}:outbox"))

    def attempts(self, delivery_id: str) -> list[Attempt]:
        """The attempts made so far, in order."""
        rows = self._redis.lrange(f"lh:delivery:{delivery_id}:attempts", 0, -1)
        return [Attempt(**json.loads(row)) for row in rows]

    def state(self, delivery_id: str) -> str:
        """waiting, sending, delivered, superseded, gone or dead; "" where there is none."""
        return text(self._redis.hget(f"lh:delivery:{delivery_id}", "state") or "")
