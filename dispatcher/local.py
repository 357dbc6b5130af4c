"""Everything on one machine, as `longhand up` runs it: Redis, API, workers and Flower, each kept alive."""

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from dispatcher.processes import Process, end_all
from tasks.errors import ConfigurationError, LonghandError
from tasks.scripts import connect
from tasks.settings import Settings, child_environment
from tasks.store import Store

LOOPBACK = "127.0.0.1"
TICK_S = 0.2
# What a worker needs to end, beside LONGHAND_SOFT_SHUTDOWN_MS for what it has in hand.
REST_S = 10.0
REDIS_GRACE_S = 8.0
HANDLER_GRACE_S = 600.0
REDIS_LOST_S = 10.0


class StartFailed(LonghandError):
    """A process could not be started."""

    code = "start_failed"


class RedisLost(LonghandError):
    """Redis is gone."""

    code = "redis_lost"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. Port 0: a free one. `flower_port` None: no Flower. `redis_url` "": embedded.

    Without `log_files` every process logs to this one's stderr, as containers do.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 2
    redis_url: str = ""
    flower_port: int | None = None
    roles: tuple[str, ...] = ("api", "transcribe", "io", "deliver")
    log_files: bool = True
    # Whether a Redis that is elsewhere, and does not answer, ends it all.
    ends_without_redis: bool = True


