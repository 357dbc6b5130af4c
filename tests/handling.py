"""The RunPod handler as a process, and what a platform of ours saw of it."""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.job import Status
from tasks.settings import Settings, child_environment
from tests.conftest import Eventually, Stack
from tests.fake_platform import FakePlatform

ROOT = Path(__file__).parents[1]
CONCURRENCY = 3


@contextlib.contextmanager
def handling(
    settings: Settings, platform: FakePlatform, folder: Path, **changes: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker container's main process; ended, with its heartbeat, when the test is."""
    settings = settings.model_copy(update={"handler_concurrency": CONCURRENCY, **changes})
    environment = child_environment(settings) | platform.environment() | {"HOME": str(folder)}
    with (folder / "handler.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dispatcher.handler"],
            env=environment,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        # The SDK's heartbeat is a process of the same group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def new_id(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}-u1"


def ended(platform: FakePlatform, eventually: Eventually, job_id: str) -> dict[str, Any]:
    eventually(lambda: platform.results(job_id), 30, f"job-done of {job_id}")
    (result,) = platform.results(job_id)
    return result


def status(stack: Stack, job_id: str) -> Status | None:
    job = stack.store.job(job_id)
    return job.status if job else None


def of_type(items: list[Any], kind: str) -> list[dict[str, Any]]:
    return [entry for item in items for entry in item if entry["type"] == kind]
