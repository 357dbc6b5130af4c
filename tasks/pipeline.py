"""Every stage of a job as a Celery task, in running order: ingest, transcribe_chunk, assemble, deliver.

A message names a unit of work and nothing else; attempt() claims it in Redis, which is where the truth is.
"""

import functools
import sys
import time
from dataclasses import replace

import structlog
from celery import shared_task

from tasks import app, endings, events, leases
from tasks.ahead import Ahead, prepare
from tasks.attempt import AttemptFailed, attempt, dead_chunks_error, fail_job
from tasks.context import Context, Stage, engine_of_process, of_process
from tasks.deliver import drain
from tasks.errors import LeaseLost
from tasks.fitness import UNFIT, Fitness
from tasks.heartbeat import Heartbeat
from tasks.ingest import ingest_recording
from tasks.job import Job, Request
from tasks.language import is_sure
from tasks.leases import POISON_DEATHS, Lease
from tasks.links import link
from tasks.model_names import engine_of, model_of
from tasks.transcript import result_to_bytes

log = structlog.get_logger()

# For a model that has to be downloaded, and for a Redis that is away when a result is to be written.
PATIENCE_MS = 1_800_000


@shared_task(name=app.INGEST, bind=True, base=Stage, throws=(AttemptFailed,))
def ingest(self: Stage, job_id: str) -> str:
    """Bring the recording in and cut it into chunks; the first is transcribed while the rest is being cut."""
    context = self.context

    def work(lease: Lease, heartbeat: Heartbeat) -> None:
        job, request = _job_and_request(context, job_id)
        ingest_recording(context, request, job.endpoint, lease, heartbeat)
        log.info("job_planned", job_id=job_id)

    try:
        return attempt(context, job_id, leases.INGEST, leases.INGEST, work)
    finally:
        context.bells.ingests()


@shared_task(name=app.TRANSCRIBE, bind=True, base=Stage, throws=(AttemptFailed,))
def transcribe_chunk(self: Stage, job_id: str, index: int) -> str:
    """Transcribe one chunk and commit its result; the commit that completes the job rings for assemble.

    It is the one that was rung for, or another that this process has prepared meanwhile.
    """
    context, fitness = self.context, fitness_of_process()
    lease = ahead_of_process().claim(job_id, index)
    if lease:
        log.info(
            "another_prepared", rung_job_id=job_id, rung_chunk=index, job_id=lease.job_id, chunk=lease.unit
        )
        job_id, index = lease.job_id, int(lease.unit)
    failures = fitness.failures

    def work(lease: Lease, heartbeat: Heartbeat) -> None:
        with fitness:
            _transcribe(context, lease, index, heartbeat)

    try:
        outcome = attempt(context, job_id, leases.TRANSCRIBE, str(index), work, lease=lease)
        return f"{outcome}, of chunk {index + 1} of job {job_id}" if lease else outcome
    finally:
        try:
            context.bells.chunks()
        finally:
            _end_if_unfit(context, fitness)
        if fitness.failures > failures:
            # Until it is handed out again, so that another process may get it, if any is free.
            time.sleep((context.settings.attempt_delay_ms + 2 * context.settings.reap_ms) / 1000)


def _end_if_unfit(context: Context, fitness: Fitness) -> None:
    """End this process, so that a clean one takes its place. What it had in hand is given back already."""
    if fitness.ends:
        log.error("process_unfit", why=fitness.ends, worker=context.worker)
        sys.exit(UNFIT)


@functools.cache
def fitness_of_process() -> Fitness:
    """How the attempts of this process have ended."""
    return Fitness()


@functools.cache
def ahead_of_process() -> Ahead:
    """What this process prepares."""
    return Ahead(of_process(), engine_of_process())


