"""A stack of real processes with the real engine, and how long it takes for a recording."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dispatcher.local import Plan
from tasks.job import Status
from tasks.model_names import model_of
from tasks.settings import Settings
from tasks.store import Store
from tests.conftest import Stack, stack_of

SECONDS_OF_JOB = 3_600


@contextmanager
def stack(plan: Plan, **changes: Any) -> Iterator[Stack]:
    """Everything that is started in a folder of its own; `changes` are settings."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        settings = Settings.from_env(
            data_dir=Path(folder), allow_private_addresses=True, api_keys={}, **changes
        )
        settings = settings.model_copy(update={"model": model_of("", settings)})
        with stack_of(settings, plan) as started:
            yield started


def transcribed(stack: Stack, url: str, *, words: bool = True, **fields: Any) -> tuple[str, float]:
    """A recording's job, and the seconds from its submission to its success."""
    arguments = {"language": "en", "word_timestamps": words}
    job_input = {"url": url, "transcribe_args": arguments, **fields}
    began_s = time.perf_counter()
    job_id = stack.client.submit(job_input)
    until_succeeded(stack.store, job_id)
    return job_id, time.perf_counter() - began_s


def until_succeeded(store: Store, job_id: str, within_s: float = SECONDS_OF_JOB) -> None:
    """Wait for the end of a job; raises RuntimeError where it is another one, or late."""
    deadline_s = time.monotonic() + within_s
    while (job := store.job(job_id)) and not job.terminal:
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"{job_id} takes too long")
        time.sleep(0.02)
    if job is None or job.status != Status.SUCCEEDED:
        raise RuntimeError(f"{job_id} is {job and job.status}: {job and job.error}")


def heard(stack: Stack, job_id: str) -> str:
    """What a job's transcript says."""
    job = stack.store.job(job_id)
    assert job
    return " ".join(segment.text for segment in stack.store.transcript(job).segments)
