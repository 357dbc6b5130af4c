"""How long /run takes until the job is on disk, beside the disk's own fsync and a GET that writes nothing."""

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dispatcher.client import Client
from dispatcher.local import Machine, Plan
from tasks.settings import Settings

JOB = {"url": "https://example.com/recording.mp3", "webhook_url": "https://example.com/hook"}


def quantiles(samples_ms: list[float]) -> dict[str, float]:
    ordered = sorted(samples_ms)
    return {
        "p50_ms": round(ordered[len(ordered) // 2], 2),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)], 2),
    }


def timed_ms(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started_s)


def measure() -> dict[str, dict[str, float]]:
    """p50 and p99 of each, taken in turn. No worker runs, so that nothing but accepting is measured."""
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Settings.from_env(data_dir=Path(folder), api_keys={}), Plan(port=0, roles=("api",)))
        try:
            machine.start(within_s=60)
            base = f"{machine.url}/v2/longhand"
            client = Client(base)
            for _ in range(50):
                client.submit(JOB)
            fsync, health, run = [], [], []
            with (Path(folder) / "fsync").open("ab") as file:
                for _ in range(500):
                    file.write(b"x" * 500)
                    file.flush()
                    fsync.append(timed_ms(lambda: os.fdatasync(file.fileno())))
                    health.append(timed_ms(client.health))
                    run.append(timed_ms(lambda: client.submit(JOB)))
            crowd = _crowd(base, callers=8, each=100)
        finally:
            machine.stop()
    return {
        "fdatasync of 500 bytes": quantiles(fsync),
        "GET /health": quantiles(health),
        "POST /run, one caller": quantiles(run),
        "POST /run, 8 callers": crowd,
    }


def _crowd(base: str, *, callers: int, each: int) -> dict[str, float]:
    def call(_: int) -> list[float]:
        client = Client(base)
        return [timed_ms(lambda: client.submit(JOB)) for _ in range(each)]

    started_s = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        samples = [sample for found in pool.map(call, range(callers)) for sample in found]
    rate = callers * each / (time.perf_counter() - started_s)
    return {**quantiles(samples), "jobs_per_s": round(rate, 1)}
