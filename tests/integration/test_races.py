"""Two who end a job at once, a cancel at any time, and a job of ten thousand chunks."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from tasks import endings
from tasks.endings import Ending
from tasks.errors import LeaseLost, Unexpected
from tasks.leases import ASSEMBLE, INGEST, TRANSCRIBE, Lease, Leases
from tasks.scripts import Scripts, connect
from tasks.store import Store
from tests.bench import HOOK, NEW, RECEIVER, REQUEST, Bench, chunk, report, result
from tests.machines.warp import pass_time

CHUNKS = 10_000
MOST_BYTES = 3 * 1024 * 1024
SLOW_US = 50_000
ROUNDS = 4


def together(*calls: Callable[[], object]) -> list[object]:
    """What each call gives, all of them begun at one moment, each by a thread of its own."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def terminal_events(bench: Bench, job_id: str) -> list[str]:
    """The states of a job's last events: those in its stream."""
    entries = bench.redis.xrange(f"lh:job:{job_id}:events")
    return [fields[b"status"].decode() for _, fields in entries if fields[b"kind"] == b"terminal"]


def deliveries(bench: Bench, job_id: str) -> list[str]:
    """The kinds of what was written for a job's receiver, in order."""
    found = (bench.outbox.entry(f"evt_{job_id}_1_{number}", "us") for number in range(1, 10))
    return [entry.kind for entry in found if entry]


def succeeded(store: Store, job_id: str, lease: Lease) -> bool:
    """End a job as the stage assemble does."""
    job = store.job(job_id)
    assert job
    ending = endings.succeeded(job, REQUEST, store.transcript(job), "m", store.now_ms())
    return store.finish(job_id, ending, stage=ASSEMBLE, fence=lease.fence)[0]


def canceled_by(store: Store, job_id: str, ending: Ending) -> bool:
    return store.finish(job_id, ending)[0]


def elsewhere(bench: Bench) -> Store:
    """The store of another process, with a connection of its own."""
    return Store(connect(bench.settings.state_url), bench.settings)


def test_of_two_that_finish_at_once_one_does(bench: Bench) -> None:
    stores = [elsewhere(bench), elsewhere(bench)]
    for number in range(200):
        job_id = f"j{number}"
        lease = ready(bench, job_id)
        ended = together(*(partial(succeeded, store, job_id, lease) for store in stores))
        assert sorted(map(bool, ended)) == [False, True]
        assert terminal_events(bench, job_id) == ["succeeded"]
        assert deliveries(bench, job_id) == ["terminal"]


def test_who_dies_before_the_end_is_written_leaves_it_to_the_next(bench: Bench) -> None:
    for number in range(20):
        job_id = f"j{number}"
        late = ready(bench, job_id)
        pass_time(bench.redis, bench.settings.lease_ms + 1)
        assert bench.leases.reap().assemble == [job_id]
        lease = bench.other.claim(job_id, ASSEMBLE, ASSEMBLE)
        assert isinstance(lease, Lease)
        assert not succeeded(bench.store, job_id, late)
        assert succeeded(bench.store, job_id, lease)
        assert terminal_events(bench, job_id) == ["succeeded"]
        assert deliveries(bench, job_id) == ["terminal"]


def test_of_a_cancel_and_an_end_one_counts(bench: Bench) -> None:
    client, worker, outcomes = elsewhere(bench), elsewhere(bench), []
    for number in range(500):
        job_id = f"j{number}"
        lease = ready(bench, job_id)
        ending = endings.canceled(bench.job(job_id), bench.store.now_ms())
        canceled, done = together(
            partial(canceled_by, client, job_id, ending), partial(succeeded, worker, job_id, lease)
        )
        assert canceled is not done
        outcomes.append("canceled" if canceled else "succeeded")
        assert terminal_events(bench, job_id) == [bench.job(job_id).status] == outcomes[-1:]
        assert deliveries(bench, job_id) == ["terminal"]
    assert len(outcomes) == 500


def test_a_cancel_at_any_time_is_the_end(bench: Bench) -> None:
    worker = Leases(connect(bench.settings.state_url), bench.settings, "worker")
    dice = random.Random(22)
    for number in range(100):
        job_id, stop = f"j{number}", threading.Event()
        bench.planned(job_id, chunks=4, webhook_url=HOOK)
        bench.seal(job_id)

        def work(job_id: str = job_id, stop: threading.Event = stop) -> int:
            """Transcribe until told that the job has ended; how many results were written."""
            for index in range(4):
                lease = worker.claim(job_id, TRANSCRIBE, str(index))
                if not isinstance(lease, Lease):
                    return index
                try:
                    worker.commit(lease, result(index), "he", 1000, report)
                except LeaseLost:
                    return index
                stop.wait(dice.random() / 1000)
            return 4

        def cancel(job_id: str = job_id, stop: threading.Event = stop) -> bool:
            stop.wait(dice.random() / 200)
            return bench.store.finish(job_id, bench.canceled(job_id))[0]

        written, canceled = together(work, cancel)
        assert canceled is True
        assert len(bench.store.results(job_id)) == written, "nothing is written after the end"
        assert terminal_events(bench, job_id) == ["canceled"]
        assert deliveries(bench, job_id) == ["terminal"]


def ready(bench: Bench, job_id: str) -> Lease:
    """A job of one chunk with its result, and the lease of its end."""
    assert bench.store.create(replace(NEW, id=job_id, webhook_url=HOOK, receiver=RECEIVER))
    ingest = bench.claim(INGEST, INGEST, job_id)
    bench.leases.add_chunk(ingest, chunk(0))
    bench.leases.seal(ingest, 1, 1000, "[]")
    bench.transcribe_of(job_id, 0)
    return bench.claim(ASSEMBLE, ASSEMBLE, job_id)


def test_ten_thousand_chunks_are_no_burden(bench: Bench) -> None:
    redis = bench.redis
    assert bench.store.create(replace(NEW, webhook_url=HOOK, receiver=RECEIVER))
    ingest = bench.claim(INGEST, INGEST)
    with redis.pipeline(transaction=False) as pipe:
        scripts = Scripts(redis)
        for index in range(CHUNKS):
            row = chunk(index)
            scripts("add_chunk", "j", ingest.fence, index, row.to_json(), row.digest, client=pipe)
        assert set(pipe.execute()) == {b"added"}
    redis.config_set("slowlog-log-slower-than", SLOW_US)
    redis.slowlog_reset()
    bench.leases.seal(ingest, CHUNKS, 1000 * CHUNKS, "[]")
    assert sum(redis.memory_usage(key, samples=0) for key in redis.scan_iter("lh:job:j*")) < MOST_BYTES
    bench.open_slots(TRANSCRIBE, 200)
    for _ in range(ROUNDS):
        assert len(bench.hand_out()) == 400
        pass_time(redis, bench.settings.dispatch_ms + 1)
        for _ in range(3):
            bench.leases.reap()
        bench.open_slots(TRANSCRIBE, 200)
        bench.leases.hand_back(["worker-1"])
        ending = endings.failed("j", "r", bench.store.now_ms(), Unexpected())
        assert bench.store.finish("j", ending)[0]
        assert bench.store.retry("j") == "queued"
    slow = Counter(
        bytes(entry["command"]).split()[1]
        for entry in redis.slowlog_get(128)
        if entry["command"].startswith(b"EVALSHA")
    )
    # A machine that is busy stops any of them now and then; what is slow is slow each time.
    assert not [sha for sha, times in slow.items() if times >= ROUNDS]
