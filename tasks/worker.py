"""`python -m tasks.worker ROLE`: one Celery worker, whose role says which stages it runs.

Its parent reaps and never loads a model; its spawned children do. The parent fetches the model first, since
a child's start is limited in time.
"""

import argparse
import contextlib
import os
import sys
import threading

import structlog
from celery import current_app
from celery.signals import setup_logging, worker_process_init, worker_process_shutdown
from redis.exceptions import RedisError

from tasks import app, context, model_names, models, reaper
from tasks.errors import LonghandError
from tasks.leases import Leases
from tasks.logs import start_logging
from tasks.scripts import Patience, connect
from tasks.settings import Settings, refuse_telemetry
from tasks.store import Store

# Role -> stages it runs, pool, processes or threads at least.
ROLES = {
    "transcribe": ((app.TRANSCRIBE,), "prefork", 1),
    "io": ((app.INGEST, app.ASSEMBLE), "prefork", 3),
    "deliver": ((app.DELIVER,), "threads", 16),
}

log = structlog.get_logger()


@setup_logging.connect
def keep_our_logging(**_: object) -> None:
    """In parent and children; without a receiver of this signal Celery sets up its own."""
    start_logging()


@worker_process_init.connect
def open_child(**_: object) -> None:
    """A child reports as a slot once it can work: a transcribing one when its model is loaded."""
    role = current_app.conf.longhand_role
    child = context.of_process()
    if role == "transcribe":
        context.engine_of_process().preload(child.settings.model)
    elif context.child_index() == 0:
        return  # one io process is kept for assembling, however many recordings come in
    stage = "transcribe" if role == "transcribe" else "ingest"
    threading.Thread(target=child.keep_slot, args=(stage,), name="slot", daemon=True).start()


@worker_process_shutdown.connect
def close_child(**_: object) -> None:
    """A child that ends in order is no slot any more; that of one that is killed lapses."""
    child = context.of_process()
    # A Redis that is gone must not hold up the end.
    leases = Leases(connect(child.settings.state_url, Patience(1, 0)), child.settings)
    with contextlib.suppress(RedisError):
        for stage in ("transcribe", "ingest"):
            leases.close_slot(stage, child.worker)


def main(arguments: list[str] | None = None) -> None:
    """Check the settings and Redis, then run the worker until it is told to end."""
    parser = argparse.ArgumentParser(prog="python -m tasks.worker", description=__doc__)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--concurrency", type=int, default=0, help="processes (io, transcribe) or threads")
    options = parser.parse_args(arguments)
    refuse_telemetry()
    start_logging()
    try:
        run(Settings.from_env(), options.role, options.concurrency)
    except LonghandError as error:
        sys.exit(f"{error.code}: {error}")


def run(settings: Settings, role: str, concurrency: int) -> None:
    """Run one worker; raises ConfigurationError and UnknownModel before it takes any work."""
    celery_app = app.create_app(settings)
    celery_app.conf.longhand_role = role
    parent = context.build(settings, celery_app)
    # With a client's patience: a wrong address or password is told at once.
    for warning in Store(connect(settings.state_url), settings).check_server():
        log.warning("redis_warning", warning=warning)
    if role == "transcribe" and settings.engine == Settings.model_fields["engine"].default:
        models.resolve(model_names.model_of("", settings), settings.model_dir, allow_path=True)
    if role == "deliver" and not settings.webhook_secret:
        log.warning("webhooks_unsigned", warning="WEBHOOK_SECRET is not set: webhooks carry no signature")
    stages, pool, least = ROLES[role]
    stop = threading.Event()
    threading.Thread(target=reaper.run, args=(parent, stop), name="reaper", daemon=True).start()
    celery_app.worker_main(
        [
            "worker",
            f"--hostname={role}-{os.getpid()}@%h",
            f"--queues={','.join(app.queue_of(stage) for stage in stages)}",
            f"--pool={pool}",
            f"--concurrency={max(concurrency, least)}",
            "--loglevel=INFO",
            "--without-mingle",
            "--without-gossip",
        ]
    )
    stop.set()


if __name__ == "__main__":
    main()
