"""The Celery app, the stages' names and queues, and the doorbells that ring for them.

A message is a doorbell: it names a unit of work and may be lost, doubled or late. Redis state is the truth.
"""

import structlog
from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from tasks import broker
from tasks.formats import stamp
from tasks.leases import HandedOut, Leases
from tasks.scripts import sentinel_options
from tasks.sentinel import Watched
from tasks.settings import Settings

# Stage names; tasks/pipeline.py holds a task for each. The queue of a stage bears its last part.
INGEST = "longhand.ingest"
TRANSCRIBE = "longhand.transcribe"
ASSEMBLE = "longhand.assemble"
DELIVER = "longhand.deliver"
STAGES = (INGEST, TRANSCRIBE, ASSEMBLE, DELIVER)

log = structlog.get_logger()


def queue_of(stage: str) -> str:
    return stage.rpartition(".")[2]


def create_app(settings: Settings) -> Celery:
    """The app of a client or a worker; only a worker imports the stages.

    Each value was tried: see docs/decisions/0002-celery-settings.md.
    """
    broker.mend()
    watched = Watched.parse(settings.redis_url)
    app = Celery(
        "longhand",
        broker=watched.celery_url if watched else settings.redis_url,
        include=["tasks.pipeline"],
    )
    app.conf.update(
        # An exchange each: queues that share one also share their messages.
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in map(queue_of, STAGES)],
        task_routes={stage: {"queue": queue_of(stage)} for stage in STAGES},
        task_default_queue=queue_of(INGEST),
        task_create_missing_queues=False,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_pool_start_method="spawn",
        worker_proc_alive_timeout=120,
        worker_send_task_events=True,
        task_send_sent_event=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        # A Redis that is full refuses to note what was taken from a queue, and a worker would end.
        broker_channel_error_retry=True,
        broker_pool_acquire_timeout=10,
        task_publish_retry_policy={
            "max_retries": 5,
            "interval_start": 0.1,
            "interval_step": 0.3,
            "interval_max": 2,
        },
        broker_transport_options={
            "visibility_timeout": 21_600,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "queue_order_strategy": "round_robin",
            **(
                {"master_name": watched.master, "sentinel_kwargs": sentinel_options(watched)}
                if watched
                else {}
            ),
        },
    )
    return app


class Doorbells:
    """Rings for work that Redis holds. A ring that fails is not an error: the reaper rings again."""

    def __init__(self, app: Celery, leases: Leases) -> None:
        self._app = app
        self._leases = leases

    def ingests(self) -> None:
        """Ring for as many ingests as there are free slots."""
        for job_id in self._leases.hand_out_ingests():
            self._ring(INGEST, (job_id,), f"job {job_id}")

    def chunks(self) -> None:
        """Ring for as many chunks as there are free slots, fairly over jobs."""
        for chunk in self._leases.hand_out_chunks():
            self._ring(TRANSCRIBE, (chunk.job_id, chunk.index), shown(chunk))

    def again(self, chunk: HandedOut) -> None:
        """Ring for a chunk that was handed out before."""
        self._ring(TRANSCRIBE, (chunk.job_id, chunk.index), shown(chunk))

    def assemble(self, job_id: str) -> None:
        self._ring(ASSEMBLE, (job_id,), f"job {job_id}")

    def deliver(self, *receivers: str) -> None:
        """Ring for the receivers' due deliveries; an empty name rings for nobody."""
        for receiver in dict.fromkeys(filter(None, receivers)):
            self._ring(DELIVER, (receiver,), f"to {receiver.rpartition('|')[2]}")

    def _ring(self, stage: str, args: tuple[str | int, ...], shown: str) -> None:
        """Send a message; `shown` is what Flower has in place of its arguments."""
        try:
            self._app.send_task(stage, args=args, argsrepr=shown, kwargsrepr="")
        except OperationalError as error:
            log.warning("doorbell_failed", stage=queue_of(stage), error=str(error))


def shown(chunk: HandedOut) -> str:
    """A chunk for people: `chunk 3/12, 00:05:00-00:09:58, job J`, the first being 1.

    Flower cuts it off after some 45 characters, and what a task is comes before whose it is.
    """
    start, end = (stamp(ms, ".").partition(".")[0] for ms in (chunk.start_ms, chunk.end_ms))
    return f"chunk {chunk.index + 1}/{chunk.total or '?'}, {start}-{end}, job {chunk.job_id}"
