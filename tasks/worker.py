"""`python -m tasks.worker ROLE`: one Celery worker, whose role says which stages it runs.

Its parent reaps and never loads a model; its spawned children do. The parent fetches models first, since a
child's start is limited in time.
"""

import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import structlog
from billiard import active_children
from celery import Celery, current_app
from celery.signals import (
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutting_down,
)
from celery.worker.consumer import Consumer
from redis.exceptions import RedisError

from tasks import app, context, heartbeat, model_names, models, reaper, scratch
from tasks.blobs import Blobs
from tasks.children import GRACE_S, Children
from tasks.errors import LonghandError
from tasks.fitness import UNFIT
from tasks.intake import Intake
from tasks.leases import Leases
from tasks.logs import start_logging
from tasks.memory import limit_memory, settle, tune_children
from tasks.presence import Presence
from tasks.reporter import Reporter
from tasks.roles import ROLES, command_line, worker_name
from tasks.scripts import WORKER_PATIENCE, Patience, connect
from tasks.settings import Settings, refuse_telemetry
from tasks.store import Store

log = structlog.get_logger()

# A process that cannot load its models ends after so long, and another one tries.
RELOAD_S = 10.0
# What the reaper has to end its look and give up its lock. Redis may be away.
LAST_LOOK_S = 2.0


@setup_logging.connect
def keep_our_logging(**_: object) -> None:
    """In parent and children; without a receiver of this signal Celery sets up its own."""
    start_logging()


@worker_process_init.connect
def open_child(**_: object) -> None:
    """A child reports as a slot once it can work: a transcribing one when its model is loaded."""
    heartbeat.listen()
    role = current_app.conf.longhand_role
    child = context.of_process()
    if role == "transcribe":
        load_models(child.settings)
    if role == "io":
        limit_memory(child.settings.ingest_memory_bytes)
    settle(look_soon=True)
    _keep_slot(child, ROLES[role].slot_stage_of(context.child_index()), lambda work: work())


def load_models(settings: Settings) -> None:
    """Load what is configured. A process that cannot ends before it is up, and so never takes a chunk."""
    try:
        # The parent has fetched them: a download could take longer than a child may, to start.
        find_models(settings, download=False)
        # What is used last is dropped last where not all fit.
        for model in reversed(model_names.models_to_load(settings)):
            context.engine_of_process().preload(model)
    except Exception as error:  # the edge of a process' start: Celery would let it work
        log.exception("models_not_loaded", error=str(error), again_in_s=RELOAD_S)
        time.sleep(RELOAD_S)
        # Not by SystemExit: Celery would hold that back, too.
        os._exit(UNFIT)


@worker_ready.connect
def open_threads(sender: Consumer, **_: object) -> None:
    """A worker of threads is a slot while its pool runs what it is given."""
    role = ROLES[current_app.conf.longhand_role]
    if role.pool == "threads":
        # Without a callback Celery's threads fail after the work is done.
        run = functools.partial(sender.pool.apply_async, callback=lambda _: None)
        _keep_slot(context.of_process(), role.slot_stage, run)


def _keep_slot(worker: context.Context, stage: str, run: Callable[[Callable[[], None]], object]) -> None:
    threading.Thread(target=worker.keep_slot, args=(stage, run), name="slot", daemon=True).start()


def end_in_time(soft_shutdown_s: float, children: list[str]) -> None:
    """Let a worker that is told to end finish what it has in hand, but not for ever.

    The names of its processes go into `children`. Celery's own soft shutdown sleeps its whole time-out away,
    whatever is in hand.
    """

    def told_to_end(how: str, **_: object) -> None:
        if how == "Warm":
            children.extend(worker_name(pid) for pid in _children())
            timer = threading.Timer(soft_shutdown_s, _end_at_once)
            timer.daemon = True
            timer.start()

    worker_shutting_down.connect(told_to_end, weak=False)


def _end_at_once() -> None:
    # Celery's cold shutdown: messages of what is in hand go back to their queue.
    os.kill(os.getpid(), signal.SIGQUIT)
    # It waits for its processes, and one that is in native code does not hear that it is to end.
    time.sleep(GRACE_S)
    for pid in _children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children() -> list[int]:
    return [child.pid for child in active_children() if child.pid]


def leases_at_the_end(settings: Settings) -> Leases:
    """With little patience: a Redis that is gone must not hold up the end."""
    return Leases(connect(settings.state_url, Patience(1, 0)), settings)


