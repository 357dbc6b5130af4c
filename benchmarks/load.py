"""Accepting under load: 500 jobs a second, each on disk before its id is told, and /status beside."""

import asyncio
import gc
import json
import os
import tempfile
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

from benchmarks.accept import quantiles, timed_ms
from benchmarks.callers import Calls, closed_loop, open_loop, request
from benchmarks.commands import cpu_s
from dispatcher.local import Machine, Plan
from tasks.scripts import connect
from tasks.settings import Settings

# What ivrit's client sends, and a webhook.
JOB = {
    "type": "url",
    "url": "https://media.example.com/recordings/2026/11/26/interview-0123456789.mp3?token=0123456789abcdef0123456789abcdef",
    "model": "ivrit-ai/whisper-large-v3-turbo-ct2",
    "streaming": True,
    "transcribe_args": {"language": "he", "output_options": {"word_timestamps": True, "extra_data": True}},
    "webhook_url": "https://app.example.com/hooks/longhand",
    "recording_id": "recording-0123456789",
}
QUEUED = 2_000
RATE = 500.0
SECONDS = 10
STATUS_RATE = 50.0
ROUNDS = 5


def measure() -> dict[str, object]:
    """No worker runs, so that nothing but accepting is measured: every job stays queued."""
    with tempfile.TemporaryDirectory() as folder:
        # The platform's rate limit would end this soon; calls are counted all the same.
        settings = Settings.from_env(
            data_dir=Path(folder), api_keys={}, rate_limits=("run=1000000", "status=1000000")
        )
        machine = Machine(settings, Plan(port=0, roles=("api",)))
        try:
            machine.start(within_s=60)
            redis = connect(machine.settings.state_url)
            # A collection among the callers would count as the server's.
            gc.disable()
            began_s = _api_cpu_s(machine), cpu_s(redis)
            found = asyncio.run(_load(f"{machine.url}/v2/longhand"))
            ended_s, jobs = (_api_cpu_s(machine), cpu_s(redis)), int(redis.zcard("lh:jobs"))
            redis.close()
        finally:
            gc.enable()
            machine.stop()
        api_ms, redis_ms = (
            round(1000 * (end - begin) / jobs, 3) for begin, end in zip(began_s, ended_s, strict=True)
        )
        return {
            "fdatasync of 500 bytes": _fsync(Path(folder)),
            **found,
            # With the few calls of /status among them.
            "CPU per job, ms": {"API": api_ms, "Redis": redis_ms},
        }


async def _load(base: str) -> dict[str, object]:
    run = request("POST", f"{base}/run", json.dumps({"input": JOB}).encode())
    await closed_loop(base, run, callers=4, count=200)
    filled = await closed_loop(base, run, callers=16, count=QUEUED)
    ids = cycle([json.loads(body)["id"] for body in filled.bodies])
    alone = await closed_loop(base, run, callers=1, count=500)

    def status() -> bytes:
        return request("GET", f"{base}/status/{next(ids)}")

    steady = [await _both(base, run, status) for _ in range(ROUNDS)]
    return {
        f"POST /run, {QUEUED} jobs by 16 callers": filled.figures(),
        "POST /run, one caller": alone.figures(),
        f"POST /run, {RATE:g} due a second for {SECONDS} s": [runs.figures() for runs, _ in steady],
        f"GET /status meanwhile, {STATUS_RATE:g} a second": [looks.figures() for _, looks in steady],
    }


async def _both(base: str, run: bytes, status: Callable[[], bytes]) -> tuple[Calls, Calls]:
    return await asyncio.gather(
        open_loop(base, lambda: run, per_s=RATE, count=int(RATE * SECONDS)),
        open_loop(base, status, per_s=STATUS_RATE, count=int(STATUS_RATE * SECONDS)),
    )


def _fsync(folder: Path) -> dict[str, float]:
    with (folder / "fsync").open("ab") as file:

        def write() -> None:
            file.write(b"x" * 500)
            file.flush()
            os.fdatasync(file.fileno())

        return quantiles([timed_ms(write) for _ in range(500)])


def _api_cpu_s(machine: Machine) -> float:
    """User and system time of the API process."""
    fields = Path(f"/proc/{machine.pids()['api']}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
