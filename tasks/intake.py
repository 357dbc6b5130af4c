"""A worker takes no more messages from its queue than it has processes that can work.

Celery counts those that are still starting, too: what it took for them would wait until they have started,
and of those that cannot load their model that may be never.
"""

import contextlib
import os
import signal
from typing import Any

from celery import bootsteps
from celery.signals import worker_shutting_down
from celery.worker.state import reserved_requests


class Intake(bootsteps.StartStopStep):
    """A step of Celery's consumer, taken anew with each connection to the broker."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """As Celery's own `worker_disable_prefetch` does it, but by processes that are up."""
        quota, pool = parent.task_consumer.channel.qos, parent.pool._pool
        has_room = quota.can_consume

        def can_consume() -> bool:
            return len(reserved_requests) < len(pool._fileno_to_inq) and bool(has_room())

        quota.can_consume = can_consume

        def told_to_end(**_: object) -> None:
            # Celery would wait for them: only a process that is up hears that it is to end.
            for process in tuple(pool._pool):
                if pool._fileno_to_inq.get(process.inqW_fd) is not process:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGTERM)

        worker_shutting_down.connect(told_to_end, weak=False, dispatch_uid="intake")
