"""What a chunk costs Redis with real workers, by command: ours, Celery's, and those inside scripts."""

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.recording import serving
from dispatcher.client import Client
from dispatcher.local import Machine, Plan
from tasks.scripts import Scripts, connect
from tasks.settings import Settings
from tests.chaos.world import children_of
from tests.conftest import write_recording

CHUNKS = 100
# Of scripts that are sent by time, and not for a chunk.
KINDS = {"beat": "heartbeats", "look": "heartbeats"} | dict.fromkeys(
    ("reap", "reign", "report"), "slots and reaper"
)


def measure() -> dict[str, object]:
    """A job of many chunks through real processes, twice: for the CPU time, and for the commands."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_recording(folder / "talk.wav", 10 * CHUNKS)
        settings = Settings.from_env(
            data_dir=folder,
            engine="tests.fake_engine:FakeEngine",
            model="multi",
            allow_private_addresses=True,
            api_keys={},
            first_chunks_ms=(),
        )
        machine = Machine(settings, Plan(port=0, workers=2))
        with serving(folder / "talk.wav") as url:
            try:
                machine.start(within_s=60)
                redis = connect(machine.settings.state_url)
                client = Client(f"{machine.url}/v2/longhand")
                _transcribe(client, redis, url)
                connections = _connections(machine)
                idle_s = idle_share(redis)
                always_ms = _cpu_ms_per_chunk(client, redis, url, idle_s)
                redis.config_set("appendfsync", "everysec")
                everysec_ms = _cpu_ms_per_chunk(client, redis, url, idle_s)
                with _watched(redis, machine.settings) as seen:
                    job_id = _transcribe(client, redis, url)
                if (status := client.status(job_id)["status"]) != "COMPLETED":
                    raise RuntimeError(f"the job is {status}")
                redis.close()
            finally:
                machine.stop()
    per_chunk = {kind: round(count / CHUNKS, 1) for kind, count in sorted(_kinds(seen).items())}
    return {
        "chunks": CHUNKS,
        "commands per chunk": per_chunk,
        "most frequent": {f"{kind} {name}": round(n / CHUNKS, 2) for (kind, name), n in _top(seen)},
        "Redis CPU per chunk, ms": always_ms,
        "the same with appendfsync everysec": everysec_ms,
        "idle Redis CPU, share of one core": round(idle_s, 4),
        "connections, by role (transcribe has 2 children)": connections,
    }


def _cpu_ms_per_chunk(client: Client, redis: Any, url: str, idle_s: float) -> float:
    """Without what Redis does for workers that only wait."""
    before_s, began_s = cpu_s(redis), time.monotonic()
    _transcribe(client, redis, url)
    spent_s = cpu_s(redis) - before_s - idle_s * (time.monotonic() - began_s)
    return round(1000 * spent_s / CHUNKS, 3)


def _transcribe(client: Client, redis: Any, url: str) -> str:
    """One job, until it has ended; its id. Nobody reads its text."""
    job_id = client.submit({"url": url, "chunk_seconds": 10})
    deadline_s = time.monotonic() + 600
    while not redis.hstrlen(f"lh:job:{job_id}", "finished_ms"):
        if time.monotonic() > deadline_s:
            raise TimeoutError("the job takes too long")
        time.sleep(0.2)
    return job_id


def _connections(machine: Machine) -> dict[str, int]:
    """Connections to Redis that the processes of each role hold, children included."""
    port = f":{int(machine.redis_url.rpartition(':')[2].partition('/')[0]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(port)}
    found = {}
    for role, parent in machine.pids().items():
        files = [file for pid in _tree(parent) for file in Path(f"/proc/{pid}/fd").iterdir()]
        found[role] = sum(os.readlink(file) in sockets for file in files if file.is_symlink())
    return found


def _tree(pid: int) -> list[int]:
    return [pid, *(each for child in children_of(pid) for each in _tree(child))]


def idle_share(redis: Any) -> float:
    """CPU seconds a second of a Redis that is only waited for."""
    before_s, began_s = cpu_s(redis), time.monotonic()
    time.sleep(5)
    return (cpu_s(redis) - before_s) / (time.monotonic() - began_s)


def cpu_s(redis: Any) -> float:
    found = redis.info("cpu")
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


@contextmanager
def _watched(redis: Any, settings: Settings) -> Iterator[Counter[tuple[str, str]]]:
    """Every command that the server runs meanwhile: whose it is, and its name or that of its script."""
    scripts = {script.sha: name for name, script in Scripts(redis)._scripts.items()}
    state_db = int(settings.state_url.rpartition("/")[2])
    seen: Counter[tuple[str, str]] = Counter()
    over = threading.Event()

    def watch(monitor: Any) -> None:
        for command in monitor.listen():
            seen[_what(command, state_db, scripts)] += 1
            if over.is_set():
                return

    with redis.monitor() as monitor:
        thread = threading.Thread(target=watch, args=(monitor,), daemon=True)
        thread.start()
        yield seen
        # It looks up at the next command.
        over.set()
        redis.ping()
        thread.join(10)


def _what(command: dict[str, Any], state_db: int, scripts: dict[str, str]) -> tuple[str, str]:
    name, _, rest = command["command"].partition(" ")
    if command["client_type"] == "lua":
        return "inside scripts", name
    if name in ("HSTRLEN", "PING"):
        return "this benchmark", name
    if int(command["db"]) != state_db:
        return ("broker, waiting" if name == "BRPOP" else "broker"), name
    if name != "EVALSHA":
        return "state", name
    script = scripts.get(rest.partition(" ")[0], "?")
    if "lh:slots" in rest:
        return "slots and reaper", script
    return KINDS.get(script, "state"), script


def _kinds(seen: Counter[tuple[str, str]]) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for (kind, _), count in seen.items():
        kinds[kind] += count
    return kinds


def _top(seen: Counter[tuple[str, str]]) -> list[tuple[tuple[str, str], int]]:
    return [entry for entry in seen.most_common(40) if entry[0][0] != "inside scripts"]
