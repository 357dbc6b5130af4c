"""When a new job is where it has to be before its client is told: on disk, with Sentinel on two of them."""

from typing import Any

import structlog
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tasks.scripts import text

# Less than the patience of an HTTP client's connection to Redis.
DISK_MS = 2_500
# For how long the mark is kept whose only use is to be confirmed.
MARK_MS = 60_000

log = structlog.get_logger()


class Durable:
    """Waits for the disk of the server and, where Sentinels watch it, for that of one replica.

    A replica counts while the server has it connected. Without one jobs are accepted all the same, as long as
    the Sentinels name this server: to refuse them would make two servers less available than one.
    """

    def __init__(self, *, wanted: bool, watched: bool) -> None:
        self._wanted = wanted
        self._watched = watched
        self._replicas = int(watched)
        self._kept = True

    def on_disk(self, kept: bool) -> None:
        """Whether the server keeps (or may keep) an append-only file. Its caller says so to people."""
        self._kept = kept

    def ask(self, redis: Any, pipe: Any) -> None:
        """Queue the questions behind the writes that are in the pipeline `pipe` of the client `redis`."""
        if not self._wanted:
            return
        if self._watched:
            if not self._replicas:
                # A master that was replaced and does not know it has no replica either. If the Sentinels name
                # another, what comes now goes there.
                redis.connection_pool.get_master_address()
                # One that is back counts from the first job on.
                self._look(redis.execute_command("ROLE"))
            pipe.execute_command("ROLE")
        pipe.execute_command("WAITAOF", 1, self._replicas, DISK_MS)

    def check(self, answers: list[Any]) -> None:
        """Judge the answers to a pipeline whose last questions were ours.

        Raises redis.exceptions.TimeoutError where the disk took too long, and the first error among them.
        """
        refused = ""
        for answer in answers:
            if isinstance(answer, ResponseError) and "WAITAOF" in str(answer):
                refused = str(answer)
            elif isinstance(answer, Exception):
                raise answer
        if not self._wanted:
            return
        self._tell(refused)
        if refused:
            return
        local, replicas = answers[-1]
        if not local:
            raise RedisTimeoutError("Redis did not have the job on disk in time")
        if self._watched and self._replicas and not replicas:
            self._look(answers[-2])
            raise RedisTimeoutError("no replica of Redis had the job on disk in time")

    def confirmed(self, redis: Any) -> bool:
        """Whether what the server says may be acted on for good, such as by deleting audio.

        Where Sentinels watch it, a master that was frozen and replaced goes on for a moment as before; but no
        replica confirms what is written to it. Raises redis.exceptions.RedisError.
        """
        if not self._watched:
            return True
        with redis.pipeline(transaction=False) as pipe:
            pipe.set("lh:mark", 1, px=MARK_MS)
            self.ask(redis, pipe)
            answers = pipe.execute(raise_on_error=False)
        try:
            self.check(answers)
        except RedisTimeoutError as error:
            log.warning("not_confirmed", error=str(error))
            return False
        return True

    def _tell(self, refused: str) -> None:
        """Log a change. The server is asked every time: to refuse costs it nothing."""
        if self._kept and refused:
            # No file, or a server before 7.2. It may be one that was promoted, or a change by hand.
            log.warning("not_on_disk", warning="Redis tells nobody what it has on disk", error=refused)
        elif not self._kept and not refused:
            log.info("on_disk_again")
        self._kept = not refused

    def _look(self, role: Any) -> None:
        replicas = len(role[2]) if text(role[0]) == "master" else 1
        if self._replicas and not replicas:
            log.warning("no_replica", warning="Redis has no replica: what it accepts is on its disk alone")
        self._replicas = min(1, replicas)
