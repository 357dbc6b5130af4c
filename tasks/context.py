"""What a process that runs stages holds: settings, the state, the doorbells, the blob store."""

import contextlib
import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from billiard import current_process
from celery import Celery, Task
from redis.exceptions import RedisError

from tasks.app import Doorbells, create_app
from tasks.blobs import Blobs
from tasks.engine import Engine, load_engine
from tasks.leases import Leases
from tasks.outbox import Outbox
from tasks.presence import slot_name
from tasks.roles import worker_name
from tasks.scripts import WORKER_PATIENCE, connect
from tasks.settings import Settings
from tasks.store import Store
from tasks.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Context:
    """Passed to everything that runs in a worker process."""

    settings: Settings
    store: Store
    leases: Leases
    outbox: Outbox
    bells: Doorbells
    blobs: Blobs
    uploads: Uploads
    worker: str
    # What it keeps open as long as it can work: see presence.py.
    slot: str

    def keep_slot(self, stage: str, run: Callable[[Callable[[], None]], object]) -> None:
        """Report this process as ready for a stage, for as long as `run` runs what it is given."""
        while True:
            run(functools.partial(self.open_slot, stage))
            time.sleep(self.settings.lease_ms / 4000)

    def open_slot(self, stage: str) -> None:
        """Report this process as ready for a stage, for a lease."""
        with contextlib.suppress(RedisError):
            self.leases.open_slot(stage, self.slot)


def build(settings: Settings, app: Celery) -> Context:
    client = connect(settings.state_url, WORKER_PATIENCE)
    worker = worker_name(os.getpid())
    leases = Leases(client, settings, worker)
    return Context(
        settings,
        Store(client, settings),
        leases,
        Outbox(client, settings),
        Doorbells(app, leases),
        Blobs(settings.blobs),
        Uploads(client, settings),
        worker,
        slot_name(worker_name(os.getppid()) if _is_child() else worker, worker),
    )


def _is_child() -> bool:
    return hasattr(current_process(), "index")


def child_index() -> int:
    """Which of its worker's processes this one is, from 0."""
    return int(getattr(current_process(), "index", 0))


@functools.cache
def of_process() -> Context:
    """The context of this worker process, built at its first use: a spawned child begins with nothing."""
    settings = Settings.from_env()
    return build(settings, create_app(settings))


@functools.cache
def engine_of_process() -> Engine:
    """The engine of this worker process; it keeps its models loaded."""
    return load_engine(of_process().settings, child_index())


class Stage(Task):  # type: ignore[type-arg]
    """A task of the pipeline."""

    @property
    def context(self) -> Context:
        return of_process()
