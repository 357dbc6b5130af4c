"""What is left of many jobs once their retention is over: keys, blobs, files, descriptors, threads, memory.

A real stack with the fake engine of the tests; every fifth job is canceled and every seventh fails, and each
tells a receiver. Figures are taken after a first tenth of the jobs, when everything is warm, and at the end,
each time once nothing is kept any more.
"""

import contextlib
import tempfile
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.receivers import receivers
from benchmarks.recording import serving
from dispatcher.client import ApiError, Client
from dispatcher.local import Machine, Plan
from tasks.scripts import connect
from tasks.settings import Settings
from tests.chaos.leftovers import keys_left
from tests.chaos.world import children_of

JOBS = 10_000
AT_ONCE = 60
RETENTION_MS = 2_000
PATIENCE_S = 600


def measure(jobs: int = JOBS) -> dict[str, object]:
    """Figures after a tenth of the jobs and after all of them."""
    with tempfile.TemporaryDirectory() as name, _stack(Path(name)) as (machine, source, hook):
        _run(machine, source, hook, jobs // 10)
        early = _figures(machine, Path(name))
        _run(machine, source, hook, jobs - jobs // 10)
        late = _figures(machine, Path(name))
    return {f"after {jobs // 10} jobs": early, f"after {jobs} jobs": late}


@contextmanager
def _stack(folder: Path) -> Iterator[tuple[Machine, str, str]]:
    recording = folder / "short.wav"
    with wave.open(str(recording), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(range(256)) * 125)
    settings = Settings.from_env(
        data_dir=folder / "data",
        allow_private_addresses=True,
        api_keys={},
        engine="tests.fake_engine:FakeEngine",
        model="multi",
        retention_ms=RETENTION_MS,
        reap_ms=200,
        attempt_delay_ms=50,
        durable_accept=False,
    )
    machine = Machine(settings, Plan(port=0, workers=1))
    with serving(recording) as source, receivers(folder / "log", healthy=1) as them:
        try:
            machine.start(within_s=120)
            yield machine, source, them.urls("healthy")[0]
        finally:
            machine.stop()


def _run(machine: Machine, source: str, hook: str, count: int) -> None:
    """So many jobs, a few at a time, and the wait until nothing is kept of them."""
    client, running = Client(f"{machine.url}/v2/longhand"), list[str]()
    for number in range(count):
        fields: dict[str, object] = {"url": source, "webhook_url": hook}
        if number % 7 == 0:
            fields["transcribe_args"] = {"initial_prompt": "fail:0"}
        running.append(client.submit(fields))
        if number % 5 == 0:
            with contextlib.suppress(ApiError):
                client.cancel(running[-1])
        if len(running) >= AT_ONCE:
            _wait(client, running)
    _wait(client, running)
    redis, deadline_s = connect(machine.settings.state_url), time.monotonic() + PATIENCE_S
    while any(keys_left(redis)) and time.monotonic() < deadline_s:
        time.sleep(0.5)
    redis.close()


def _wait(client: Client, running: list[str]) -> None:
    while running:
        # Its retention may be over before it is asked for.
        with contextlib.suppress(ApiError):
            for _ in client.progress(running.pop()):
                pass


def _figures(machine: Machine, folder: Path) -> dict[str, object]:
    redis = connect(machine.settings.state_url)
    figures: dict[str, object] = {
        "keys": redis.dbsize(),
        "keys that may not stay": len(list(keys_left(redis))),
        "Redis, KB": redis.info("memory")["used_memory"] // 1024,
        "files": {
            place.name: sum(path.is_file() for path in place.rglob("*"))
            for place in sorted((folder / "data").iterdir())
            if place.is_dir()
        },
    }
    redis.close()
    for role, pid in machine.pids().items():
        figures[role] = [_process(each) for each in (pid, *children_of(pid))]
    return figures


def _process(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return {
        "rss_kb": int(status["VmRSS"].split()[0]),
        "threads": int(status["Threads"]),
        "fds": len(list(Path(f"/proc/{pid}/fd").iterdir())),
    }