@worker_process_shutdown.connect
def close_child(**_: object) -> None:
    """A child that ends in order is no slot any more; that of one that is killed lapses."""
    child = context.of_process()
    leases = leases_at_the_end(child.settings)
    with contextlib.suppress(RedisError):
        for role in ROLES.values():
            for stage in role.slot_stages:
                leases.close_slot(stage, child.slot)


def main(arguments: list[str] | None = None) -> None:
    """Check the settings and Redis, then run the worker until it is told to end."""
    options = command_line(__doc__).parse_args(arguments)
    refuse_telemetry()
    start_logging()
    try:
        run(Settings.from_env(), options.role, options.concurrency)
    except LonghandError as error:
        sys.exit(f"{error.code}: {error}")


def check(settings: Settings, role: str) -> None:
    """Log what is doubtful; raises ConfigurationError and UnknownModel for what cannot work."""
    # With a client's patience: a wrong address or password is told at once.
    for warning in Store(connect(settings.state_url), settings).check_server():
        log.warning("redis_warning", warning=warning)
    # Every worker may be the one that reaps, and deletes audio.
    Blobs(settings.blobs).check()
    if role == "io":
        scratch.check(settings.scratch_path)
    if role == "transcribe":
        find_models(settings, download=True)
    if role == "deliver" and not settings.signing_secrets(""):
        log.warning("webhooks_unsigned", warning="WEBHOOK_SECRET is not set: webhooks carry no signature")


def find_models(settings: Settings, *, download: bool) -> None:
    """Have the files of what is loaded at the start, or raise UnknownModel or ModelUnavailable."""
    if settings.engine == Settings.model_fields["engine"].default:
        for model in model_names.models_to_load(settings):
            models.resolve(model, settings.model_dir, download=download, allow_path=True)


def run(settings: Settings, role: str, concurrency: int) -> None:
    """Run one worker; raises what check() raises, before it takes any work."""
    check(settings, role)
    celery_app = app.create_app(settings)
    celery_app.conf.longhand_role = role
    celery_app.conf.longhand_concurrency = ROLES[role].concurrency(concurrency)
    children: list[str] = []
    end_in_time(settings.soft_shutdown_ms / 1000, children)
    parent = context.build(settings, celery_app)
    tune_children(role)
    stop = threading.Event()
    reaping = threading.Thread(target=reaper.run, args=(parent, stop), name="reaper", daemon=True)
    reaping.start()
    if ROLES[role].pool == "prefork":
        celery_app.steps["consumer"].add(Intake)
        watch_children(parent, stop)
    report(parent, role, ROLES[role].slots(concurrency), stop)
    arguments = [
        "worker",
        f"--hostname={role}-{os.getpid()}@%h",
        f"--queues={','.join(app.queue_of(stage) for stage in ROLES[role].stages)}",
        f"--pool={ROLES[role].pool}",
        f"--concurrency={ROLES[role].concurrency(concurrency)}",
        "--loglevel=INFO",
        "--without-mingle",
        "--without-gossip",
    ]
    try:
        celery_app.worker_main(arguments)
    finally:
        stop.set()
        hand_back(settings, celery_app, children)
        reaping.join(LAST_LOOK_S)


def watch_children(parent: context.Context, stop: threading.Event) -> None:
    """In a thread, until it is told to stop."""
    children = Children(parent)
    worker_shutting_down.connect(children.told_to_end, weak=False)
    threading.Thread(target=children.watch, args=(stop, time.monotonic), name="children", daemon=True).start()


def report(parent: context.Context, role: str, slots: int, stop: threading.Event) -> None:
    """Say what this worker should be able to do, in a thread, until it is told to stop."""
    settings = parent.settings
    presence = Presence(connect(settings.state_url, WORKER_PATIENCE), settings)
    every_s = settings.lease_ms / 4000
    reporter = Reporter(presence, role, parent.worker, slots, every_s=every_s, clock=time.monotonic)
    worker_ready.connect(reporter.is_ready, weak=False)
    worker_shutting_down.connect(reporter.told_to_end, weak=False)
    threading.Thread(target=reporter.run, args=(stop,), name="reporter", daemon=True).start()


def hand_back(settings: Settings, celery_app: Celery, children: list[str]) -> None:
    """What the processes of a worker that ends have not finished is for others, at once and uncharged."""
    if children:
        with contextlib.suppress(RedisError):
            leases = leases_at_the_end(settings)
            count, _ = leases.hand_back(children)
            log.info("handed_back", units=count)
            # The messages that Celery has put back may have come to others before, who were refused.
            bells = app.Doorbells(celery_app, leases)
            bells.ingests()
            bells.chunks()


if __name__ == "__main__":
    main()
