"""New jobs go to Redis together: those who create at the same time wait for the disk together."""

from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

from tasks.durable import Durable
from tasks.groups import Group
from tasks.scripts import Scripts

Arguments = tuple[str | int | bytes, ...]


class Creator:
    """`creator(arguments)` is what `create` answers to them, once the job is as durable as it has to be.

    Raises redis.exceptions.RedisError, and its TimeoutError where a disk takes too long.
    """

    def __init__(self, client: Redis, scripts: Scripts, durable: Durable) -> None:
        # redis-py types its answers as sync-or-async unions.
        self._redis: Any = client
        self._scripts = scripts
        self._durable = durable
        self.group: Group[Arguments, int | bytes] = Group(self._create_all)

    def __call__(self, arguments: Arguments) -> int | bytes:
        return self.group(arguments)

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