def _transcribe(context: Context, lease: Lease, index: int, heartbeat: Heartbeat) -> None:
    job, request = _job_and_request(context, lease.job_id)
    chunk = context.store.chunk(job.id, index)
    if chunk is None:
        raise LeaseLost
    engine = engine_of_process()
    model = model_of(request.model, context.settings)
    heartbeat.expect(PATIENCE_MS)
    engine.preload(model)
    heartbeat.advance()
    told_of = job.batch or job.id
    if job.batch or job.announced_ms is None:
        body = events.transcribing(told_of, job.recording_id, context.store.now_ms())
        context.bells.deliver(context.store.announce(job.id, body))
    ahead = ahead_of_process()
    ready = ahead.take(job.id, chunk)
    prepared = ready or prepare(context, engine, job, request, chunk)
    options = replace(request.options, language=job.language or None)
    # The next death would make it poison: one window at a time, it may fit, and else shows which one it is.
    batch_size = 1 if lease.deaths >= POISON_DEATHS - 1 else None
    work = replace(prepared.work, options=options, batch_size=batch_size)
    if not lease.deaths:
        # Beside a suspect, nobody could tell which of the two killed the process.
        ahead.begin()
    audio_ms = chunk.end_ms - chunk.start_ms

    def on_window(done: int, total: int, following: int) -> None:
        windows = (done, done + following - 1) if following else None
        heartbeat.advance(audio_ms * done // max(1, total), windows)

    sound = prepared.sound
    result = replace(engine.transcribe(sound.samples, work, on_window), damaged=sound.damaged)
    heartbeat.expect(PATIENCE_MS)
    complete, receiver = context.leases.commit(
        lease,
        result_to_bytes(result),
        result.language,
        audio_ms,
        lambda progress, now_ms: events.progressed(told_of, job.recording_id, now_ms, progress),
        probability=result.language_probability,
        sure=is_sure(result.language_probability, options.language_detection_threshold),
    )
    context.bells.deliver(receiver)
    if complete:
        context.bells.assemble(job.id)
    log.info(
        "chunk_done",
        job_id=job.id,
        chunk=index,
        worker=context.worker,
        speech_ms=result.speech_ms,
        prepared=ready is not None,
    )


@shared_task(name=app.ASSEMBLE, bind=True, base=Stage, throws=(AttemptFailed,))
def assemble(self: Stage, job_id: str) -> str:
    """Merge the chunks' results in order and end the job; its webhook is written in the same step."""
    context = self.context

    def work(lease: Lease, _heartbeat: Heartbeat) -> None:
        _assemble(context, lease)

    return attempt(context, job_id, leases.ASSEMBLE, leases.ASSEMBLE, work)


def _assemble(context: Context, lease: Lease) -> None:
    job, request = _job_and_request(context, lease.job_id)
    if error := dead_chunks_error(context, job, request):
        fail_job(context, lease, error)
        return
    settings, now_ms = context.settings, context.store.now_ms()
    model, engine = model_of(request.model, settings), engine_of(settings)
    link = _link(context, job, now_ms)
    if job.parts:
        parts = context.store.parts(job)
        heard = [(part, context.store.transcript(part)) for part in parts]
        ending = endings.batch_succeeded(job, heard, model, now_ms, engine=engine, link=link)
    else:
        transcript = context.store.transcript(job)
        ending = endings.succeeded(job, request, transcript, model, now_ms, engine=engine, link=link)
    done, receivers = context.store.finish(job.id, ending, stage=leases.ASSEMBLE, fence=lease.fence)
    if not done:
        raise LeaseLost
    context.bells.deliver(*receivers)
    log.info("job_succeeded", job_id=job.id)


def _link(context: Context, job: Job, now_ms: int) -> endings.Link | None:
    """Where the transcript can be read for as long as it is kept, if this API has a public address."""
    settings = context.settings
    if not settings.public_url:
        return None
    expires_ms = now_ms + (settings.retention_ms if job.retention_ms is None else job.retention_ms)
    key = context.store.link_key()
    url = link(settings.public_url, job, expires_ms, key)
    return endings.Link(url, settings.webhook_max_bytes)


@shared_task(name=app.DELIVER, bind=True, base=Stage)
def deliver(self: Stage, receiver: str) -> str:
    """Send every delivery that is due to one receiver, in order, one signed POST each."""
    return drain(self.context, receiver)


def _job_and_request(context: Context, job_id: str) -> tuple[Job, Request]:
    """Raises LeaseLost for a job that is gone; one whose input was refused has ended."""
    job = context.store.job(job_id)
    if job is None or job.request is None:
        raise LeaseLost
    return job, job.request
