"""New jobs go to Redis together: those who create at the same time wait for the disk together.

One whose input was refused goes alone, since it ends in the step that writes it.
"""

import json
from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

from tasks.durable import Durable
from tasks.errors import QueueFull, QuotaExceeded, ServiceFull
from tasks.groups import Group
from tasks.idempotency import Once
from tasks.job import NewJob, Request
from tasks.scripts import Scripts, pack, text
from tasks.settings import Settings

Arguments = tuple[str | int | bytes, ...]


class Creator:
    """Writes jobs; on return each is as durable as it has to be.

    Both ways raise redis.exceptions.RedisError, and its TimeoutError where a disk takes too long; QueueFull,
    QuotaExceeded, ServiceFull; AlreadyAccepted and IdempotencyConflict where the job's request came before.
    """

    def __init__(self, client: Redis, scripts: Scripts, durable: Durable, settings: Settings) -> None:
        # redis-py types its answers as sync-or-async unions.
        self._redis: Any = client
        self._scripts = scripts
        self._durable = durable
        self._settings = settings
        self.group: Group[Arguments, int | bytes] = Group(self._create_all)

    def create(self, new: NewJob) -> bool:
        """Whether there was no job of this id."""
        return _created(self.group(self._arguments(new)), new.once)

    def refuse(self, new: NewJob, ending: Arguments) -> tuple[bool, tuple[str, ...]]:
        """The same, and the receivers to ring for. `ending` is what `finish` is told of it."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("MULTI")
            # Whole, for a server that was restarted may know one of the two, and would do half.
            self._scripts.queue_whole(pipe, "create", *self._arguments(new))
            self._scripts.queue_whole(pipe, "finish", *ending)
            pipe.execute_command("EXEC")
            self._durable.ask(self._redis, pipe)
            answers = pipe.execute(raise_on_error=False)
        self._durable.check(answers)
        answer, ended = answers[3]
        for error in (answer, ended):
            if isinstance(error, Exception):
                raise error
        return _created(answer, new.once), tuple(map(text, ended[1]))

    def _create_all(self, jobs: Sequence[Arguments]) -> Sequence[int | bytes | Exception]:
        with self._redis.pipeline(transaction=False) as pipe:
            for arguments in jobs:
                self._scripts.queue(pipe, "create", *arguments)
            self._durable.ask(self._redis, pipe)
            answers = pipe.execute(raise_on_error=False)
        created: list[int | bytes | Exception] = answers[: len(jobs)]
        if any(isinstance(answer, NoScriptError) for answer in created):
            # It was restarted. What it did of these before it forgot is not done again.
            self._scripts.load("create")
            return self._create_all(jobs)
        self._durable.check(answers[len(jobs) :])
        return created

    def _arguments(self, new: NewJob) -> Arguments:
        settings, once = self._settings, new.once
        known = (once.key, once.body) if once else ("", "")
        kept: dict[str, str | int] = {
            "retention_ms": settings.retention_ms if new.retention_ms is None else new.retention_ms,
            "weight": settings.weight(new.account),
        }
        row: dict[str, str | int | bytes] = {
            **_row(new, new.request),
            "webhook_url": new.webhook_url,
            "receiver": new.receiver,
            "execution_timeout_ms": new.execution_timeout_ms,
            **kept,
        }
        if callback := new.callback:
            row |= {"callback_url": callback.url, "callback_receiver": callback.receiver}
            row["callback_input"] = pack(callback.input)
        parts = [{**_row(new, request), **kept} for request in new.parts]
        pairs = [part for pair in row.items() for part in pair]
        job = (new.id, new.endpoint, new.ttl_ms, json.dumps(parts) if parts else "")
        limits = (settings.max_queued_jobs, 60_000 * settings.max_audio_minutes, settings.max_waiting_jobs)
        return (*job, *limits, new.account, *known, *pairs)


def _created(answer: int | bytes, once: Once | None) -> bool:
    """What `create` has answered; raises what stands for a refusal."""
    if once and isinstance(answer, bytes):
        raise once.told(text(answer))
    if (outcome := int(answer)) < 0:
        raise (QueueFull, QuotaExceeded, ServiceFull)[-outcome - 1]
    return outcome == 1


def _row(new: NewJob, request: Request | None) -> dict[str, str | int]:
    """The fields that a job has in common with the parts of a batch."""
    return {
        # A chunk of a low-priority job counts as four against its place in line.
        "cost": 4 if new.low_priority else 1,
        "request": request.to_json() if request else "",
        "recording_id": new.recording_id or new.id,
        "language": request.language if request else "",
        "pinned": int(bool(request and request.pinned)),
        "allow_gaps": int(bool(request and request.allow_gaps)),
    }
