"""Deliveries in Redis: rows with a due time, written by the script that changed the state they report."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from redis import Redis

from tasks.scripts import Scripts, pack, text, unpack
from tasks.settings import Settings

Outcome = Literal["delivered", "retry", "dead", "gone"]
Kind = Literal["transcribing", "progress", "terminal", "callback", "test"]
# Of a receiver, as its last attempt showed it; "down" is no answer, or one that says that it cannot work.
Health = Literal["unknown", "fast", "slow", "down"]
# An attempt that never got to the receiver says nothing of it.
UNTOUCHED: Health = "unknown"
STATES = ("waiting", "sending", "delivered", "superseded", "gone", "dead")
PAGE = 200
LOOKED_AT = 10_000


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
    """One event to one URL, taken for one attempt at `taken_ms`. `attempts`: those made before this one."""

    id: str
    fence: str
    taken_ms: int
    url: str
    body: bytes
    attempts: int
    kind: Kind = "terminal"
    job_id: str = ""
    account: str = ""
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A delivery as people read about it: scheme, host and port of its URL, the rest may be secret.

    `due_ms` is None unless it is its turn, `settled_ms` until it is over.
    """

    id: str
    job_id: str
    kind: Kind
    receiver: str
    state: str
    attempts: int
    created_ms: int
    due_ms: int | None
    settled_ms: int | None


class Outbox:
    """The deliveries of each receiver, due or waiting."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._redis: Any = client
        self._scripts = Scripts(client)
        self._settings = settings

    def claim(self, receiver: str, drain: str) -> Delivery | None:
        """Take the receiver's next due delivery; None: nothing is to be sent now, or others see to it.

        The lease outlasts one attempt.
        """
        settings = self._settings
        answer = self._scripts(
            "claim_delivery",
            *(receiver, 3 * settings.webhook_timeout_ms, drain),
            *(settings.webhook_concurrency, settings.longest_retention_ms),
        )
        if not answer:
            return None
        delivery_id, fence, now_ms, url, body, attempts, *about = answer
        kind, job_id, account, endpoint = map(text, about)
        return Delivery(
            *(text(delivery_id), text(fence), now_ms, text(url), unpack(body) if body else b""),
            *(int(attempts), kind, job_id, account, endpoint),  # type: ignore[arg-type]
        )

    def settle(
        self, delivery: Delivery, outcome: Outcome, attempt: Attempt, health: Health, delay_ms: int = 0
    ) -> str:
        """Write down one attempt, and how the receiver did. Returns the delivery's state now, or 'lost'."""
        settings = self._settings
        return text(
            self._scripts(
                "settle_delivery",
                *(delivery.id, delivery.fence, outcome, delay_ms, attempt.to_json()),
                *(settings.longest_retention_ms, health),
                *(settings.webhook_circuit_failures, *settings.webhook_circuit_open_ms),
            )
        )

    def health(self, receiver: str) -> Health:
        """How the receiver did when it was last tried."""
        return text(self._redis.hget(f"lh:circuit:{receiver}", "health") or "unknown")  # type: ignore[return-value]

    def put_off(self, receiver: str, for_ms: int) -> None:
        """Let the reaper ring for a receiver later, if anything is due to it."""
        seconds, micros = self._redis.time()
        self._redis.zadd("lh:receivers", {receiver: seconds * 1000 + micros // 1000 + for_ms}, xx=True)

    def leave(self, receiver: str, drain: str) -> None:
        """A drain ends although more may be due."""
        self._redis.zrem(f"lh:drains:{receiver}", drain)

    def redeliver(self, delivery_id: str, account: str) -> str:
        """Make a delivery due once more; the receiver to ring for, or "" if the account has none such."""
        return text(self._scripts("redeliver", delivery_id, account))

    def test(
        self, delivery_id: str, account: str, endpoint: str, *, url: str, receiver: str, body: str
    ) -> None:
        """Write a delivery that is about no job."""
        self._scripts(
            "test_delivery",
            *(delivery_id, account, endpoint, url, receiver, pack(body)),
            *(self._settings.retention_ms, self._settings.longest_retention_ms),
        )

    def entry(self, delivery_id: str, account: str) -> Entry | None:
        """What became of a delivery of this account."""
        names = ("account", "job", "kind", "receiver", "state", "attempts", "created_ms", "settled_ms")
        row = self._redis.hmget(f"lh:delivery:{delivery_id}", *names)
        if row[0] is None or text(row[0]) != account:
            return None
        job_id, kind, receiver, state = map(text, row[1:5])
        due_ms = self._redis.zscore(f"lh:receiver:{receiver}", delivery_id)
        return Entry(
            *(delivery_id, job_id, kind, receiver.rpartition("|")[2], state),  # type: ignore[arg-type]
            *(int(row[5]), int(row[6])),
            int(due_ms) if due_ms is not None else None,
            int(row[7]) if row[7] is not None else None,
        )

    def entries(self, account: str, state: str, job_id: str, limit: int) -> list[Entry]:
        """The account's newest deliveries; only those in a state or of a job, if one is given.

        Dead letters are a list of their own; otherwise so many are looked at.
        """
        found: list[Entry] = []
        for entry in self._listed(account, f"lh:{'dead' if state == 'dead' else 'deliveries'}:{account}"):
            if state in ("", entry.state) and job_id in ("", entry.job_id):
                found.append(entry)
            if len(found) == limit:
                break
        return found

    def _listed(self, account: str, key: str) -> Iterator[Entry]:
        for start in range(0, min(LOOKED_AT, self._redis.zcard(key)), PAGE):
            for delivery_id in self._redis.zrevrange(key, start, start + PAGE - 1):
                if entry := self.entry(text(delivery_id), account):
                    yield entry

    def pending(self, job_id: str) -> int:
        """How many events of a job are not settled yet."""
        return int(self._redis.llen(f"lh:job:{job_id}:outbox"))

    def attempts(self, delivery_id: str) -> list[Attempt]:
        """The attempts made so far, in order."""
        rows = self._redis.lrange(f"lh:delivery:{delivery_id}:attempts", 0, -1)
        return [Attempt(**json.loads(row)) for row in rows]

    def state(self, delivery_id: str) -> str:
        """waiting, sending, delivered, superseded, gone or dead; "" where there is none."""
        return text(self._redis.hget(f"lh:delivery:{delivery_id}", "state") or "")