class Machine:
    """Starts the processes of a plan, watches them, and ends them all."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self._plan = plan
        self._logs = settings.data_path / "logs"
        # Temporary files of libraries stay in the data folder.
        folder = {"TMPDIR": str(self._logs)} if plan.log_files else {}
        try:
            (self._logs if plan.log_files else settings.data_path).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the data folder cannot be made: {error}") from error
        self.port = port_of(plan.host, plan.port) if "api" in plan.roles else 0
        self.flower_port = None if plan.flower_port is None else port_of(LOOPBACK, plan.flower_port)
        self._redis_port = 0 if plan.redis_url else port_of(LOOPBACK, 0)
        self.redis_url = plan.redis_url or f"redis://127.0.0.1:{self._redis_port}/0"
        self.settings = settings.model_copy(update={"redis_url": self.redis_url})
        self._env = child_environment(self.settings) | folder
        self._processes: list[Process] = []
        self._redis: Process | None = None
        self._handler: Process | None = None
        self._grace_s = settings.soft_shutdown_ms / 1000 + REST_S

    @property
    def url(self) -> str:
        host = _reachable(self._plan.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def start(self, within_s: float = 600.0) -> None:
        """Start everything; return once a worker has its model and the API answers.

        Takes seconds where the model is there, as long as its download where it is not.

        Raises StartFailed with the last lines of the log of what did not start.
        """
        deadline_s = time.monotonic() + within_s
        if not self._plan.redis_url:
            folder = self.settings.data_path / "redis"
            self._redis = self._process("redis", "tasks.embedded", str(folder), str(self._redis_port))
            # Killed outright, it would leave its server behind.
            self._redis.on_orphaned = signal.SIGTERM
            self._redis.start(time.monotonic())
        client = connect(self.settings.state_url)
        self._until(time.monotonic() + REDIS_LOST_S, "redis", lambda: _answers(client.ping))
        for process in self._others():
            self._processes.append(process)
            process.start(time.monotonic())
        store = Store(client, self.settings)
        if "transcribe" in self._plan.roles:
            self._until(deadline_s, "transcribe", lambda: _answers(lambda: store.slots("transcribe")[0] > 0))
        if "api" in self._plan.roles:
            self._until(deadline_s, "api", lambda: _listens(self._plan.host, self.port))
        if "handler" in self._plan.roles:
            # Only now: the platform gives work to whoever asks for it.
            self._handler = self._process("handler", "dispatcher.handler")
            self._processes.append(self._handler)
            self._handler.start(time.monotonic())
        client.close()

    def watch(self, say: Callable[[str], None]) -> None:
        """Keep everything alive; returns never. Raises RedisLost."""
        client = connect(self.settings.state_url)
        seen_s = time.monotonic()
        while True:
            self.tick(say)
            now_s = time.monotonic()
            if _answers(client.ping):
                seen_s = now_s
            elif self._plan.ends_without_redis and now_s - seen_s > REDIS_LOST_S:
                raise self._lost(f"Redis at {_without_password(self.redis_url)}")
            time.sleep(TICK_S)

    def tick(self, say: Callable[[str], None]) -> None:
        """Look once at every process; raises RedisLost where the embedded server is gone."""
        if self._redis and self._redis.ended:
            raise self._lost(f"the embedded Redis ({self._redis.last_lines(1)})")
        for process in self._processes:
            if process.revive(time.monotonic()):
                say(f"{process.name} had ended and was started again")

    def stop(self) -> None:
        """End every process: politely, then by force; Redis last."""
        if self._handler:
            self._finish(self._handler)
        end_all(self._processes, self._grace_s)
        if self._redis:
            end_all([self._redis], REDIS_GRACE_S)

    def _finish(self, handler: Process) -> None:
        """Let the handler finish the job it has; that needs all others, which are kept alive meanwhile."""
        self._processes.remove(handler)
        if handler.popen:
            handler.popen.terminate()
        deadline_s = time.monotonic() + HANDLER_GRACE_S
        with contextlib.suppress(RedisLost):
            while not handler.ended and time.monotonic() < deadline_s:
                self.tick(lambda _said: None)
                time.sleep(TICK_S)
        end_all([handler], self._grace_s)

    def pids(self) -> dict[str, int]:
        """Process ids by name, of what is running now."""
        every = [*self._processes, *([self._redis] if self._redis else [])]
        return {process.name: process.popen.pid for process in every if process.popen and not process.ended}

    def _lost(self, redis: str) -> RedisLost:
        # Nothing that a worker has in hand can be written down any more.
        self._grace_s = 1.0
        return RedisLost(f"lost {redis}; stopping")

    def _process(self, name: str, *argv: str) -> Process:
        log = self._logs / f"{name}.log" if self._plan.log_files else None
        return Process(name, list(argv), self._env, log)

    def _others(self) -> Iterator[Process]:
        """Everything but Redis."""
        plan = self._plan
        arguments = {
            "api": ("dispatcher.app", "--host", plan.host, "--port", str(self.port)),
            "transcribe": ("tasks.worker", "transcribe", "--concurrency", str(plan.workers)),
            "io": ("tasks.worker", "io"),
            "deliver": ("tasks.worker", "deliver"),
        }
        for role, argv in arguments.items():
            if role in plan.roles:
                yield self._process(role, *argv)
        if self.flower_port:
            yield self._process("flower", "dispatcher.dashboard", "--port", str(self.flower_port))

    def _until(self, deadline_s: float, name: str, ready: Callable[[], bool]) -> None:
        """Wait for one step of the start; fail at once where a process ends instead."""
        while not ready():
            every = [*self._processes, *([self._redis] if self._redis else [])]
            for process in every:
                if process.ended:
                    lines = process.last_lines() if process.log else "see the lines above"
                    raise StartFailed(f"{process.name} ended while starting:\n{lines}")
            if time.monotonic() > deadline_s:
                log = f"{self._logs / name}.log" if self._plan.log_files else "the lines above"
                where = _without_password(self.redis_url) if name == "redis" else log
                raise StartFailed(f"{name} was not ready in time: see {where}")
            time.sleep(TICK_S)


def port_of(host: str, port: int) -> int:
    """The port, or a free one for 0. Raises StartFailed where nothing can listen on it."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # As servers do, or a port that was in use a minute ago would count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        raise StartFailed(f"cannot listen on port {port} of {host}: {error.strerror or error}") from error


def _answers(question: Callable[[], object]) -> bool:
    try:
        return bool(question())
    except (AuthenticationError, ResponseError) as error:
        raise StartFailed(f"Redis refuses: {error}") from error
    except RedisError:
        return False


def _reachable(host: str) -> str:
    """Where a server that listens on `host` is reached from here."""
    return {"": LOOPBACK, "0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((_reachable(host), port), 1).close()
    except OSError:
        return False
    return True


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("?")[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
